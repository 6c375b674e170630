"""Names of methods and corrections, and what a list of names means."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from kdtoolkit._checks import ArgumentError, imported, near
from kdtoolkit._types import Hyperparameters
from kdtoolkit.methods.base import Correction, LogitsMethod, Method
from kdtoolkit.methods.kd import KD

_REGISTRY: dict[str, type[Any]] = {}

Registered = TypeVar("Registered", bound=Method | Correction)

Methods = str | Method | Sequence[Method]
"""What trainers take: one method, several that combine, or their names for `parse`."""


def register(cls: type[Registered]) -> type[Registered]:
    """Adds a method, or a correction, under its `name`; use it as a decorator.

    Everything that lists methods then has it: `parse`, command lines with its options as flags,
    and the project's own tests.

    Raises:
        ArgumentError: it is neither, no dataclass, or another one has its name.
    """
    if not (isinstance(cls, type) and issubclass(cls, Method | Correction)):
        raise ArgumentError("cls", "a subclass of Method or of Correction", cls)
    if not dataclasses.is_dataclass(cls):
        raise ArgumentError("cls", "a dataclass", cls)
    other = _REGISTRY.setdefault(cls.name, cls)
    if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
        hint = f"{other.__module__}.{other.__qualname__} has the name {cls.name}"
        raise ArgumentError("cls", "of a name that no other method has", cls, hint)
    _REGISTRY[cls.name] = cls
    return cls


def names() -> tuple[str, ...]:
    """The names of all methods and corrections, methods first."""
    return tuple(sorted(_REGISTRY, key=lambda name: not issubclass(_REGISTRY[name], Method)))


def get(name: str) -> type[Method] | type[Correction]:
    """The class of a name, or of `package.module:Class`, which is imported and registered.

    Raises:
        ArgumentError: there is none; near names are told.
    """
    if ":" in name:
        return _load(name)
    if name not in _REGISTRY:
        accepted = f"names of {', '.join(names())}, or package.module:Class"
        raise ArgumentError("methods", accepted, name, near(name, names()))
    return _REGISTRY[name]


def plainly(cls, **given):
    """A method or correction with these options, and its defaults."""
    return cls(**given)


def parse(text: str, make: Callable = plainly) -> tuple[Method, ...]:
    """Returns the methods that names, joined with `+`, stand for.

    `kd+attention` is two methods. A correction is of every method on logits beside it, in the order
    of the names, or of `KD` if there is none: `probability_shift+focal`.

    Args:
        text: names of methods and corrections; `package.module:Class` for one from elsewhere.
        make: makes a method or correction of its class and of options: `make(cls, **options)`. By
            default the class itself, with its defaults.

    Raises:
        ArgumentError: there is no such name, one is there twice, or two exclude each other.
    """
    parts = text.split("+")
    if len(set(parts)) < len(parts):
        raise ArgumentError("methods", "different names", text)
    classes = [get(part) for part in parts]
    corrections = tuple(make(cls) for cls in classes if issubclass(cls, Correction))
    chosen = [cls for cls in classes if issubclass(cls, Method)]
    corrected = [cls for cls in chosen if issubclass(cls, LogitsMethod)]
    if corrections and not corrected:
        chosen = [KD, *chosen]
    implied: dict[str, object] = {}
    for correction in corrections:
        implied |= correction.implied
    return tuple(_made(cls, make, corrections, implied) for cls in chosen)


def _made(cls, make, corrections, implied):
    if not issubclass(cls, LogitsMethod) or not corrections:
        return make(cls)
    fields = {field.name for field in dataclasses.fields(cls)}
    given = {name: value for name, value in implied.items() if name in fields}
    return make(cls, **given, corrections=corrections)


def as_methods(methods: Methods) -> tuple[Method, ...]:
    """The methods that a trainer was given, each of them once.

    Raises:
        ArgumentError: something else was given, or two of one name.
    """
    if isinstance(methods, str):
        methods = parse(methods)
    chosen = (methods,) if isinstance(methods, Method) else methods
    if not isinstance(chosen, Iterable) or not all(isinstance(m, Method) for m in chosen):
        accepted = "a method, several, or their names joined with +"
        raise ArgumentError("methods", accepted, methods)
    methods = tuple(chosen)
    if len({method.name for method in methods}) < len(methods):
        raise ArgumentError("methods", "of different names", [m.name for m in methods])
    return methods


def described(methods: Sequence[Method]) -> list[Mapping[str, object]]:
    """Methods as values that JSON can hold: their names, options and corrections."""
    return [_described(method) for method in methods]


def hyperparameters(methods: Sequence[Method]) -> Hyperparameters:
    """Methods as one row of a table: their names, joined with +, under `methods`, and options.

    Options are called as their flags, `kd_weight`; those of a correction have its method's name
    before them, `kd_focal_slope`. An option of None is left out.
    """
    named = [name for method in methods for name in _names(method)]
    found: Hyperparameters = {"methods": "+".join(named)}
    for values in described(methods):
        found.update(_options(values))
    return found


def _names(method):
    return [method.name, *(correction.name for correction in getattr(method, "corrections", ()))]


def _options(values):
    """`(name, value)` of every option of what `_described` returns."""
    prefix = values["name"]
    for name, value in values.items():
        if name == "corrections":
            for correction in value:
                yield from ((f"{prefix}_{own}", one) for own, one in _options(correction))
        elif name != "name" and value is not None:
            yield f"{prefix}_{name}", value if isinstance(value, int | float | str) else str(value)


def _described(of):
    values = {field.name: getattr(of, field.name) for field in dataclasses.fields(of)}
    if "corrections" in values:
        values["corrections"] = described(values["corrections"])
    if values.get("layers") is not None:
        values["layers"] = [list(pair) for pair in values["layers"]]
    return {"name": of.name, **values}


def _load(name):
    found = imported("methods", name, "Class")
    try:
        return register(found)
    except ArgumentError as error:
        raise ArgumentError("methods", error.accepted, name, error.hint) from error
