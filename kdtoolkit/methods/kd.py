"""Knowledge distillation (Hinton, Vinyals, Dean 2015)."""

from dataclasses import dataclass

from kdtoolkit import losses
from kdtoolkit._checks import AT_LEAST_0, FRACTION, POSITIVE, OrNone
from kdtoolkit._types import Tensor
from kdtoolkit.methods.base import Batch, LogitsMethod, option


@dataclass(frozen=True)
class KD(LogitsMethod):
    """`(1 - w) CE(y, q) + w T^2 KL(p || q)`: the teacher's softened logits beside the labels.

    With `labels` their weight is that, and the teacher's may be any: `labels CE + w T^2 KL`.

    At `temperature=1` this is Eqn 4 of Yang et al. 2019, whose lambda is the weight: BAN
    (Furlanello et al. 2018) at `weight=1`, BAN+L below. The defaults are those of the field's
    benchmarks on CIFAR-100.
    """

    weight: float = option(
        0.9,
        "Weight of the teacher's logits against the labels (lambda); at most 1 unless the labels "
        "have a weight of their own.",
        AT_LEAST_0,
    )
    temperature: float = option(4.0, "Temperature of both networks' logits.", POSITIVE)
    labels: float | None = option(
        None, "Weight of the labels (default: what the teacher's leaves to 1).", OrNone(AT_LEAST_0)
    )

    def __post_init__(self):
        if self.labels is None and self.weight not in FRACTION:
            self.refuse("weight", str(FRACTION), self.weight)
        super().__post_init__()

    def label_weight(self, batch: Batch) -> float:
        return 1 - self.weight if self.labels is None else self.labels

    def term(self, batch: Batch) -> Tensor:
        return self.weight * losses.distillation_divergence(*self.corrected(batch))
