"""All networks of output directories, by name, and who taught them. Nothing imports TensorFlow."""

import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kdtoolkit import files
from kdtoolkit.methods import ways
from kdtoolkit.recipes import _command
from kdtoolkit.recipes._command import UsageError
from kdtoolkit.training import record


@dataclass(frozen=True)
class Found:
    """A network that was found.

    Attributes:
        name: unlike that of all others.
        path: of its `.keras` file.
        sha256: of that file.
        teacher: name of the network that taught it, where that was found too.
        weight: lambda of Eqn 4 of Yang et al. (AAAI 2019), where that is all that taught it.
        given_as: of a file that a run was given, the pixel values that it was said to take there:
            of `INPUTS`; None of all others.
    """

    name: str
    path: Path
    sha256: str
    teacher: str | None = None
    weight: float | None = None
    given_as: str | None = None


class _Part(NamedTuple):
    """A network of a run: where it is below the directory, or the file itself; as `Found`."""

    name: str
    path: Path | None = None
    teacher: str | None = None
    weight: float | None = None
    given_as: str | None = None


def find(paths: Sequence[str], argument: str) -> list[Found]:
    """Returns the networks of files and of finished recipes' directories, in their order.

    Those are all generations of `born_again`, the networks of `self_distillation`, the students of
    `distill` and their teacher, and the network of `compress`. They are named by where they are in
    the directory and, of several, by where that is.

    Args:
        paths: `.keras` files and directories.
        argument: what the command line calls them.

    Raises:
        UsageError: one is neither, or is named twice; or a directory is not that of a finished run
            whose files are as it left them.
    """
    places = [os.path.abspath(os.path.expanduser(path)) for path in paths]
    if len(set(places)) < len(places):
        twice = next(path for path, at in zip(paths, places, strict=True) if places.count(at) > 1)
        raise UsageError(f"{argument} must be different. Received: {twice} twice")
    above = os.path.commonpath([os.path.dirname(place) for place in places]) if places else ""
    found: list[Found] = []
    for path, place in zip(paths, places, strict=True):
        prefix = os.path.relpath(place, above)
        if os.path.isfile(place) and zipfile.is_zipfile(place):
            name = prefix.removesuffix(".keras")
            found.append(Found(name, Path(place), files.sha256(place)))
        elif os.path.isdir(place):
            found += _of_run(Path(place), prefix if len(places) > 1 else "", path, argument)
        else:
            raise UsageError(
                f"{argument} must be a .keras file or a recipe's output directory. Received: {path}"
            )
    return found


def _of_run(directory: Path, prefix: str, path: str, argument: str) -> list[Found]:
    def full(name: str) -> str:
        return f"{prefix}/{name}" if prefix else name

    try:
        results = files.read_record(directory / record.RESULTS)
        if results["recipe"] not in _PARTS:
            raise ValueError(f"it is that of {results['recipe']}")
        parts = list(_PARTS[results["recipe"]](directory, results))
        for part in parts:
            if part.path is None:
                record.read(directory / part.name, {"name": part.name})
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UsageError(
            f"{argument}: {path} is not the output directory of a finished "
            f"{', '.join(_PARTS)} ({type(error).__name__}: {error}). "
            f"A {record.NETWORK} can be named itself"
        ) from error
    return [
        Found(
            full(part.name),
            network := part.path or directory / part.name / record.NETWORK,
            files.sha256(network),
            None if part.teacher is None else full(part.teacher),
            part.weight,
            part.given_as,
        )
        for part in parts
    ]


def _generations(directory: Path, results: Mapping) -> Iterator[_Part]:
    weights = _weights(_command.read_flags(directory), len(results["generations"]) - 1)
    teacher: str | None = None
    for row, weight in zip(results["generations"], [None, *weights], strict=True):
        name = f"generation_{row['generation']}"
        yield _Part(name, None, teacher, weight)
        teacher = name


def _weights(flags: Mapping[str, str], students: int) -> list[float | None]:
    """Lambda of each student, of the flags of `born_again`; None where more than Eqn 4 taught."""
    plain = flags.get("methods") == "kd" and flags.get("kd_labels", "None") == "None"
    if not plain or any(float(t) != 1 for t in flags.get("kd_temperature", "1").split(",")):
        return [None] * students
    weights = [float(weight) for weight in flags.get("kd_weight", "0.6").split(",")]
    return list(weights * students if len(weights) == 1 else weights)


def _exits(directory: Path, results: Mapping) -> Iterator[_Part]:
    return (_Part(row["method"]) for row in results["exits"])


def _students(directory: Path, results: Mapping) -> Iterator[_Part]:
    teacher: str | None = None
    note = directory / "teacher.json"
    if (directory / "teacher" / record.RESULTS).exists():
        teacher = "teacher"
        yield _Part(teacher)
    elif note.exists():  # of a teacher that the run was given; used where it still is that one
        known = files.read_json(note)
        path = Path(known["path"])
        if path.is_file() and files.sha256(path) == known["sha256"]:
            teacher = "teacher"
            given_as = _command.read_flags(directory).get("teacher_input", "auto")
            yield _Part(teacher, path, given_as=given_as)
    for row in results["methods"]:
        taught = row["method"].partition("+")[0] not in ways.NAMES
        yield _Part(f"{row['method']}/seed_{row['seed']}", None, teacher if taught else None)


def _compressed(directory: Path, results: Mapping) -> Iterator[_Part]:
    if results["network"] is None:
        raise ValueError("it trained no network")
    yield _Part(results["network"])


_PARTS: Mapping[str, Callable[[Path, Mapping], Iterator[_Part]]] = {
    "born_again": _generations,
    "self_distillation": _exits,
    "distill": _students,
    "compress": _compressed,
}
