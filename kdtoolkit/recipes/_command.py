"""What every recipe's command line has in common: flags in groups, help, errors, the directory.

Nothing here imports TensorFlow: a mistake is one line and exit status 2 before that happens.
"""

import contextlib
import os
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from absl import flags as absl_flags

from kdtoolkit import _errors, bounded, cluster, files, report
from kdtoolkit._checks import ArgumentError, OneOf, UnsuitableError, Words, check, near
from kdtoolkit._stderr import held_back
from kdtoolkit.training.compute import set_onednn

CONFIG = "config.flags"
# Its first line, which changes when a run of the version before cannot be gone on with.
_VERSION = "# kdtoolkit 0.2\n"


_SETTLED = "settled"  # Group of flags that are none on a command line.


class UsageError(ValueError):
    """A mistake on the command line: one line, exit status 2."""


class Done(Exception):
    """What is left of a run is another worker's: exit status 0."""


class RunError(RuntimeError):
    """A run that cannot go on for a reason that a person can act on: one line, exit status 1."""


@contextlib.contextmanager
def blaming(flag: str):
    """Turns a library's `ValueError` into a `UsageError` that names the flag."""
    try:
        yield
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"--{flag}: {error}") from error


@contextlib.contextmanager
def blaming_arguments(flags: "Flags", also: Sequence[str] = (), **renamed: str):
    """Turns a library's `ArgumentError` into a `UsageError` that names the flag.

    That is the argument's own name, and `--METHOD_OPTION` for an option of a method. An argument
    that is no flag is not the command line's, and its error passes.

    Args:
        flags: of the run.
        also: further names that `--methods` takes.
        **renamed: argument -> flag, where that has another name.
    """
    try:
        yield
    except ArgumentError as error:
        flag, hint, value = error.argument, error.hint, shown(error.received)
        if flag in ("corrections", "methods"):
            flag, hint = "methods", hint or near(value, also)
        elif error.owner is not None:
            flag = f"{error.owner}_{flag}"
        flag = renamed.get(flag, flag)
        if flag not in flags:
            raise
        found = value if isinstance(error.received, Words) else f"--{flag}={value}"
        message = f"--{flag} must {error.must} {error.accepted}. Received: {found}"
        if isinstance(error, UnsuitableError):
            message, hint = f"--{flag}: {hint}", ""
        raise UsageError(f"{message}. {hint}" if hint else message) from error


