"""Networks by name. Keras is imported when a network is built, not before."""

import importlib
import inspect
import numbers
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kdtoolkit._checks import ArgumentError, Integers, OneOf, Words, check, near
from kdtoolkit._types import Network


@dataclass(frozen=True)
class Family:
    """Networks that one function builds.

    Attributes:
        pattern: regular expression of the names; its named groups are arguments of the builder,
            integers where they are digits.
        names: those that are listed.
        builder: "module:function", or the function: called with `input_shape`, `classes`, `name`,
            the named groups, `arguments` and the options.
        schedule: key into `kdtoolkit.training.SCHEDULES`.
        tiny: a member that trains in seconds, to try things out with.
        smallest: least height and width of an image.
        form: how other names are made, for people; empty if all are listed.
        unlisted: further names, where they can be told.
        arguments: of the builder, the same for all names.
        trained: whether the builder has an option `weights`, for trained ones.
    """

    pattern: str
    names: tuple[str, ...]
    builder: str | Callable[..., Network]
    schedule: str
    tiny: str
    smallest: int = 8
    form: str = ""
    unlisted: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    trained: bool = False


def _any(values):
    return "|".join(map(str, values))


# Listed, not \d+: 50 and 152 are 6n+2 too, and mean another network to everybody.
_CIFAR_DEPTHS = (8, 14, 20, 32, 44, 56, 74, 92, 110)
_POSITIVE = "[1-9][0-9]*"
_MOST_BLOCKS = 60  # a stage; 6 * 60 layers and more, which nobody has trained

# Those of keras.applications, family by family, the smallest first.
_APPLICATIONS = (
    tuple(f"ConvNeXt{size}" for size in ("Tiny", "Small", "Base", "Large", "XLarge")),
    ("DenseNet121", "DenseNet169", "DenseNet201"),
    tuple(f"EfficientNetB{k}" for k in range(8)),
    tuple(f"EfficientNetV2{size}" for size in ("B0", "B1", "B2", "B3", "S", "M", "L")),
    ("InceptionResNetV2",),
    ("InceptionV3",),
    ("MobileNet",),
    ("MobileNetV2",),
    ("MobileNetV3Small", "MobileNetV3Large"),
    ("NASNetMobile", "NASNetLarge"),
    ("ResNet50", "ResNet101", "ResNet152"),
    ("ResNet50V2", "ResNet101V2", "ResNet152V2"),
    ("VGG16",),
    ("VGG19",),
    ("Xception",),
)
# The least height and width of their images, where that is not 32.
_SMALLEST = {"InceptionResNetV2": 75, "InceptionV3": 75, "Xception": 71}

