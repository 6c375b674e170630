"""Decoupled knowledge distillation (Zhao, Cui, Song, Qiu, Liang, CVPR 2022)."""

from dataclasses import dataclass

from kdtoolkit import losses
from kdtoolkit._checks import AT_LEAST_0, FRACTION, POSITIVE
from kdtoolkit._types import Tensor
from kdtoolkit.methods.base import Batch, LogitsMethod, option


@dataclass(frozen=True)
class DKD(LogitsMethod):
    """`CE(y, q) + warmup T^2 (alpha KL(b_t || b_s) + beta KL(p^ || q^))`: KD in two parts.

    `b` is the true class against the others, `p^` the others among themselves. The weight rises
    from the first epoch on, linearly, as in the authors' code: 20 epochs of 240. `beta` is theirs
    for ResNet-32x4 to ResNet-8x4; it is 2 for ResNet-56 to ResNet-20 and 6 for WRN-40-2 to
    WRN-16-2.
    """

    alpha: float = option(1.0, "Weight of the true class against the others.", AT_LEAST_0)
    beta: float = option(8.0, "Weight of the others among themselves.", AT_LEAST_0)
    temperature: float = option(4.0, "Temperature of both networks' logits.", POSITIVE)
    warmup: float = option(1 / 12, "Share of the epochs in which the weight rises.", FRACTION)

    def term(self, batch: Batch) -> Tensor:
        teacher, student, temperature = self.corrected(batch)
        return batch.warmup(self.warmup) * losses.decoupled_divergence(
            batch.labels, teacher, student, self.alpha, self.beta, temperature
        )
