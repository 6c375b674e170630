"""Distillation from a stronger teacher (Huang, You, Wang, Qian, Xu, NeurIPS 2022)."""

from dataclasses import dataclass

from kdtoolkit import losses
from kdtoolkit._checks import AT_LEAST_0, POSITIVE
from kdtoolkit._types import Tensor
from kdtoolkit.methods.base import Batch, LogitsMethod, option


@dataclass(frozen=True)
class DIST(LogitsMethod):
    """`CE(y, q) + T^2 [beta (1 - mean_rows rho) + gamma (1 - mean_columns rho)]`, of `rho(q, p)`.

    `rho` is Pearson's correlation: of the classes of each sample, and of the samples of the global
    batch in each class. The order and the spacing of probabilities are taught, not their size.
    """

    relates_samples = True

    beta: float = option(2.0, "Weight of the relations of classes in a sample.", AT_LEAST_0)
    gamma: float = option(2.0, "Weight of the relations of samples in a class.", AT_LEAST_0)
    temperature: float = option(4.0, "Temperature of both networks' logits.", POSITIVE)

    def term(self, batch: Batch) -> Tensor:
        from keras import ops

        teacher, student, temperature = self.corrected(batch)
        p, q = (
            ops.exp(losses.log_probabilities(logits, temperature)) for logits in (teacher, student)
        )
        samples = losses.correlation_distance(p, q)
        classes = losses.correlation_distance(*(ops.transpose(batch.gather(f)) for f in (p, q)))
        distance = self.beta * samples + self.gamma * ops.mean(classes)
        return ops.square(ops.cast(temperature, "float32")) * distance