FAMILIES = (
    Family(
        pattern=f"resnet(?P<depth>{_any(_CIFAR_DEPTHS)})",
        names=tuple(f"resnet{depth}" for depth in _CIFAR_DEPTHS),
        builder="kdtoolkit.models.cifar_resnet:cifar_resnet",
        schedule="cifar_resnet",
        tiny="resnet8",
    ),
    Family(
        # Four times as wide; the stem is twice as wide in the benchmark that has them.
        pattern=f"resnet(?P<depth>{_any(_CIFAR_DEPTHS)})x4",
        names=("resnet8x4", "resnet32x4"),
        builder="kdtoolkit.models.cifar_resnet:cifar_resnet",
        schedule="distillation",
        tiny="resnet8x4",
        form="resnetDEPTHx4",
        arguments={"width": 64, "stem_width": 32},
    ),
    Family(
        # resnet18-w16 is a quarter as wide as resnet18.
        pattern=f"resnet(?P<depth>18|34|50|101|152)(-w(?P<width>{_POSITIVE}))?",
        names=("resnet18", "resnet18-w16", "resnet34", "resnet50", "resnet101", "resnet152"),
        builder="kdtoolkit.models.resnet:resnet",
        schedule="self_distillation",
        tiny="resnet18-w4",
        form="resnetDEPTH-wWIDTH",
    ),
    Family(
        # With the stem of the papers' ImageNet networks: a quarter of the height and width.
        pattern=f"imagenet-resnet(?P<depth>18|34|50|101|152)(-w(?P<width>{_POSITIVE}))?",
        names=tuple(f"imagenet-resnet{depth}" for depth in (18, 34, 50, 101, 152)),
        builder="kdtoolkit.models.resnet:resnet",
        schedule="imagenet",
        tiny="imagenet-resnet18-w4",
        smallest=32,
        form="imagenet-resnetDEPTH-wWIDTH",
        arguments={"stem": "imagenet"},
    ),
    Family(
        pattern=f"densenet-bc-(?P<depth>{_any(6 * n + 4 for n in range(1, _MOST_BLOCKS))})"
        f"-(?P<growth>{_POSITIVE})",
        names=("densenet-bc-100-12", "densenet-bc-190-40"),
        builder="kdtoolkit.models.densenet:densenet",
        schedule="densenet",
        tiny="densenet-bc-10-4",
        form="densenet-bc-DEPTH-GROWTH",
    ),
    Family(
        pattern="wrn-"
        f"(?P<depth>{_any(6 * n + rest for n in range(1, _MOST_BLOCKS) for rest in (2, 4))})"
        f"-(?P<width>{_POSITIVE})",
        names=tuple(
            f"wrn-{size}" for size in ("16-2", "40-1", "40-2", "20-8", "44-8", "28-10", "28-12")
        ),
        builder="kdtoolkit.models.wide_resnet:wide_resnet",
        schedule="self_distillation",
        tiny="wrn-10-1",
        form="wrn-DEPTH-WIDTH",
    ),
    Family(
        pattern=f"resnext(?P<depth>{_any(9 * n + 2 for n in range(1, _MOST_BLOCKS))})"
        f"-(?P<cardinality>{_POSITIVE})x(?P<width>{_POSITIVE})d",
        names=("resnext29-8x64d",),
        builder="kdtoolkit.models.resnext:resnext",
        schedule="self_distillation",
        tiny="resnext11-2x4d",
        form="resnextDEPTH-GROUPSxWIDTHd",
    ),
    Family(
        pattern=f"pyramidnet-(?P<depth>{_any(9 * n + 2 for n in range(1, _MOST_BLOCKS))})"
        f"-(?P<alpha>{_POSITIVE})",
        names=("pyramidnet-101-240",),
        builder="kdtoolkit.models.pyramidnet:pyramidnet",
        schedule="self_distillation",
        tiny="pyramidnet-11-12",
        form="pyramidnet-DEPTH-ALPHA",
    ),
    Family(
        pattern=f"vgg(?P<depth>8|13)(-w(?P<width>{_POSITIVE}))?",
        names=("vgg8", "vgg13"),
        builder="kdtoolkit.models.vgg:vgg",
        schedule="distillation",
        tiny="vgg8-w4",
        form="vggDEPTH-wWIDTH",
    ),
    Family(
        pattern=f"vgg(?P<depth>19)(-w(?P<width>{_POSITIVE}))?",
        names=("vgg19",),
        builder="kdtoolkit.models.vgg:vgg",
        schedule="self_distillation",
        tiny="vgg19-w4",
    ),
    Family(
        pattern=f"shufflenetv1(-w(?P<width>{_POSITIVE}))?",
        names=("shufflenetv1",),
        builder="kdtoolkit.models.shufflenet:shufflenet_v1",
        schedule="distillation_mobile",
        tiny="shufflenetv1-w36",
        form="shufflenetv1-wWIDTH",
    ),
    Family(
        pattern=f"shufflenetv2(-w(?P<width>{_POSITIVE}))?",
        names=("shufflenetv2",),
        builder="kdtoolkit.models.shufflenet:shufflenet_v2",
        schedule="distillation_mobile",
        tiny="shufflenetv2-w8",
        form="shufflenetv2-wWIDTH",
    ),
    Family(
        pattern=r"mobilenetv2-(?P<width>0\.[1-9][0-9]?|1\.0)",
        names=("mobilenetv2-0.5",),
        builder="kdtoolkit.models.mobilenet_v2:mobilenet_v2",
        schedule="distillation_mobile",
        tiny="mobilenetv2-0.1",
        form="mobilenetv2-WIDTH",
    ),
    *(
        Family(
            pattern=f"keras:(?P<application>(?i:{_any(applications)}))",
            names=(),
            builder="kdtoolkit.models.keras_application:keras_application",
            schedule="distillation",
            tiny=f"keras:{applications[0]}",
            smallest=_SMALLEST.get(applications[0], 32),
            form="keras:APPLICATION",
            unlisted=tuple(f"keras:{application}" for application in applications),
            trained=True,
        )
        for applications in _APPLICATIONS
    ),
)


