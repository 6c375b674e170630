"""Ways to teach a student, by the names that `--methods` accepts.

A name is one of `ALONE`, or names joined with `+`: what teaches by logits, corrections of that, and
a feature method. `kd+attention` is distillation with attention transfer; `probability_shift+focal`
is logits adjustment with dynamic temperature; `self_distillation+focal` lets exits learn so.
"""

import difflib
import os
from dataclasses import dataclass

from kdtoolkit.recipes._command import UsageError
from kdtoolkit.training.supervision import ADJUSTMENTS, DYNAMIC_TEMPERATURES

ALONE = ("plain", "mutual", "deep_supervision")
FEATURES = {"fitnet": "hint", "attention": "attention"}
# Kind of a feature method -> its flags.
LAYERS = {"hint": "hint_layers", "attention": "attention_layers"}
WEIGHTS = {"hint": "hint_weight", "attention": "attention_weight"}
PARTS = ("kd", *ADJUSTMENTS, *DYNAMIC_TEMPERATURES, *FEATURES, "self_distillation")


@dataclass(frozen=True)
class Method:
    """A way to teach.

    Attributes:
        name: as it was asked for.
        trainer: `"plain"`, `"mutual"`, `"deep_supervision"`, `"self_distillation"` or `"student"`.
        by_logits: whether a `Student` learns from the teacher's logits.
        adjustment, dynamic_temperature: of `Supervision`.
        features: kind of a `FeatureMatching`, or None.
    """

    name: str
    trainer: str
    by_logits: bool = False
    adjustment: str | None = None
    dynamic_temperature: str | None = None
    features: str | None = None

    @property
    def needs_teacher(self):
        return self.trainer == "student"

    @property
    def has_exits(self):
        return self.trainer in ("deep_supervision", "self_distillation")

    @property
    def usual_temperature(self):
        """That of the field's benchmarks; a temperature does not apply to smoothed labels."""
        if self.adjustment == "label_smooth":
            return 1.0
        return 3.0 if self.trainer == "self_distillation" else 4.0


def parse(name: str) -> Method:
    """Returns the method of that name.

    Raises:
        UsageError: there is none, or two of its parts exclude each other.
    """
    if name in ALONE:
        return Method(name, name)
    parts = name.split("+")
    for part in parts:
        if part not in PARTS:
            _refuse(name, part, parts)
    chosen = {
        "adjustment": [part for part in parts if part in ADJUSTMENTS],
        "dynamic_temperature": [part for part in parts if part in DYNAMIC_TEMPERATURES],
        "features": [FEATURES[part] for part in parts if part in FEATURES],
    }
    exits = "self_distillation" in parts
    if len(set(parts)) < len(parts) or any(len(some) > 1 for some in chosen.values()):
        raise UsageError(
            "--methods must join one name of a kind: one of "
            f"{' or '.join(ADJUSTMENTS)}, one of {' or '.join(DYNAMIC_TEMPERATURES)}, one of "
            f"{' or '.join(FEATURES)}. Received: {name}"
        )
    if exits and ("kd" in parts or chosen["features"]):
        raise UsageError(
            "--methods cannot join self_distillation, whose teacher is its own deepest exit, with "
            f"a teacher's kd or features. Received: {name}"
        )
    by_logits = not exits and any(part not in FEATURES for part in parts)
    one = {key: some[0] if some else None for key, some in chosen.items()}
    return Method(name, "self_distillation" if exits else "student", by_logits, **one)


def teacher_is_file(flags):
    """Whether the teacher is a file or a directory, not the name of a network."""
    path = flags.teacher
    return path.endswith(".keras") or os.sep in path or os.path.isdir(path)


def temperature(flags, method):
    """Returns the temperature of a method."""
    return method.usual_temperature if flags.temperature is None else flags.temperature


def layer_pairs(flags, kind):
    """Returns `(student layer, teacher layer)` pairs of a feature method, None for the usual."""
    flag = LAYERS[kind]
    if flags[flag].value is None:
        return None
    pairs = [tuple(pair.split(":")) for pair in flags[flag].value]
    written = bool(pairs) and all(len(pair) == 2 and all(pair) for pair in pairs)
    flags.require(flag, written, "STUDENT:TEACHER, separated by commas")
    return pairs


def _refuse(name, part, parts):
    if part in ALONE:
        raise UsageError(
            f"--methods cannot join {part} with another method. Received: {'+'.join(parts)}"
        )
    near = difflib.get_close_matches(part, (*ALONE, *PARTS), n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise UsageError(
        f"--methods must be among {', '.join(ALONE)}, or {', '.join(PARTS)} joined with +. "
        f"Received: {name}.{hint}"
    )
