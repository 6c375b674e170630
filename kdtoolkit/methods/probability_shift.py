"""Logits adjustment by a swap (Wen et al. 2021)."""

from dataclasses import dataclass

from kdtoolkit import losses
from kdtoolkit.methods.base import Correction


@dataclass(frozen=True)
class ProbabilityShift(Correction):
    """Where the teacher is wrong, its scores of the true class and of its favourite are swapped."""

    kind = "adjustment"

    def teacher_logits(self, batch, logits):
        return losses.probability_shift(logits, batch.labels)
