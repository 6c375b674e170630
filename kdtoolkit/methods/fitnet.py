"""FitNets: hints from a teacher's layer (Romero et al. 2015)."""

from dataclasses import dataclass

from kdtoolkit import losses
from kdtoolkit._checks import AT_LEAST_0
from kdtoolkit._types import Network, Tensor
from kdtoolkit.methods.base import LAYER_PAIRS, LayersMethod, Pairs, option


@dataclass(frozen=True)
class FitNet(LayersMethod):
    """`CE(y, q) + w sum mean (r(F_student) - F_teacher)^2` over pairs of layers.

    Where the layers differ in channels, the student's features go through a projector `r`: 1x1
    convolution, batch normalisation and ReLU. The defaults are those of the field's benchmarks on
    CIFAR-100.
    """

    name = "fitnet"

    weight: float = option(100.0, "Weight of the hints.", AT_LEAST_0)
    layers: Pairs | None = option(
        None,
        "Layers that are compared, STUDENT:TEACHER (default: the second stages that both have).",
        LAYER_PAIRS,
    )

    def default_pairs(self, network: Network, teacher: Network) -> Pairs:
        return super().default_pairs(network, teacher)[:2][-1:]

    def projector(self, student: Tensor, teacher: Tensor, name: str) -> Tensor:
        if student.shape[1:] == teacher.shape[1:]:
            return student
        self.check_same_places(student, teacher)

        from kdtoolkit.models.layers import conv, norm_relu

        return norm_relu(conv(student, teacher.shape[-1], 1, name=f"{name}_conv"), name=name)

    def distance(self, teacher: Tensor, student: Tensor) -> Tensor:
        return losses.hint(teacher, student)
