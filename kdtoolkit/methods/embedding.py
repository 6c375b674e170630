"""The teacher's pooled features (Zhang et al., ICCV 2019)."""

from dataclasses import dataclass

from kdtoolkit import losses
from kdtoolkit._checks import AT_LEAST_0, ArgumentError, Words
from kdtoolkit._types import Tensor
from kdtoolkit.methods.base import Batch, Method, option


@dataclass(frozen=True)
class Embedding(Method):
    """`CE(y, q) + w ||F_student - F_teacher||^2` of the pooled features before the classifier.

    The term with which the deepest exit teaches the others' features in Be Your Own Teacher. The
    paper prints no weight; the default is that of public code. Both must have as many channels.
    """

    needs_embedding = True

    weight: float = option(0.03, "Weight of the pooled features' distance.", AT_LEAST_0)

    def check_embeddings(self, student: int, teacher: int) -> None:
        if student != teacher:
            accepted = f"without {self.name} where pooled features differ in channels"
            received = Words(f"{student} of the student, {teacher} of the teacher")
            raise ArgumentError("methods", accepted, received)

    def term(self, batch: Batch) -> Tensor:
        distance = losses.feature_distance(batch.teacher.embedding, batch.student.embedding)
        return self.weight * distance
