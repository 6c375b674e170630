"""What arguments must be: the one place for checks, and for the words of their messages.

Nothing here imports TensorFlow or Keras: command lines are checked with it.
"""

import contextlib
import copyreg
import difflib
import importlib
import math
import numbers
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any


class Words(str):
    """Words that say what was received, where the value itself would not tell what is wrong."""


class ArgumentError(ValueError):
    """An argument is not what is accepted.

    Args:
        argument: its name.
        accepted: what it must be, after "must be" or another verb.
        received: its value, or `Words`.
        hint: a further sentence, or nothing.
        owner: name of the method whose option it is, or None.
        must: the verb, such as "hold".

    Attributes:
        argument, accepted, received, hint, owner, must: as they were given.
    """

    def __init__(
        self,
        argument: str,
        accepted: object,
        received: object,
        hint: str = "",
        owner: str | None = None,
        must: str = "be",
    ) -> None:
        self.argument, self.accepted, self.received = argument, accepted, received
        self.hint, self.owner, self.must = hint, owner, must
        of = f" of {owner}" if owner else ""
        end = f". {hint}" if hint else ""
        found = received if isinstance(received, Words) else f"{argument}={received!r}"
        super().__init__(
            f"Argument `{argument}`{of} must {must} {accepted}. Received: {found}{end}"
        )

    def __reduce__(self):  # that of exceptions would call `__init__` with the message
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__


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

    So it does with an `ArgumentError`, which is about an argument of something that was called.
    """
    try:
        yield
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
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
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
BELOW_1 = Interval(0, 1, open_high=True)
ABOVE_0_TO_1 = Interval(0, 1, open_low=True)
INSIDE_0_1 = Interval(0, 1, open_low=True, open_high=True)


@dataclass(frozen=True)
class Integers:
    """Integers from `low` to `high`, with both, and without an upper end where that is infinite."""

    low: int
    high: float = math.inf

    def __contains__(self, value):
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        return whole and self.low <= value <= self.high

    def __str__(self):
        if math.isinf(self.high):
            return "a positive integer" if self.low == 1 else f"an integer of at least {self.low}"
        return f"an integer from {self.low} to {self.high}"


@dataclass(frozen=True)
class OneOf:
    """One of some names."""

    names: tuple[str, ...]

    def __contains__(self, value):
        return value in self.names

    def __str__(self):
        return f"one of {', '.join(self.names)}"


@dataclass(frozen=True)
class OrNone:
    """What is accepted, or None."""

    accepted: Interval | OneOf

    def __contains__(self, value):
        return value is None or value in self.accepted

    def __str__(self):
        return str(self.accepted)


def check(
    argument: str,
    value: object,
    accepted: Interval | Integers | OneOf,
    owner: str | None = None,
) -> None:
    """Raises an `ArgumentError` unless the value is accepted; of names, near matches are named."""
    if value not in accepted:
        hint = near(value, accepted.names) if isinstance(accepted, OneOf) else ""
        raise ArgumentError(argument, accepted, value, hint, owner)


def near(name: object, names: Iterable[str], before: str = "") -> str:
    """A sentence that tells which of `names` are nearly `name`, in any case; empty without any.

    Args:
        name: what was received.
        names: all that there are.
        before: goes before the sentence where there is one, such as the space to the one before.
    """
    by_lower = {known.lower(): known for known in names}
    found = difflib.get_close_matches(str(name).lower(), by_lower)
    return f"{before}Near matches: {', '.join(by_lower[each] for each in found)}." if found else ""


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
    except (ImportError, AttributeError, TypeError, ValueError, SyntaxError) as error:
        accepted = f"package.module:{what} that can be imported"
        raise ArgumentError(argument, accepted, name, str(error)) from error


def check_seeds(seeds: Sequence[int]) -> None:
    """Raises an `ArgumentError` unless these are seeds, at least one, each of them once."""
    in_range = all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in seeds)
    if not in_range or not seeds or len(set(seeds)) < len(seeds):
        raise ArgumentError("seeds", "different integers from 0 to 2147483647", list(seeds))


def positive_integer(argument: str, value: int | None, default: int) -> int:
    """Returns the value of an argument, or its default where it is None.

    Raises:
        ArgumentError: it is no integer of at least 1.
    """
    value = default if value is None else value
    check(argument, value, Integers(1))
    return value
