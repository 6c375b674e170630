"""Refined logit distillation (Sun et al. 2024)."""

from dataclasses import dataclass

from kdtoolkit import losses
from kdtoolkit._checks import AT_LEAST_0, POSITIVE
from kdtoolkit._types import Tensor
from kdtoolkit.methods.base import Batch, LogitsMethod, option


@dataclass(frozen=True)
class RLD(LogitsMethod):
    """`CE(y, q) + alpha KL(b_t || b_s) + beta T^2 KL(p' || q')`: DKD without a teacher's mistakes.

    `b_t` is the teacher's largest probability against the rest, `b_s` the student's of the true
    class; `p'` leaves out what the teacher thinks at least as likely as the true class.
    """

    alpha: float = option(1.0, "Weight of how sure to be.", AT_LEAST_0)
    beta: float = option(8.0, "Weight of the less likely classes among themselves.", AT_LEAST_0)
    temperature: float = option(4.0, "Temperature of the second part's logits.", POSITIVE)

    def term(self, batch: Batch) -> Tensor:
        teacher, student, temperature = self.corrected(batch)
        return losses.refined_divergence(
            batch.labels, teacher, student, self.alpha, self.beta, temperature
        )
