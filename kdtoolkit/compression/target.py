"""What a smaller network is to cost: no Keras here."""

from collections.abc import Callable
from dataclasses import dataclass

from kdtoolkit._checks import INSIDE_0_1, POSITIVE, ArgumentError, OneOf, Words, check
from kdtoolkit._types import Network

COUNTED = ("macs", "parameters")
"""Costs that follow from the shapes of what is left."""

COSTS = (*COUNTED, "bytes", "ms")
FORMS = "macs=0.5, parameters=50k, bytes=200k, ms=0.5 or ms=3.5ms"
_ACCEPTED = (
    f"a share in (0, 1), or an amount, of {', '.join(COSTS[:-1])} or {COSTS[-1]}, such as {FORMS}"
)
_MULTIPLES = {"k": 1e3, "M": 1e6, "G": 1e9}


@dataclass(frozen=True)
class Target:
    """A cost to come down to: a share of the whole network's, or an amount.

    Attributes:
        cost: `"macs"`, multiply-accumulates for an image; `"parameters"`, which are trained;
            `"bytes"`, the size of the `.tflite` file; `"ms"`, the milliseconds that the file takes
            for an image in LiteRT on this machine, on one thread.
        share: of the whole network's, in (0, 1), or None.
        amount: of the cost's own unit, or None: where there is no share.

    Raises:
        ArgumentError: an attribute is not what is accepted.
    """

    cost: str
    share: float | None = None
    amount: float | None = None

    def __post_init__(self):
        check("target", self.cost, OneOf(COSTS))
        if (self.share is None) == (self.amount is None):
            received = Words(f"share={self.share}, amount={self.amount}")
            raise ArgumentError("target", "a share or an amount", received)
        if self.share is not None:
            check("target", self.share, INSIDE_0_1)
        else:
            check("target", self.amount, POSITIVE)

    def __str__(self):
        if self.share is not None:
            return f"{self.cost}={self.share:g}"
        return f"{self.cost}={self.amount:.15g}{'ms' if self.cost == 'ms' else ''}"

    @classmethod
    def parse(cls, target: "str | Target") -> "Target":
        """Returns the target that a text stands for, or the object itself.

        `COST=SHARE` has a number below 1. `COST=COUNT` has one of at least 1, with `k`, `M` or `G`
        for a thousand (1,000), a million or a billion of them; of milliseconds, which may be fewer
        than one, the unit is written: `ms=0.5` is half of the whole network's, `ms=0.5ms` is not.

        Raises:
            ArgumentError: it is not of that form.
        """
        if isinstance(target, Target):
            return target
        cost, _, number = str(target).partition("=")
        try:
            if cost == "ms":
                amount = number.endswith("ms")
                value = float(number.removesuffix("ms"))
            else:
                multiple = _MULTIPLES.get(number[-1:])
                value = float(number[:-1] if multiple else number) * (multiple or 1)
                amount = multiple is not None or value >= 1
            return cls(cost, amount=value) if amount else cls(cost, value)
        except ValueError as error:
            raise ArgumentError("target", _ACCEPTED, target) from error

    def most(self, whole: float) -> float:
        """Returns the cost to come down to, of a network whose cost is `whole`."""
        if self.share is not None:
            return whole * self.share
        assert self.amount is not None  # one of them is given
        return self.amount

    @property
    def unit(self) -> str:
        return "MACs" if self.cost == "macs" else self.cost

    def shown(self, value: float) -> str:
        """Returns a cost as text, without its unit."""
        return f"{value:.3g}" if self.cost == "ms" else f"{value:,.0f}"


def partly(whole: float, most: float, share: float) -> float:
    """Returns the cost after a share of the way, in (0, 1], from the whole network's to the target.

    Equal shares take away the same part of what is left.
    """
    return most if share == 1 else whole * (most / whole) ** share


def cost_of(target: Target) -> Callable[[Network], float]:
    """Returns the function that measures a network by what the target is about.

    Bytes and milliseconds are those of the file of float32 that takes pixels from 0 to 255.
    """
    if target.cost in ("bytes", "ms"):
        from kdtoolkit.export.file_cost import FileCost

        return FileCost().of(target.cost)
    from kdtoolkit.models import cost

    return {"macs": cost.macs, "parameters": cost.trainable_parameters}[target.cost]
