"""A temperature for each sample (Wen et al. 2021)."""

import abc
from dataclasses import dataclass

from kdtoolkit import losses
from kdtoolkit._checks import AT_LEAST_0, OneOf
from kdtoolkit._types import Tensor
from kdtoolkit.losses.strengths import NORMALIZATIONS
from kdtoolkit.methods.base import Batch, Correction, option


@dataclass(frozen=True)
class _DynamicTemperature(Correction, abc.ABC):
    """`T + slope (mean(w) - w)`, 1 at least: a confusing sample weighs more and is taught sharper.

    The method's temperature `T` is that of the average sample of the global batch.
    """

    kind = "temperature"

    slope: float = option(
        1.0, "Change of a sample's temperature per unit of its weight.", AT_LEAST_0
    )

    @abc.abstractmethod
    def weights(self, batch: Batch) -> Tensor:
        """How much each sample weighs, `(batch,)`."""

    def temperature(self, batch: Batch, temperature: Tensor | float) -> Tensor:
        weights = self.weights(batch)
        return losses.dynamic_temperature(
            weights, temperature, self.slope, mean=batch.mean(weights)
        )


@dataclass(frozen=True)
class Focal(_DynamicTemperature):
    """A temperature by how far the student is from the teacher as it came, not corrected (FLSW).

    `w = (1 - v . t)^gamma` with both networks' logits normalised. The paper's numbers are not known
    to us.
    """

    gamma: float = option(1.0, "Exponent of the weight.", AT_LEAST_0)
    normalization: str = option("l2", "Of the logits in the weight.", OneOf(NORMALIZATIONS))

    def weights(self, batch: Batch) -> Tensor:
        return losses.focal_weights(
            batch.teacher.logits, batch.student.logits, self.gamma, self.normalization
        )


@dataclass(frozen=True)
class StudentMax(_DynamicTemperature):
    """A temperature by how unsure the student is, `w = 1 / max q` (CWSM)."""

    def weights(self, batch: Batch) -> Tensor:
        return losses.student_max_weights(batch.student.logits)