def shown(value: object) -> str:
    """A value as the flag's text has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(":".join(v) if isinstance(v, tuple) else str(v) for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


class Flags(absl_flags.FlagValues):
    """A recipe's own flags; those of the libraries it imports stay out."""

    def add(self, kind: str, group: str, name: str, default, text: str, **limits):
        """Defines a flag: `kind` is absl's, such as `"string"`, `"integer"` or `"enum"`."""
        define = getattr(absl_flags, f"DEFINE_{kind}")
        define(name, default, text, flag_values=self, module_name=group, **limits)

    def settle(self, **values):
        """Gives flags a value that no command line changes: what shared code asks for in vain."""
        for name, value in values.items():
            kind = {bool: "boolean", int: "integer"}.get(type(value), "string")
            self.add(kind, _SETTLED, name, value, "")

    def take_rest(self, name: str):
        """Makes arguments that are no flags the values of a flag, which is a list."""
        self.__dict__["rest"] = name  # past absl, for which attributes are flags

    @property
    def rest(self) -> str | None:
        """The flag of `take_rest`."""
        return self.__dict__.get("rest")

    def may_change(self, name: str):
        """Lets a run go on with another value of a flag than the one that it began with."""
        self.changeable.add(name)

    @property
    def changeable(self) -> set[str]:
        """Flags that say nothing of the run; its directory may have been moved."""
        return self.__dict__.setdefault("_changeable", {"output_dir"})

    def before_parsing(self, define: Callable[["Flags", Sequence[str]], None]):
        """Has flags defined that depend on the command line, by a function of these and of it."""
        self.__dict__["definer"] = define  # past absl, for which attributes are flags

    def define_by(self, arguments: Sequence[str]):
        """Defines the flags that depend on a command line.

        Raises:
            UsageError: it names something that defines flags, and cannot.
        """
        for argument in arguments:
            _check_text(argument)
        define = self.__dict__.get("definer")
        if define is not None:
            define(self, arguments)

    def peek(self, arguments: Sequence[str], name: str) -> list[str]:
        """The values, separated by commas, that a flag has on a command line not yet parsed."""
        alone = Flags()
        alone.add("list", "", name, None, "")
        try:
            alone(["", *arguments], known_only=True)
        except (absl_flags.Error, RecursionError):
            return []  # what is wrong is said when it is parsed
        return alone[name].value or []

    def parse(self, arguments: Sequence[str], renamed: Mapping[str, str] | None = None):
        """Sets the flags, of this command line and of the flag files that it names.

        Args:
            arguments: of the command line; `define_by` has been called with them.
            renamed: flag of an older version -> what says it now.

        Raises:
            UsageError, absl.flags.Error: it cannot be read, or a flag be written down as it is.
        """
        try:
            rest = self(["", *arguments])[1:]
        except RecursionError as error:  # of absl's search for a flag that is spelled like it
            raise UsageError("an argument is much too long for the name of a flag") from error
        except absl_flags.UnrecognizedFlagError as error:
            renamed, old = renamed or {}, error.flagname
            now = renamed.get(old, renamed.get(old.removeprefix("no")))
            if now is None:
                raise
            raise UsageError(f"--{error.flagname} is now {now}: see CHANGELOG.md") from error
        settled = [flag.name for flag in self._of_groups().get(_SETTLED, ()) if flag.present]
        if settled:
            raise UsageError(f"Unknown command line flag '{settled[0]}'")
        if rest and self.rest is None:
            raise UsageError(f"unexpected argument {rest[0]!r}: flags are written --name=value")
        if rest:
            self[self.rest].value = [*(self[self.rest].value or ()), *rest]

    def _get_flag_file_lines(self, filename, parsed_file_stack=None):
        # absl's own reader, for files that end, are text, and do not read themselves.
        if filename in (parsed_file_stack or ()):
            raise UsageError(f"--flagfile={filename} reads itself")
        try:
            if filename:
                bounded.check_regular(filename)
            lines = super()._get_flag_file_lines(filename, parsed_file_stack)
        except (OSError, ValueError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"--flagfile={filename} cannot be read: {error}") from error
        for line in lines:
            _check_text(line)
        return lines

    def remember(self, arguments: Sequence[str], held: contextlib.ExitStack):
        """Keeps the command line as it was given, and what is let go when the run has ended."""
        # Past absl, for which attributes are flags.
        self.__dict__.update(arguments=tuple(arguments), held=held)

    def flags_into_string(self) -> str:
        """The lines of a flag file that sets all flags that a command line can set."""
        settled = {flag.name for flag in self._of_groups().get(_SETTLED, ())}
        lines = super().flags_into_string().splitlines(keepends=True)
        return "".join(line for line in lines if not settled & _parse_flags_text(line).keys())

    def groups(self) -> dict[str, list[absl_flags.Flag]]:
        return {name: own for name, own in self._of_groups().items() if name != _SETTLED}

    def _of_groups(self):
        return self.flags_by_module_dict()

    def effective(self) -> dict[str, str]:
        """Every flag that has a value, as text."""
        return _parse_flags_text(self.flags_into_string())

    def require(self, flag: str, holds: bool, accepted: str):
        """Raises a `UsageError` that names the flag unless `holds`."""
        if not holds:
            value = self[flag].value
            value = ",".join(value) if isinstance(value, list) else value
            raise UsageError(f"--{flag} must be {accepted}. Received: --{flag}={value}")

    def require_use(self, holds: bool, applies: str, *flags: str):
        """Raises a `UsageError` for one of the flags that was set where none of them does anything.

        Args:
            holds: whether they do something in this run.
            applies: what they apply to.
            *flags: their names.
        """
        for flag in flags:
            value = self[flag].value
            if not holds and value != self[flag].default:
                raise UsageError(f"--{flag} applies to {applies}. Received: --{flag}={value}")

    def require_one_of(self, flag: str, names: Sequence[str]):
        """Raises a `UsageError` with near matches unless the flag's value is one of `names`."""
        with blaming_arguments(self):
            check(flag, self[flag].value, OneOf(tuple(names)))


