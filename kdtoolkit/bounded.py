"""Reading files that come from anywhere: regular ones alone, and no more than was agreed."""

import errno
import os
import stat


def check_regular(path: str | os.PathLike) -> None:
    """Checks that opening a path neither waits for somebody nor reads without end.

    Directories pass: opening one is an error of its own.

    Raises:
        OSError: there is no such file, or it is a FIFO, a device or a socket.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "Not a regular file", os.fspath(path))
