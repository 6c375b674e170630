"""What arguments must be: the one place for checks, and for the words of their messages.

Nothing here imports TensorFlow or Keras: command lines are checked with it.
"""

import contextlib
import difflib
import importlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any


class ArgumentError(ValueError):
    """An argument is not what is accepted.

    Args:
        argument: its name.
        accepted: what it must be, after "must be".
        received: its value.
        hint: a further sentence, or nothing.
        owner: name of the method whose option it is, or None.

    Attributes:
        argument, accepted, received, hint, owner: as they were given.
    """

    def __init__(
        self,
        argument: str,
        accepted: object,
        received: object,
        hint: str = "",
        owner: str | None = None,
    ) -> None:
        self.argument, self.accepted, self.received = argument, accepted, received
        self.hint, self.owner = hint, owner
        of = f" of {owner}" if owner else ""
        end = f". {hint}" if hint else ""
        super().__init__(
            f"Argument `{argument}`{of} must be {accepted}. Received: {argument}={received!r}{end}"
        )


class UnsuitableError(ArgumentError):
    """An argument led to an error, whose own words say what is wrong with it.

    Args:
        argument, received: its name and its value.
        reason: the words.
    """

    def __init__(self, argument, received, reason):
        super().__init__(argument, "one that suits the others", received, reason)
        self.args = (reason,)


@contextlib.contextmanager
def suiting(argument: str, received: object) -> Iterator[None]:
    """Turns the `ValueError` that an argument leads to into an `UnsuitableError` about it.

    An `ArgumentError` passes as it is.
    """
    try:
        yield
    except ArgumentError:
        raise
    except ValueError as error:
        raise UnsuitableError(argument, received, str(error)) from error


@dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`, without an end that is open, and never infinite.

    `str()` is how a message says it, after "must be".
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below and math.isfinite(value)

    def __str__(self):
        if math.isinf(self.high):
            if math.isinf(self.low):
                return "a number"
            if self.open_low:
                return "positive" if self.low == 0 else f"above {self.low:g}"
            return f"at least {self.low:g}"
        left, right = "(" if self.open_low else "[", ")" if self.open_high else "]"
        return f"in {left}{self.low:g}, {self.high:g}{right}"


POSITIVE = Interval(0, open_low=True)
AT_LEAST_0 = Interval(0)
FRACTION = Interval(0, 1)
INSIDE_0_1 = Interval(0, 1, open_low=True, open_high=True)


@dataclass(frozen=True)
class OneOf:
    """One of some names."""

    names: tuple[str, ...]

    def __contains__(self, value):
        return value in self.names

    def __str__(self):
        return f"one of {', '.join(self.names)}"


def check(argument: str, value: object, accepted: "Interval | OneOf", owner: str | None = None):
    """Raises an `ArgumentError` unless the value is accepted; of names, near matches are named."""
    if value not in accepted:
        hint = near(value, accepted.names) if isinstance(accepted, OneOf) else ""
        raise ArgumentError(argument, accepted, value, hint, owner)


def near(name: object, names: Iterable[str], before: str = "") -> str:
    """A sentence that tells which of `names` are spelled nearly like `name`; empty without any.

    Args:
        name: what was received.
        names: all that there are.
        before: goes before the sentence where there is one, such as the space to the one before.
    """
    found = difflib.get_close_matches(str(name), names)
    return f"{before}Near matches: {', '.join(found)}." if found else ""


def imported(argument: str, name: str, what: str) -> Any:
    """What `package.module:attribute` names, which is imported: code of whoever gave the name.

    Args:
        argument: of which it is the value.
        name: as above.
        what: it is to be, for the message.

    Raises:
        ArgumentError: it cannot be imported.
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        accepted = f"package.module:{what} that can be imported"
        raise ArgumentError(argument, accepted, name, str(error)) from error


def check_seeds(seeds: Sequence[int]) -> None:
    """Raises an `ArgumentError` unless these are seeds, at least one, each of them once."""
    in_range = all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in seeds)
    if not in_range or not seeds or len(set(seeds)) < len(seeds):
        raise ArgumentError("seeds", "different integers from 0 to 2147483647", list(seeds))
