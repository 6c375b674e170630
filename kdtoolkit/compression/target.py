"""What a smaller network is to cost, as a share of the whole one: no Keras here."""

from collections.abc import Callable
from dataclasses import dataclass

from kdtoolkit._checks import INSIDE_0_1, ArgumentError, OneOf, check
from kdtoolkit._types import Network

COSTS = ("macs", "parameters")


@dataclass(frozen=True)
class Target:
    """A cost to come down to.

    Attributes:
        cost: `"macs"`, multiply-accumulates for an image, or `"parameters"`, which are trained.
        share: of the whole network's, in (0, 1).

    Raises:
        ArgumentError: an attribute is not what is accepted.
    """

    cost: str
    share: float

    def __post_init__(self):
        check("target", self.cost, OneOf(COSTS))
        check("target", self.share, INSIDE_0_1)

    def __str__(self):
        return f"{self.cost}={self.share:g}"

    @classmethod
    def parse(cls, target: "str | Target") -> "Target":
        """Returns the target that `COST=SHARE` stands for, or the object itself.

        Raises:
            ArgumentError: it is not of that form.
        """
        if isinstance(target, Target):
            return target
        cost, _, share = str(target).partition("=")
        try:
            return cls(cost, float(share))
        except ValueError as error:
            names = " or ".join(f"{name}=SHARE" for name in COSTS)
            accepted = f"{names}, with a share in (0, 1)"
            raise ArgumentError("target", accepted, target) from error


def cost_of(target: Target) -> Callable[[Network], int]:
    """Returns the function that measures a network by what the target is about."""
    from kdtoolkit.models import cost

    return {"macs": cost.macs, "parameters": cost.trainable_parameters}[target.cost]
