"""The ways to train a student that `distill` compares: methods of a teacher, or none."""

from dataclasses import dataclass

from kdtoolkit.methods import Method
from kdtoolkit.recipes._command import UsageError
from kdtoolkit.recipes._methods import MethodFlags

# Trainers that have no methods, and the one whose teacher is its own deepest exit.
ALONE = ("plain", "mutual", "deep_supervision")
_OWN_TEACHER = "self_distillation"
_ITS_METHODS = "kd+embedding"
_ITS_USUAL = {"kd_weight": 0.3, "kd_temperature": 3.0}

FLAGS = MethodFlags(alone=(*ALONE, _OWN_TEACHER))


@dataclass(frozen=True)
class Way:
    """A way to train a student.

    Attributes:
        name: as it was asked for.
        trainer: `"student"`, or one of those above.
        methods: of a `Student` or a `SelfDistillation`.
    """

    name: str
    trainer: str
    methods: tuple[Method, ...] = ()

    @property
    def needs_teacher(self) -> bool:
        return self.trainer == "student"

    @property
    def has_exits(self) -> bool:
        return self.trainer in ("deep_supervision", _OWN_TEACHER)


def parse(flags, name: str) -> Way:
    """Returns the way of a name.

    Raises:
        UsageError: there is none, or two of its parts exclude each other.
    """
    if name in ALONE:
        return Way(name, name)
    first, *others = parts = name.split("+")
    for part in (*ALONE, _OWN_TEACHER):
        if part in (others if part == _OWN_TEACHER else parts):
            place = "come first" if part == _OWN_TEACHER else "stand alone"
            raise UsageError(f"--methods: {part} must {place}. Received: --methods={name}")
    if first != _OWN_TEACHER:
        return Way(name, "student", FLAGS.parse(flags, name))
    chosen = FLAGS.parse(flags, "+".join([_ITS_METHODS, *others]), _ITS_USUAL)
    for method in chosen:
        if method.compares_layers():
            raise UsageError(
                f"--methods cannot join {method.name}, which compares layers, with {_OWN_TEACHER}, "
                f"whose teacher is its own deepest exit. Received: --methods={name}"
            )
    return Way(name, _OWN_TEACHER, chosen)


def check(flags, ways, classes):
    """Checks ways together: see `MethodFlags.check`."""
    FLAGS.check(flags, (method for way in ways for method in way.methods), classes)
