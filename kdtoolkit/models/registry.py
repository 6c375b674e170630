"""Networks by name. Keras is imported when a network is built, not before."""

import difflib
import importlib
import inspect
import numbers
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Networks that one function builds.

    Attributes:
        pattern: regular expression of the names; its named groups, integers, are arguments of the
            builder.
        names: those that are listed.
        builder: "module:function", called with `input_shape`, `classes`, `name`, the named groups
            and the options.
        smallest: least height and width of an image.
        schedule: key into `kdtoolkit.training.schedules.SCHEDULES`.
    """

    pattern: str
    names: tuple[str, ...]
    builder: str
    smallest: int
    schedule: str


FAMILIES = (
    Family(
        # Listed, not \d+: 50 and 152 are 6n+2 too, and mean another network to everybody.
        pattern="resnet(?P<depth>8|14|20|32|44|56|74|92|110)",
        names=tuple(f"resnet{depth}" for depth in (8, 14, 20, 32, 44, 56, 74, 92, 110)),
        builder="kdtoolkit.models.cifar_resnet:cifar_resnet",
        smallest=8,
        schedule="cifar_resnet",
    ),
    Family(
        # resnet18-w16 is a quarter as wide as resnet18.
        pattern="resnet(?P<depth>18|34)(-w(?P<width>[1-9][0-9]*))?",
        names=("resnet18", "resnet18-w16", "resnet34"),
        builder="kdtoolkit.models.resnet:resnet",
        smallest=8,
        schedule="self_distillation",
    ),
)


def names() -> list[str]:
    """Returns the names of the networks, family by family."""
    return [name for family in FAMILIES for name in family.names]


def validate(name: str) -> Family:
    """Returns the family of a network's name.

    Raises:
        ValueError: no network has this name.
    """
    return _find(name)[0]


def build(name: str, input_shape, classes: int, **options):
    """Builds a network with freshly drawn weights.

    Args:
        name: one of `names()`.
        input_shape: `(height, width, channels)`.
        classes: number of classes, at least 2.
        **options: of the family's builder.

    Returns:
        A functional `keras.Model` called `name`: float images `(batch, height, width, channels)`
        to float32 logits `(batch, classes)`.

    Raises:
        ValueError: an unknown name or option, or an argument that the network cannot take.
    """
    family, arguments = _find(name)
    shape = tuple(input_shape)
    if len(shape) != 3 or any(not isinstance(size, numbers.Integral) or size < 1 for size in shape):
        raise ValueError(
            "Argument `input_shape` must be three positive integers, (height, width, channels). "
            f"Received: input_shape={input_shape}"
        )
    if min(shape[:2]) < family.smallest:
        raise ValueError(
            f"Argument `input_shape` must be at least {family.smallest} pixels high and wide for "
            f"{name}. Received: input_shape={input_shape}"
        )
    if classes < 2:
        raise ValueError(f"Argument `classes` must be at least 2. Received: classes={classes}")
    module, _, function = family.builder.partition(":")
    builder = getattr(importlib.import_module(module), function)
    accepted = [
        parameter.name
        for parameter in inspect.signature(builder).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in arguments
    ]
    unknown = sorted(set(options) - set(accepted))
    if unknown:
        raise ValueError(
            f"Arguments `options` of {name} must be among {', '.join(accepted)}. "
            f"Received: {', '.join(unknown)}"
        )
    return builder(shape, classes, name, **arguments, **options)


def _find(name):
    for family in FAMILIES:
        match = re.fullmatch(family.pattern, name)
        if match:
            return family, {k: int(v) for k, v in match.groupdict().items() if v}
    near = difflib.get_close_matches(name, names())
    hint = f" Near matches: {', '.join(near)}." if near else ""
    raise ValueError(
        f"Argument `name` must be one of {', '.join(names())}. Received: name={name!r}.{hint}"
    )
