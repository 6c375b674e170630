"""Logit standardisation (Sun, Ren, Li, Wang, Cao, CVPR 2024)."""

from dataclasses import dataclass

from kdtoolkit import losses
from kdtoolkit._types import Tensor
from kdtoolkit.methods.base import Batch, Correction


@dataclass(frozen=True)
class Standardize(Correction):
    """Both networks' logits are standardised, sample by sample: `(z - mean) / std`.

    The student need not have the teacher's range of logits. It weighs more than the labels then: KD
    of the authors is `KD(9.0, 2.0, labels=0.1, corrections=[Standardize()])`, DKD from ResNet-56 to
    ResNet-20 `DKD(18.0, 36.0, 3.0, corrections=[Standardize()])`.
    """

    kind = "standardization"

    def teacher_logits(self, batch: Batch, logits: Tensor) -> Tensor:
        return losses.standardize_logits(logits)

    def student_logits(self, batch: Batch, logits: Tensor) -> Tensor:
        return losses.standardize_logits(logits)
