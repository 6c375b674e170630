"""Files that are either whole or absent."""

import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

_SCRATCH = ".partial-"


class DamagedFileError(ValueError):
    """A file of ours does not hold what was written to it; the message names the file."""


def write_atomically(path: str | os.PathLike, write: Callable[[Path], None]) -> None:
    """Calls `write(scratch)` and moves what it left, file or directory, to `path`.

    The scratch path lies in the same directory and keeps the suffix of `path`, which savers look
    at. If `write` fails nothing is left behind and an older `path` stays as it was.
    """
    path = Path(path)
    scratch = path.with_name(f"{_SCRATCH}{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        write(scratch)
        for file in [scratch] if scratch.is_file() else scratch.rglob("*"):
            if file.is_file():
                with open(file, "rb") as stream:
                    os.fsync(stream.fileno())
        if scratch.is_dir() and path.is_dir():
            shutil.rmtree(path)
        os.replace(scratch, path)
    finally:
        remove(scratch)


def write_json(path: str | os.PathLike, value) -> None:
    """Writes `value` as indented JSON, atomically."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda scratch: scratch.write_text(text))


def read_json(path: str | os.PathLike) -> dict:
    """Reads a JSON object that `write_json` wrote.

    Raises:
        OSError: the file cannot be read.
        DamagedFileError: it holds something else.
    """
    content = Path(path).read_bytes()
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise DamagedFileError(f"{path} is damaged: it holds no JSON object")
    return value


def remove(path: Path) -> None:
    """Removes a file or a directory if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def contents(directory: str | os.PathLike) -> list[Path]:
    """Returns what a directory holds, but for what a killed process left half-written."""
    return [path for path in Path(directory).iterdir() if not path.name.startswith(_SCRATCH)]


def clear_scratch(directory: str | os.PathLike) -> None:
    """Removes what a killed process left half-written below `directory`."""
    for path in list(Path(directory).rglob(f"{_SCRATCH}*")):
        remove(path)


def set_aside(path: Path) -> Path:
    """Renames a damaged file, so that it is neither used nor lost; returns the new path."""
    aside = path.with_name(path.name + ".damaged")
    os.replace(path, aside)
    return aside