_registered: dict[str, Family] = {}
"""Families of `register`, each of one name."""


def register(name: str, builder: Callable[..., Network], *, smallest: int = 1) -> None:
    """Adds a network of one's own under a name, which `build` and every recipe then take.

    Recipes know it in a process that has called this, and train it as they train a CIFAR ResNet
    unless `--schedule` says otherwise.

    Args:
        name: that no other network has.
        builder: called as `builder(input_shape, classes, name, **options)`; returns a functional
            Keras model of that name, images to logits. Options are its keyword-only arguments.
        smallest: least height and width of an image.

    Raises:
        ArgumentError: another network has the name, or `builder` cannot be called.
    """
    if not callable(builder):
        raise ArgumentError("builder", "a function", builder)
    family = Family(re.escape(name), (name,), builder, "cifar_resnet", name, smallest)
    if _registered.get(name, family) != family or any(
        re.fullmatch(known.pattern, name) for known in FAMILIES
    ):
        raise ArgumentError("name", "one that no other network has", name)
    _registered[name] = family


def _families() -> tuple[Family, ...]:
    return (*FAMILIES, *_registered.values())


def names() -> list[str]:
    """Returns the names of the papers' networks, family by family, and those of `register`.

    Others can be built too: of other depths and widths, and those of `keras.applications`, as
    `keras:MobileNetV2`.
    """
    return [name for family in _families() for name in family.names]


def validate(name: str) -> Family:
    """Returns the family of a network's name.

    Raises:
        ValueError: no network has this name.
    """
    return _find(name)[0]


def build(name: str, input_shape: Sequence[int], classes: int, **options: Any) -> Network:
    """Builds a network with freshly drawn weights.

    Args:
        name: one of `names()`, or of another depth or width (`wrn-22-4`), or `keras:` and the name
            of a network of `keras.applications`.
        input_shape: `(height, width, channels)`.
        classes: number of classes, at least 2.
        **options: of the family's builder.

    Returns:
        A functional `keras.Model` called `name` (with a dash for the colon): float images `(batch,
        height, width, channels)` to float32 logits `(batch, classes)`.

    Raises:
        ValueError: an unknown name or option, or an argument that the network cannot take.
    """
    family, arguments = _find(name)
    shape = tuple(input_shape)
    if len(shape) != 3 or any(not isinstance(size, numbers.Integral) or size < 1 for size in shape):
        accepted = "three positive integers, (height, width, channels)"
        raise ArgumentError("input_shape", accepted, input_shape)
    if min(shape[:2]) < family.smallest:
        accepted = f"at least {family.smallest} pixels high and wide for {name}"
        raise ArgumentError("input_shape", accepted, input_shape)
    check("classes", classes, Integers(2))
    builder = family.builder
    if isinstance(builder, str):
        module, _, function = builder.partition(":")
        builder = getattr(importlib.import_module(module), function)
    known = [
        parameter.name
        for parameter in inspect.signature(builder).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in arguments
    ]
    unknown = sorted(set(options) - set(known))
    if unknown:
        received = Words(", ".join(unknown))
        raise ArgumentError("options", f"among {', '.join(known)}", received, owner=name)
    return builder(shape, classes, name, **arguments, **options)


def _find(name):
    for family in _families():
        match = re.fullmatch(family.pattern, name)
        if match:
            groups = {k: int(v) if v.isdigit() else v for k, v in match.groupdict().items() if v}
            return family, {**groups, **family.arguments}
    known = [known for family in _families() for known in (*family.names, *family.unlisted)]
    forms = ", ".join(dict.fromkeys(family.form for family in _families() if family.form))
    accepted = f"{OneOf(tuple(names()))}, or like {forms}"
    raise ArgumentError("name", accepted, name, near(name, known))
