"""What analyses return, as plain classes: pictures are drawn of them without TensorFlow."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class WithinGroups:
    """How many second choices stay in the group of the true class.

    Second choices that are the true class itself, on the diagonal, are left out of the shares.

    Attributes:
        share: of the second choices, those in the true class' group.
        chance: that share if a second choice were any other class, all as likely.
        concentration: how often two different images of one class have the same second choice, the
            mean over the classes with at least two; `1 / (classes - 1)` by chance. NaN where no
            class has two.
        diagonal: share of all images whose second choice is the true class.
    """

    share: float
    chance: float
    concentration: float
    diagonal: float


@dataclass(frozen=True)
class Projection:
    """Features in the plane in which they vary most.

    Attributes:
        points: float64 `(n, 2)`, centred.
        variance: share of all variance along each of the two axes.
    """

    points: np.ndarray
    variance: tuple[float, float]


@dataclass(frozen=True)
class Agreement:
    """Two networks on the same images.

    Attributes:
        share: of images on which both decide for the same class.
        divergence: mean `KL(teacher || student)` in nats.
    """

    share: float
    divergence: float


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy, in bins of equal width.

    Attributes:
        counts: int64 `(bins,)`, images whose largest score is in (k / bins, (k + 1) / bins].
        confidences: float64 `(bins,)`, their mean largest score; NaN in an empty bin.
        accuracies: float64 `(bins,)`, the share of them that is right; NaN likewise.
        error: the expected calibration error: the mean over the images of how far the two are apart
            in their bin.
    """

    counts: np.ndarray
    confidences: np.ndarray
    accuracies: np.ndarray
    error: float


@dataclass(frozen=True)
class Calibration:
    """A network before and after one temperature.

    Attributes:
        temperature: fitted on other images; above 1 for a network that is too sure.
        before, after: on the images that were looked at.
    """

    temperature: float
    before: Reliability
    after: Reliability


@dataclass(frozen=True)
class Noisy:
    """A network at one strength of noise.

    Attributes:
        sigma: standard deviation of the noise or, normalised, its share of each filter's norm.
        accuracies: of every draw, fractions.
        losses: mean cross-entropy of every draw, nats.
    """

    sigma: float
    accuracies: tuple[float, ...]
    losses: tuple[float, ...]
