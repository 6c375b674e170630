"""Relational knowledge distillation (Park, Kim, Lu, Cho, CVPR 2019)."""

from dataclasses import dataclass

from kdtoolkit import losses
from kdtoolkit._checks import AT_LEAST_0
from kdtoolkit._types import Tensor
from kdtoolkit.methods.base import Batch, Method, option


@dataclass(frozen=True)
class RKD(Method):
    """`CE(y, q) + w_d smooth_l1(distances) + w_a smooth_l1(angles)` among pooled features.

    Distances are relative to their network's mean; angles are cosines of all triplets of the global
    batch, for whose number of samples `n` memory of the size `n^2 (channels + n)` is taken. The
    weights are those of the field's benchmarks.
    """

    needs_embedding = True
    relates_samples = True

    distance: float = option(25.0, "Weight of the distances.", AT_LEAST_0)
    angle: float = option(50.0, "Weight of the angles.", AT_LEAST_0)

    def term(self, batch: Batch) -> Tensor:
        everyone = batch.gather(batch.teacher.embedding), batch.gather(batch.student.embedding)
        return batch.of_each(
            self.distance * losses.distance_relation(*everyone)
            + self.angle * losses.angle_relation(*everyone)
        )
