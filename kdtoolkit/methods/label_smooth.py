"""Logits adjustment by a smoothed label (Wen et al. 2021)."""

from dataclasses import dataclass

from kdtoolkit import losses
from kdtoolkit._checks import INSIDE_0_1, Interval
from kdtoolkit._types import Tensor
from kdtoolkit.methods.base import Batch, Correction, LogitsMethod, option


@dataclass(frozen=True)
class LabelSmooth(Correction):
    """Where the teacher is wrong, a smoothed label takes its place.

    At temperature 1 only, and not of methods that soften the teacher otherwise: a smoothed label is
    probabilities already, which would be softened a second time. Standardisation comes before it.
    The paper's `p` is not known to us.
    """

    kind = "adjustment"
    implied = {"temperature": 1.0}  # noqa: RUF012 (annotated in the base class)

    p: float = option(0.9, "Probability of the true class in the smoothed label.", INSIDE_0_1)

    def teacher_logits(self, batch: Batch, logits: Tensor) -> Tensor:
        return losses.label_smooth_adjustment(logits, batch.labels, self.p)

    def check_method(self, method: LogitsMethod) -> None:
        super().check_method(method)
        if method.softens:
            accepted = f"without {self.name}: {method.name} softens the teacher"
            method.refuse("corrections", accepted, self.name)
        later = method.corrections[method.corrections.index(self) + 1 :]
        standardize = next((c.name for c in later if c.kind == "standardization"), None)
        if standardize:
            received = f"{self.name}+{standardize}"
            method.refuse("corrections", f"{standardize} before {self.name}", received)
        others = [c.name for c in method.corrections if c.kind == "temperature"]
        if others:
            method.refuse("corrections", f"without {others[0]} beside {self.name}", others[0])

    def check_classes(self, classes: int) -> None:
        accepted = Interval(1 / classes, 1, open_low=True, open_high=True)
        if self.p not in accepted:
            self.refuse("p", f"in (1/{classes}, 1)", self.p)
