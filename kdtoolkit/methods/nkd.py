"""Normalised knowledge distillation (Yang, Zeng, Yuan, Li, ICCV 2023)."""

from dataclasses import dataclass

from kdtoolkit import losses
from kdtoolkit._checks import AT_LEAST_0, POSITIVE
from kdtoolkit._types import Tensor
from kdtoolkit.methods.base import Batch, LogitsMethod, option


@dataclass(frozen=True)
class NKD(LogitsMethod):
    """`CE(y, q) - p_y ln q_y - gamma T^2 sum_{i != y} p^_i ln q^_i`: the true class, and others.

    `p^` are the others among themselves at temperature `T`; the true class is at temperature 1. The
    defaults are the authors' on CIFAR-100.
    """

    gamma: float = option(3.5, "Weight of the others among themselves.", AT_LEAST_0)
    temperature: float = option(3.0, "Temperature of the others' logits.", POSITIVE)

    def term(self, batch: Batch) -> Tensor:
        teacher, student, temperature = self.corrected(batch)
        return losses.normalized_divergence(batch.labels, teacher, student, self.gamma, temperature)
