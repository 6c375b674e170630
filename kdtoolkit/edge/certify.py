"""How far early exit may be trusted: bounds that hold for all images, from some of them.

NumPy alone. A path of operating points is tested from the dearest to the cheapest, each against the
hypothesis that its risk is above the limit, until one is not rejected: fixed-sequence testing
(Angelopoulos et al. 2021, "Learn then Test"; Jazbec et al., NeurIPS 2024). All points before it are
certified at once, without a correction for their number.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kdtoolkit._checks import INSIDE_0_1, ArgumentError, OneOf, Words, check

RISKS = ("disagreement", "accuracy")
_STEPS = 40  # halvings in the search for a bound


@dataclass(frozen=True)
class Certificate:
    """What some images show of the operating points of a classifier.

    Attributes:
        risk: `"disagreement"`, the share of images that the whole network decides otherwise; or
            `"accuracy"`, how much less accurate than the whole network.
        limit: that the risk of a certified point does not pass.
        confidence: with which that is so, over the draw of the images.
        images: how many there were.
        index: of the cheapest certified point; None where there is none.
        observed: the risk of that point on these images; of the dearest where there is none.
        bound: the smallest limit that these images certify for that point.
    """

    risk: str
    limit: float
    confidence: float
    images: int
    index: int | None
    observed: float
    bound: float

    def __str__(self):
        what = {
            "disagreement": "of decisions differ from the whole network's",
            "accuracy": "of accuracy are given up against the whole network",
        }[self.risk]
        sure = f"with {_percent(self.confidence)} confidence at most"
        limit = _percent(self.limit)
        if self.index is not None:
            return f"{sure} {limit} {what} ({self.images:,d} images)"
        needed = images_needed(self.limit, self.confidence)
        few = f"; less than {needed:,d} images certify nothing" if self.images < needed else ""
        return (
            f"no operating point is certified: {sure} {self.bound:.2%} {what}, and the limit is "
            f"{limit} ({self.images:,d} images{few})"
        )


def certify(
    decisions: Sequence[np.ndarray],
    whole: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    risk: str = "disagreement",
    limit: float = 0.01,
    confidence: float = 0.9,
) -> Certificate:
    """Finds the cheapest operating point whose risk is within the limit, for all such images.

    With probability `confidence` over the draw of the images, the true risk of every point from the
    certified one to the dearest is at most the limit. That holds for points that were found on
    other images than these.

    Args:
        decisions: of each operating point, cheapest first: class indices `(n,)`. The dearest should
            be the whole network, or nearly it: where it fails, nothing is certified.
        whole: what the whole network decides: class indices `(n,)`.
        labels: class indices `(n,)`; for `"accuracy"` alone.
        risk: `"disagreement"`, by the exact binomial distribution; or `"accuracy"`, by betting
            (Waudby-Smith and Ramdas 2024), which takes what is gained against what is lost.
        limit: in (0, 1).
        confidence: in (0, 1).

    Raises:
        ArgumentError: an argument is not what is accepted.
    """
    check("risk", risk, OneOf(RISKS))
    check("limit", limit, INSIDE_0_1)
    check("confidence", confidence, INSIDE_0_1)
    whole = np.asarray(whole)
    if not len(decisions) or not len(whole):
        received = Words(f"{len(decisions)} points and {len(whole)} images")
        raise ArgumentError("decisions", "at least one point and one image", received, must="hold")
    if risk == "accuracy" and labels is None:
        raise ArgumentError("labels", "given for the risk accuracy", labels)
    # Betting looks at one image after the other: sorted by class, the first ones may lose nothing.
    order = np.random.default_rng(0).permutation(len(whole))
    found, last = None, None
    for index in reversed(range(len(decisions))):
        losses = _losses(np.asarray(decisions[index]), whole, labels, risk)[order]
        test = _TESTS[risk](losses)
        last = (losses, test) if last is None else last
        if test(limit) > 1 - confidence:
            break
        found, last = index, (losses, test)
    losses, test = last  # type: ignore[misc]  # there is at least one point
    observed, bound = float(losses.mean()), _bound(test, 1 - confidence)
    return Certificate(risk, limit, confidence, len(whole), found, observed, bound)


def images_needed(limit: float, confidence: float) -> int:
    """Returns how many images it takes to certify a point that never disagrees.

    `(1 - limit)^n <= 1 - confidence`.
    """
    return math.ceil(math.log(1 - confidence) / math.log1p(-limit))


def binomial_p_value(failures: int, images: int, limit: float) -> float:
    """Returns `P(Bin(images, limit) <= failures)`: of so few where the risk is at least the limit.

    Args:
        failures: from 0 to `images`.
        images: at least one.
        limit: in (0, 1).
    """
    if failures >= images:
        return 1.0
    k = np.arange(1, failures + 1)
    ratios = np.log((images - k + 1) / k) + math.log(limit) - math.log1p(-limit)
    logs = images * math.log1p(-limit) + np.concatenate([[0.0], np.cumsum(ratios)])
    largest = logs.max()
    return min(float(np.exp(largest) * np.exp(logs - largest).sum()), 1.0)


def betting_p_value(losses: np.ndarray, limit: float) -> float:
    """Returns a p-value of the hypothesis that the mean of losses in [-1, 1] is above the limit.

    One over the largest capital of someone who bets on every loss, in their order, that the mean is
    lower (Waudby-Smith and Ramdas, JRSS B 2024, section 4): with stakes by the variance of the
    losses before.

    Args:
        losses: float `(n,)`, in [-1, 1], drawn independently.
        limit: of their mean, in (0, 1).
    """
    x = (np.asarray(losses, np.float64) + 1) / 2
    m = (limit + 1) / 2
    n = len(x)
    counts = np.arange(1, n + 1)
    means = (0.5 + np.cumsum(x)) / (counts + 1)
    variances = (0.25 + np.cumsum((x - means) ** 2)) / (counts + 1)
    before = np.concatenate([[0.25], variances[:-1]])
    stakes = np.minimum(np.sqrt(2 * math.log(1 / 0.1) / (n * before)), 0.75 / (1 - m))
    capital = np.cumsum(np.log1p(-stakes * (x - m)))
    return float(min(1.0, np.exp(-max(capital.max(), 0.0))))


def _losses(decisions, whole, labels, risk):
    for name, values in (("decisions", decisions), ("labels", labels)):
        if values is not None and np.shape(values) != whole.shape:
            accepted = f"class indices of shape {whole.shape}"
            raise ArgumentError(name, accepted, Words(f"shape {np.shape(values)}"))
    if risk == "disagreement":
        return (decisions != whole).astype(float)
    return (whole == labels).astype(float) - (decisions == labels)


def _percent(fraction):
    """With all its digits: 99.9% is not 100%."""
    return f"{100 * fraction:.12g}%"


def _disagreement(losses) -> Callable[[float], float]:
    failures, images = int(losses.sum()), len(losses)
    return lambda limit: binomial_p_value(failures, images, limit)


def _accuracy(losses) -> Callable[[float], float]:
    return lambda limit: betting_p_value(losses, limit)


_TESTS = dict(zip(RISKS, (_disagreement, _accuracy), strict=True))


def _bound(test, level):
    """The smallest limit that is certified: p-values fall as limits grow."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if test(middle) <= level else (middle, high)
    return high