@dataclass(frozen=True)
class Recipe:
    """A command.

    Attributes:
        name: of the module below `kdtoolkit.recipes`.
        summary: what it does, the head of its help.
        define: adds the flags.
        check: raises `UsageError` for what is wrong with them and fills in defaults that depend on
            other flags; imports neither TensorFlow nor Keras and writes nothing.
        run: does the work and returns what it wrote as `results.json`; the first thing it writes is
            `claim_output_dir`, once all is checked.
        show: flags and results -> the text that the run ends with; imports no TensorFlow.
        page: every flag that has a value, as text, results, and the directory that they lie in ->
            title and own sections of the run's page; imports no TensorFlow.
        renamed: flag of an older version -> what says it now.
    """

    name: str
    summary: str
    define: Callable[[Flags], None]
    check: Callable[[Flags], object]
    run: Callable[[Flags, object], dict]
    show: Callable[[Flags, dict], str]
    page: Callable[[Mapping[str, str], dict, Path], tuple[str, Sequence[report.Section]]]
    renamed: Mapping[str, str] | None = None

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Runs the command and returns its exit status."""
        argv = list(sys.argv[1:] if argv is None else argv)
        advice = "; the same command goes on where it stopped"
        return _errors.guarded(self.name, lambda: self._main(argv), advice)

    def _main(self, argv):
        from kdtoolkit.recipes import _finished, _page  # which need what is here

        try:
            if {"--help", "-help", "-h"} & set(argv):
                print(self.help(self._defined(argv)))
                return 0
            flags, checked = self.parse(argv)
            check_output_dir(flags)
            results = _finished.results(self.name, flags)
            if results is None:
                import_libraries(flags["onednn"].value)
                with contextlib.ExitStack() as held:
                    flags.remember(argv, held)
                    results = self.run(flags, checked)
                    _page.write(self, Path(flags["output_dir"].value))
            elif not (Path(flags["output_dir"].value) / _page.NAME).exists():
                _page.write(self, Path(flags["output_dir"].value))
            print(self.show(flags, results))
        except (UsageError, absl_flags.Error) as error:
            return _errors.fail(self.name, error, status=2)
        except Done:
            return 0
        except RunError as error:
            return _errors.fail(self.name, error, status=1)
        return 0

    def parse(self, argv: Sequence[str]) -> tuple[Flags, object]:
        """Returns the flags of a command line, and what `check` says of them; writes nothing.

        Raises:
            UsageError, absl.flags.Error: something is wrong with them.
        """
        flags = self._defined(argv)
        flags.parse(argv, self.renamed)
        return flags, self.check(flags)

    def _defined(self, argv):
        flags = Flags()
        self.define(flags)
        flags.define_by(argv)
        return flags

    def help(self, flags: Flags) -> str:
        """Returns the help text: flags in groups, with their defaults."""
        rest = "" if flags.rest is None else f" {flags.rest.upper()}..."
        lines = [
            self.summary,
            "",
            f"usage: python -m kdtoolkit.recipes.{self.name} [--flag=value ...]{rest}",
        ]
        for group, members in flags.groups().items():
            lines += ["", f"{group}:"]
            for flag in members:
                lines.append(f"  --{flag.name}")
                text = flag.help
                if flag.default is not None:
                    text += f" (default: {flag.default_as_str.strip(chr(39))})"
                lines += textwrap.wrap(text, 92, initial_indent=" " * 6, subsequent_indent=" " * 6)
        lines += ["", "  --flagfile=FILE reads flags from a file, one a line."]
        return "\n".join(lines)


def _check_text(argument):
    """Refuses what a line of `config.flags` cannot hold, or be printed."""
    try:
        argument.encode()
        one_line = "\0" not in argument and argument.splitlines() in ([], [argument])
    except UnicodeEncodeError:
        one_line = False
    if not one_line or argument.strip() != argument:
        raise UsageError(
            "arguments must be one line of UTF-8 each, without spaces around it. Received: "
            f"{argument!r}"
        )


def check_output_dir(flags: Flags) -> None:
    """Checks that the output directory is, or can become, this run's own; writes nothing.

    Of several workers the chief alone does this.

    Raises:
        UsageError: the directory cannot be written to, holds a run with other flags, or is in use.
    """
    path = Path(flags["output_dir"].value)
    if not cluster.is_chief(flags["strategy"].value):
        return
    config = path / CONFIG
    try:
        nearest = path
        while not nearest.exists():
            nearest = nearest.parent
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            raise UsageError(
                f"--output_dir must be a directory that can be written to; {nearest} cannot. "
                f"Received: --output_dir={path}"
            )
        if files.in_use(path):
            raise UsageError(_in_use(path))
        if not config.exists():
            if path.exists() and files.contents(path):
                raise UsageError(
                    f"--output_dir must be a new or empty directory, or hold a run of the same "
                    f"flags; it has no {CONFIG}. Received: --output_dir={path}"
                )
            return
        text = files.read_bytes(config).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--output_dir={path} cannot be used: {error}") from error
    if not text.startswith(_VERSION):
        raise UsageError(
            f"--output_dir={path} holds a run of kdtoolkit 0.1, or a damaged {CONFIG}, which this "
            "version cannot go on with. Accepted: another directory"
        )
    differs = [
        f"--{name}={theirs} there, --{name}={mine} here"
        for name, (theirs, mine) in _differing(flags, text).items()
        if name not in flags.changeable
    ]
    if differs:
        raise UsageError(
            f"--output_dir={path} belongs to a run with other flags: {'; '.join(differs)}. "
            "Accepted: another directory, or the same flags"
        )


def _differing(flags, text):
    """Flag -> its value in a file of flags, and here, where these are not the same."""
    theirs, mine = _parse_flags_text(text), flags.effective()
    for name in flags:  # a run of an older version goes on with what was not an option then
        if name not in theirs and flags[name].value == flags[name].default:
            mine.pop(name, None)
    theirs = {name: value for name, value in theirs.items() if name in flags}
    return {
        name: (theirs.get(name, ""), mine.get(name, ""))
        for name in sorted(mine.keys() | theirs.keys())
        if mine.get(name) != theirs.get(name)
    }


def changed(flags: Flags) -> set[str]:
    """Returns the flags whose values the run in the output directory did not have.

    Raises:
        OSError, UnicodeDecodeError: what it had cannot be read.
    """
    text = files.read_bytes(Path(flags["output_dir"].value) / CONFIG).decode()
    return set(_differing(flags, text)) - {"output_dir"}


def read_flags(directory: Path) -> dict[str, str]:
    """Returns the flags of the run in a directory, as text; those that have a value.

    Raises:
        OSError, UnicodeDecodeError: they cannot be read.
    """
    return _parse_flags_text(files.read_bytes(directory / CONFIG).decode())


def claim_output_dir(flags: Flags) -> Path:
    """Makes the output directory this run's own until it ends: the first thing that a run writes.

    What a killed process left half-written goes. Of several workers the chief alone does this.

    Raises:
        UsageError: the directory cannot be written to; another run came first.
    """
    path = Path(flags["output_dir"].value)
    if not cluster.is_chief(flags["strategy"].value):
        return path
    text = _VERSION + flags.flags_into_string()
    try:
        files.make_directory(path)
        flags.held.enter_context(files.locked(path))
        check_output_dir(flags)
        files.clear_scratch(path)
        if (path / CONFIG).exists() and changed(flags):
            files.remove(path / "results.json")  # of the flags before: this run is not finished
        files.write_atomically(path / CONFIG, lambda scratch: scratch.write_text(text))
    except files.InUseError as error:
        raise UsageError(_in_use(path)) from error
    except OSError as error:
        raise UsageError(f"--output_dir={path} cannot be written to: {error}") from error
    return path


def _in_use(path):
    return f"--output_dir={path} is in use by another run. Accepted: another directory, or later"


def _parse_flags_text(text):
    """Flag -> value of the lines of a flag file; `--name` and `--noname` are true and false."""
    values = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("--").partition("=")
        if equals:
            values[name] = value
        elif name and not name.startswith("#"):
            values[name.removeprefix("no")] = "false" if name.startswith("no") else "true"
    return values


def import_libraries(onednn="auto"):
    """Imports TensorFlow with what suits a command: fast on a CPU, and silent.

    On import TensorFlow's native code writes lines to standard error that no setting suppresses;
    they are shown only if the import fails.

    Args:
        onednn: of `kdtoolkit.training.compute.set_onednn`.
    """
    set_onednn(onednn)
    # Level 3: a machine without a GPU otherwise reports CUDA's absence as an error.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with held_back() as shown, _errors.ending_at_once(shown):
        import keras  # noqa: F401
        import tensorflow as tf

        tf.config.list_physical_devices()
    tf.get_logger().setLevel("ERROR")  # a recipe traces a function for each network
