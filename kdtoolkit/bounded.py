"""Reading files that come from anywhere: regular ones alone, and no more than was agreed."""

import errno
import os
import stat
import zipfile

MOST_EXPANSION = 400
SMALL = 2**26
"""Bytes that a zip's members may have together, however small the zip is."""


def check_regular(path: str | os.PathLike) -> None:
    """Checks that opening a path neither waits for somebody nor reads without end.

    Directories pass: opening one is an error of its own.

    Raises:
        OSError: there is no such file, or it is a FIFO, a device or a socket.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "Not a regular file", os.fspath(path))


def check_expansion(archive: zipfile.ZipFile, most: int = MOST_EXPANSION) -> None:
    """Checks, before anything is read, that a zip's members are not out of all proportion to it.

    Deflate makes at most 1,032 bytes of one. Images and weights, even drawings of two colours or
    pruned networks, stay far below `MOST_EXPANSION`.

    Args:
        archive: opened from a path.
        most: bytes of all members for each byte of the file; a total of `SMALL` always passes.

    Raises:
        zipfile.BadZipFile: they claim to be larger. What claims to be smaller than it is fails when
            it is read, for `zipfile` stops at the claim.
    """
    size = os.fstat(archive.fp.fileno()).st_size  # type: ignore[union-attr]  # it is open
    claimed = sum(member.file_size for member in archive.infolist())
    if claimed > max(SMALL, most * size):
        raise zipfile.BadZipFile(
            f"its {size:,} bytes expand to {claimed:,}, more than {most} times as many"
        )


def read_member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """Reads a member of a zip that may have `most` bytes, whatever it claims.

    Raises:
        ValueError: it has more.
        KeyError: there is no such member.
    """
    with archive.open(name) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"its {name} has more than {most:,} bytes")
    return content
