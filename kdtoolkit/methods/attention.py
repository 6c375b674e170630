"""Attention transfer (Zagoruyko, Komodakis 2017)."""

from dataclasses import dataclass

from kdtoolkit import losses
from kdtoolkit._checks import AT_LEAST_0
from kdtoolkit._types import Tensor
from kdtoolkit.methods.base import LAYER_PAIRS, LayersMethod, Pairs, option


@dataclass(frozen=True)
class Attention(LayersMethod):
    """`CE(y, q) + w sum mean (A_student - A_teacher)^2` over pairs of layers.

    `A` is where a layer looks: the mean over its channels of the squared features, of norm 1. The
    weight is that of the field's benchmarks on CIFAR-100.
    """

    weight: float = option(1000.0, "Weight of the attention maps' distance.", AT_LEAST_0)
    layers: Pairs | None = option(
        None,
        "Layers that are compared, STUDENT:TEACHER (default: the stages that both have).",
        LAYER_PAIRS,
    )

    def projector(self, student: Tensor, teacher: Tensor, name: str) -> Tensor:
        self.check_same_places(student, teacher)
        return student

    def distance(self, teacher: Tensor, student: Tensor) -> Tensor:
        return losses.attention_transfer(teacher, student)
