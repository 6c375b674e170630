"""Ways to train a student that can be compared: by methods of a teacher, or without one."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kdtoolkit._checks import ArgumentError, OneOf
from kdtoolkit.methods.base import Method
from kdtoolkit.methods.registry import Methods, as_methods, described, parse, plainly

# Trainers that have no methods, and the one whose teacher is its own deepest exit.
ALONE = ("plain", "mutual", "deep_supervision")
OWN_TEACHER = "self_distillation"
NAMES = (*ALONE, OWN_TEACHER)
_ITS_METHODS = "kd+embedding"
_ITS_OPTIONS = {"kd": {"weight": 0.3, "temperature": 3.0}}
_TRAINERS = OneOf(("student", *NAMES))


@dataclass(frozen=True)
class Way:
    """A way to train a student.

    Attributes:
        name: in tables, and of its directory.
        methods: of a `Student` or a `SelfDistillation`; names are parsed.
        trainer: `"student"`, taught by `methods`, or `"plain"` on labels, `"mutual"` with a peer,
            `"deep_supervision"` of exits, `"self_distillation"` by its own deepest exit.
    """

    name: str
    methods: Methods = ()
    trainer: str = "student"

    def __post_init__(self):
        object.__setattr__(self, "methods", as_methods(self.methods))
        if self.trainer not in _TRAINERS:
            raise ArgumentError("trainer", str(_TRAINERS), self.trainer)
        for method in self.methods:
            if self.trainer == OWN_TEACHER and method.compares_layers():
                accepted = (
                    f"without {method.name}, which compares layers, for {OWN_TEACHER}: the teacher "
                    "is the student's own deepest exit"
                )
                raise ArgumentError("methods", accepted, self.name)

    @property
    def needs_teacher(self) -> bool:
        return self.trainer == "student"

    @property
    def has_exits(self) -> bool:
        return self.trainer in ("deep_supervision", OWN_TEACHER)


def check_for_exits(argument: str, methods: Iterable[Method]) -> None:
    """Raises an `ArgumentError` about a method that an exit cannot teach another one by."""
    for method in methods:
        if method.compares_layers():
            accepted = "those that compare logits or embeddings, not layers"
            raise ArgumentError(argument, accepted, method.name)


def parse_way(name: str, make: Callable[..., Method] = plainly) -> Way:
    """Returns the way that a name stands for.

    `plain`, `mutual` and `deep_supervision` stand alone; `self_distillation` may be followed by
    corrections, `self_distillation+focal`; all others are names of methods, `kd+attention`.

    Args:
        name: the name, which is that of the way too.
        make: of `parse`.

    Raises:
        ArgumentError: there is no such way, or two of its parts exclude each other.
    """
    if name in ALONE:
        return Way(name, trainer=name)
    first, *others = parts = name.split("+")
    for part in ALONE:
        if part in parts:
            raise ArgumentError("methods", f"{part} alone, not joined with others", name)
    if OWN_TEACHER in others:
        raise ArgumentError("methods", f"such that {OWN_TEACHER} comes first", name)
    if first != OWN_TEACHER:
        return Way(name, parse(name, make))

    def its_own(cls, **given):
        return make(cls, **{**_ITS_OPTIONS.get(cls.name, {}), **given})

    return Way(name, parse("+".join([_ITS_METHODS, *others]), its_own), OWN_TEACHER)


def as_ways(ways: Iterable[str | Way]) -> tuple[Way, ...]:
    """Ways, or their names for `parse_way`, each of them once.

    Raises:
        ArgumentError: there are none, two of one name, or a name that cannot be a directory's.
    """
    chosen = tuple(way if isinstance(way, Way) else parse_way(way) for way in ways)
    names = [way.name for way in chosen]
    if not names or len(set(names)) < len(names):
        raise ArgumentError("ways", "of different names, at least one", names)
    for name in names:
        if not name or "/" in name or name in ("..", ".", "logs", "teacher", "teacher_cache"):
            raise ArgumentError("ways", "of names that can be those of directories", name)
    return chosen


def described_way(way: Way) -> dict[str, object]:
    """A way as values that JSON can hold."""
    return {"name": way.name, "trainer": way.trainer, "methods": described(as_methods(way.methods))}
