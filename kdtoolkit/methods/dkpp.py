"""Dark knowledge with permuted predictions (Furlanello et al. 2018)."""

import dataclasses
from dataclasses import dataclass

from kdtoolkit import losses
from kdtoolkit._checks import FRACTION, POSITIVE
from kdtoolkit._types import Tensor
from kdtoolkit.methods.base import Batch, option
from kdtoolkit.methods.kd import KD


@dataclass(frozen=True)
class DKPP(KD):
    """`KD`, but all the teacher's scores but the largest are permuted at random.

    What is left of the teacher is how sure it is. Corrections see the permuted teacher. By default
    there are no labels and no temperature, as in the paper.
    """

    weight: float = option(1.0, "Weight of the permuted teacher against the labels.", FRACTION)
    temperature: float = option(1.0, "Temperature of both networks' logits.", POSITIVE)

    def corrected(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | float]:
        logits = batch.teacher.logits
        permuted = losses.permute_secondary_by(logits, batch.uniform(logits))
        teacher = dataclasses.replace(batch.teacher, logits=permuted)
        return super().corrected(dataclasses.replace(batch, teacher=teacher))
