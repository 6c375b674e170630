"""Transformed teacher matching (Zheng, Yang, ICLR 2024)."""

from dataclasses import dataclass
from typing import ClassVar

from kdtoolkit import losses
from kdtoolkit._checks import AT_LEAST_0, POSITIVE
from kdtoolkit._types import Tensor
from kdtoolkit.methods.base import Batch, LogitsMethod, option


@dataclass(frozen=True)
class TTM(LogitsMethod):
    """`CE(y, q) + beta KL(p^gamma / S || q)`: the teacher alone is softened, at T = 1 / gamma.

    The defaults are the authors' for VGG-13 to VGG-8.
    """

    weighted: ClassVar[bool] = False
    softens = True

    beta: float = option(45.0, "Weight of the teacher.", AT_LEAST_0)
    gamma: float = option(0.1, "Exponent of the teacher's probabilities.", POSITIVE)

    def term(self, batch: Batch) -> Tensor:
        teacher, student, _ = self.corrected(batch)
        divergence = losses.transformed_divergence(teacher, student, self.gamma, self.weighted)
        return self.beta * divergence


@dataclass(frozen=True)
class WTTM(TTM):
    """`CE(y, q) + beta S KL(p^gamma / S || q)`: TTM, each sample weighted by `S = sum p^gamma`.

    The less sure the teacher is, the larger is `S`. The defaults are those that the authors give
    for VGG-13 to VGG-8 beside CRD.
    """

    weighted = True

    beta: float = option(4.0, "Weight of the teacher.", AT_LEAST_0)
    gamma: float = option(0.2, "Exponent of the teacher's probabilities.", POSITIVE)
