"""Logits adjustment by a swap (Wen et al. 2021)."""

from dataclasses import dataclass

from kdtoolkit import losses
from kdtoolkit._types import Tensor
from kdtoolkit.methods.base import Batch, Correction


@dataclass(frozen=True)
class ProbabilityShift(Correction):
    """Where the teacher is wrong, its scores of the true class and of its favourite are swapped."""

    kind = "adjustment"

    def teacher_logits(self, batch: Batch, logits: Tensor) -> Tensor:
        return losses.probability_shift(logits, batch.labels)
