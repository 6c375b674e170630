"""Similarity-preserving knowledge distillation (Tung, Mori, ICCV 2019)."""

import dataclasses
from dataclasses import dataclass

from kdtoolkit import losses
from kdtoolkit._checks import AT_LEAST_0
from kdtoolkit._types import Network, Tensor
from kdtoolkit.methods.base import LAYER_PAIRS, Batch, LayersMethod, Pairs, option


@dataclass(frozen=True)
class Similarity(LayersMethod):
    """`CE(y, q) + w ||G_student - G_teacher||_F^2 / b^2`: which samples of a batch are alike (SP).

    `G` holds the products of all pairs of samples' features in the global batch, its rows of norm
    1. The layers need not have the same size. The weight is that of the field's benchmarks.
    """

    relates_samples = True

    weight: float = option(3000.0, "Weight of the similarities' distance.", AT_LEAST_0)
    layers: Pairs | None = option(
        None,
        "Layers that are compared, STUDENT:TEACHER (default: the last stage that both have).",
        LAYER_PAIRS,
    )

    def default_pairs(self, network: Network, teacher: Network) -> Pairs:
        return super().default_pairs(network, teacher)[-1:]

    def distance(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Of the features of the whole global batch, a scalar."""
        return losses.similarity_distance(teacher, student)

    def term(self, batch: Batch) -> Tensor:
        teacher, student = (
            dataclasses.replace(own, features=[batch.gather(each) for each in own.features])
            for own in (batch.teacher, batch.student)
        )
        everyone = dataclasses.replace(batch, teacher=teacher, student=student)
        return batch.of_each(super().term(everyone))
