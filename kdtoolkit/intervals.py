"""How large a difference is, and how sure that is: over seeds, and over test images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from kdtoolkit._checks import INSIDE_0_1, ArgumentError, Words, check

__all__ = ["Difference", "difference", "t_interval"]

_RESAMPLES = 20_000


@dataclass(frozen=True)
class Difference:
    """A mean difference of two accuracies, as a fraction of 1, with two intervals.

    Attributes:
        mean: over the seeds.
        by_seed: one for each seed.
        over_seeds: interval for another training, of Student's t; None for one seed.
        over_images: interval for other test images with these trainings, of a paired bootstrap.
    """

    mean: float
    by_seed: tuple[float, ...]
    over_seeds: tuple[float, float] | None
    over_images: tuple[float, float]


def difference(
    correct: Sequence[np.ndarray], than: Sequence[np.ndarray], confidence: float = 0.95
) -> Difference:
    """Returns how much more often the one is right than the other, seed by seed paired.

    Args:
        correct: booleans `(images,)` for each seed.
        than: those of the other, of the same images and seeds.
        confidence: of both intervals.

    The interval over seeds is that of Student's t with n - 1 degrees of freedom. That over images
    resamples images with replacement: of each, the mean over the seeds of the paired difference
    counts; its ends are percentiles of 20,000 resamples, the same ones in every call.

    Raises:
        ArgumentError: there are not as many images for each seed, or not as many of both;
            `confidence` is not inside (0, 1).
    """
    shape, other = _shape("correct", correct), _shape("than", than)
    if other != shape:
        accepted = f"of as many seeds and images as `correct`, {shape}"
        raise ArgumentError("than", accepted, Words(other))
    pairs = np.array(correct, np.int8) - np.array(than, np.int8)
    by_seed = pairs.mean(axis=1)
    return Difference(
        mean=float(by_seed.mean()),
        by_seed=tuple(map(float, by_seed)),
        over_seeds=t_interval(by_seed, confidence),
        over_images=_bootstrap(pairs.sum(axis=0), len(pairs), confidence),
    )


def t_interval(
    values: Sequence[float] | np.ndarray, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Returns Student's t interval of a mean; None for one value.

    Raises:
        ArgumentError: `confidence` is not inside (0, 1).
    """
    check("confidence", confidence, INSIDE_0_1)
    array = np.asarray(values, np.float64)
    count, mean = len(array), array.mean()
    if count < 2:
        return None
    half = stats.t.ppf((1 + confidence) / 2, count - 1) * array.std(ddof=1) / np.sqrt(count)
    return float(mean - half), float(mean + half)


def _shape(argument, correct):
    """Returns how many seeds and images there are."""
    shapes = {np.shape(one) for one in correct}
    if len(shapes) != 1 or {len(shape) for shape in shapes} != {1}:
        accepted = "booleans `(images,)` for each seed, of as many images in all of them"
        found = ", ".join(map(str, sorted(shapes))) or "no seed"
        raise ArgumentError(argument, accepted, Words(found))
    return len(correct), *shapes.pop()


def _bootstrap(sums, seeds, confidence):
    # Few values occur: how often each is drawn is multinomial, and the images need not be drawn.
    values, counts = np.unique(sums, return_counts=True)
    # NumPy keeps the legacy generator's numbers as they are; those of others change with versions.
    draws = np.random.RandomState(0).multinomial(len(sums), counts / len(sums), _RESAMPLES)
    means = draws @ values / (len(sums) * seeds)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    # Without last bits, in which machines differ: half a unit of what is printed occurs.
    return round(float(low), 12), round(float(high), 12)
