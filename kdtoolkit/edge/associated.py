"""The files that travel inside a `.tflite`: a zip behind the flatbuffer, which LiteRT passes over.

The `.tflite` ecosystem calls them associated files; `zipfile` and `unzip` open them in place.
"""

import contextlib
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from typing import IO

from kdtoolkit import bounded
from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit.data.wording import is_line

LABELS = "labels.txt"
"""One class name a line, in the order of the classes."""

_LARGEST = 1 << 22  # bytes of an associated file: a hundred thousand labels need half


def append(path: str | os.PathLike, contents: Mapping[str, str]) -> None:
    """Writes files, name -> text, behind the flatbuffer at `path`, which has none yet.

    They are stored as they are, not deflated: MediaPipe reads no others.
    """
    with zipfile.ZipFile(path, "a") as archive:
        for name, text in contents.items():
            # A ZipInfo has a constant date: the same texts make the same bytes.
            archive.writestr(zipfile.ZipInfo(name), text)


@contextlib.contextmanager
def opened(file: IO[bytes], needed: str) -> Iterator[zipfile.ZipFile]:
    """Opens the zip of a file, to be read in this block.

    Args:
        file: the `.tflite`, open.
        needed: what is read of it, for the message.

    Raises:
        ValueError: the zip, or what is read of it in this block, is absent or damaged.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except Exception as error:  # Whatever zipfile, zlib and json raise for damaged bytes.
        cause = str(error) or type(error).__name__
        raise ValueError(f"it carries no readable {needed}, or is cut short: {cause}") from error


def read(archive: zipfile.ZipFile, name: str) -> bytes:
    """Reads a file of the zip.

    Raises:
        ValueError: it is too large.
        KeyError: there is no such file.
    """
    return bounded.read_member(archive, name, _LARGEST)


def read_labels(archive: zipfile.ZipFile, name: str = LABELS) -> tuple[str, ...]:
    """Reads the class names of the zip; errors are those of `read`."""
    return tuple(read(archive, name).decode().removesuffix("\n").split("\n"))


def labels_text(labels: Iterable[str]) -> str:
    """Returns the contents of `labels.txt`."""
    return "".join(f"{label}\n" for label in labels)


def check_labels(labels: tuple[str, ...]) -> None:
    """Raises an `ArgumentError` unless these are class names that `labels.txt` can hold."""
    if len(labels) < 2 or not all(map(is_line, labels)):
        accepted = "at least two names, each one line of UTF-8 text"
        raise ArgumentError("labels", accepted, Words(str(labels)[:200]))
