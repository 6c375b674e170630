"""Confidence-weighted by teacher max (Furlanello et al. 2018)."""

from dataclasses import dataclass

from kdtoolkit._types import Tensor
from kdtoolkit.methods.base import Batch, Method


@dataclass(frozen=True)
class CWTM(Method):
    """Weighs each label by the teacher's largest probability over the mean of it in the batch.

    It adds no term: the teacher says how much a sample matters, and nothing of its classes.
    """

    def label_weight(self, batch: Batch) -> Tensor:
        from keras import ops

        confidence = ops.max(ops.softmax(batch.teacher.logits), axis=-1)
        return confidence / batch.mean(confidence)
