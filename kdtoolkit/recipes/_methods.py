"""`--methods`, and a flag for every option of every method, from the registry of methods.

The flag of an option is called `METHOD_OPTION`, such as `--kd_temperature`. Methods from elsewhere,
`--methods=package.module:Class`, get theirs when the command line is read.
"""

import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kdtoolkit import methods
from kdtoolkit.methods import Method
from kdtoolkit.methods.base import LAYER_PAIRS
from kdtoolkit.recipes._command import UsageError, blaming_arguments, shown

_TRUTH = {"true": True, "false": False}
_ACCEPTED = {float: "a number", int: "an integer", bool: "true or false", str: "text"}


@dataclass(frozen=True)
class MethodFlags:
    """The flags of a recipe's methods.

    Attributes:
        usual: flag of an option -> its usual value in this recipe, where that is not the method's.
        alone: names that `--methods` takes besides those of methods, and not joined with them.
    """

    usual: Mapping[str, object] = field(default_factory=dict)
    alone: Sequence[str] = ()

    def define(self, flags, default: str, text: str, kind: str = "string"):
        """Adds `--methods`, and the flags of every option.

        Args:
            flags: of the recipe.
            default: of `--methods`.
            text: what the names are for; the names themselves are added.
            kind: `"string"`, or `"list"` for several, separated by commas.
        """
        accepted = ", ".join(methods.names())
        alone = f"{', '.join(self.alone)}, or " if self.alone else ""
        flags.add(
            kind,
            "Methods",
            "methods",
            default,
            f"{text}: {alone}names joined with + of {accepted}, or of package.module:Class, a "
            "method of your own, whose module is imported.",
        )
        for name in methods.names():
            self._define_options(flags, methods.get(name))
        flags.before_parsing(self._define_from_elsewhere)

    def parse(self, flags, name: str, student: tuple[int, int] | None = None):
        """Returns the methods of a name, with the options that the flags say.

        Args:
            flags: of the run.
            name: names joined with `+`.
            student: of `maker`.

        Raises:
            UsageError: there is no such method, or an option is not what is accepted.
        """
        with blaming_arguments(flags, self.alone):
            return methods.parse(name, self.maker(flags, student))

    def maker(self, flags, student: tuple[int, int] | None = None):
        """What makes a method of its class, with the options that the flags say: see `parse`.

        Args:
            flags: of the run.
            student: (number from 0, how many) where an option may have one value for each.
        """

        def make(cls, **given):
            for option in methods.options(cls):
                flag = f"{cls.name}_{option.name}"
                text = flags[flag].value
                if text is not None:
                    given[option.name] = _value(flag, cls, option, text, student)
                elif option.name not in given and flag in self.usual:
                    given[option.name] = self.usual[flag]
            return cls(**given)

        return make

    def check(self, flags, chosen: Iterable[Method], classes: int | None):
        """Checks methods against a number of classes, and that no flag of another one was set.

        Raises:
            UsageError: an option does not suit the classes, or would do nothing.
        """
        chosen = tuple(chosen)
        used = {part.name for method in chosen for part in _parts(method)}
        for name, _, flag in _options(flags):
            flags.require_use(name in used, f"the method {name}", flag.name)
        with blaming_arguments(flags):
            for method in chosen:
                if classes is not None:
                    method.check_classes(classes)
                if flags.batch_size is not None:
                    method.check_batch_size(flags.batch_size)

    def options(self, flags) -> list[str]:
        """The flags of all methods' options."""
        return [flag.name for *_, flag in _options(flags)]

    def shrink(self, flags):
        """For `--smoke`, which trains one student: keeps the first of several values."""
        for _, option, flag in _options(flags):
            if flag.value is not None and option.metadata["accepted"] is not LAYER_PAIRS:
                flag.value = flag.value.partition(",")[0]

    def _define_options(self, flags, cls):
        group = f"Method {cls.name}"
        for option in methods.options(cls):
            flag = f"{cls.name}_{option.name}"
            others = flags.find_module_defining_flag(flag)
            if others == group:  # once is enough
                continue
            if others is not None:
                raise UsageError(
                    f"--methods: the option {option.name} of {cls.__name__} would have the flag "
                    f"--{flag}, which is the recipe's own. Accepted: another name"
                )
            _kind(cls, option)
            default = self.usual.get(flag, option.default)
            text, accepted = option.metadata["text"], option.metadata["accepted"]
            if accepted is not None and accepted is not LAYER_PAIRS:
                text = f"{text.removesuffix('.')}, {accepted}."
            if default is not None:
                text += f" (default: {shown(default)})"
            flags.add("string", group, flag, None, text)

    def _define_from_elsewhere(self, flags, arguments):
        named = [*flags.peek(arguments, "methods"), *flags.peek(arguments, "method")]
        for part in dict.fromkeys(part for name in named for part in name.split("+")):
            if ":" not in part:
                continue
            with blaming_arguments(flags):
                cls = methods.get(part)
            self._define_options(flags, cls)


def _options(flags):
    """Name of a method, option and flag of every option that has one; some are registered later."""
    for name in methods.names():
        for option in methods.options(methods.get(name)):
            flag = f"{name}_{option.name}"
            if flag in flags:
                yield name, option, flags[flag]


def _parts(method):
    return (method, *getattr(method, "corrections", ()))


def _value(flag, cls, option, text, student):
    """The value that a flag's text stands for."""
    if option.metadata["accepted"] is LAYER_PAIRS:
        pairs = tuple(tuple(pair.split(":")) for pair in text.split(","))
        if pairs not in LAYER_PAIRS:
            raise UsageError(
                f"--{flag} must be STUDENT:TEACHER, separated by commas. Received: --{flag}={text}"
            )
        return pairs
    kind, values = _kind(cls, option), text.split(",")
    if student is not None and len(values) > 1:
        number, count = student
        if len(values) != count:
            raise UsageError(
                f"--{flag} must be one value, or one for each of the {count} students. Received: "
                f"{len(values)} values"
            )
        text = values[number]
    try:
        return _TRUTH[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError) as error:
        raise UsageError(
            f"--{flag} must be {_ACCEPTED[kind]}. Received: --{flag}={text}"
        ) from error


def _kind(cls, option):
    """The type of an option's values that are given; None for `LAYER_PAIRS`.

    Raises:
        UsageError: no flag can hold them.
    """
    if option.metadata["accepted"] is LAYER_PAIRS:
        return None
    try:
        hint = typing.get_type_hints(cls)[option.name]
    except NameError as error:  # of an annotation that is text
        hint = error
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kinds = set(typing.get_args(hint) if union else (hint,)) - {type(None)}
    if len(kinds) != 1 or not kinds <= _ACCEPTED.keys():
        names = ", ".join(kind.__name__ for kind in _ACCEPTED)
        raise UsageError(
            f"--methods: the option {option.name} of {cls.__name__} must have one of the types "
            f"{names}, or one of them and None, to have a flag. Received: {hint}"
        )
    (kind,) = kinds
    return kind
