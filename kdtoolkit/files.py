"""Files that are either whole or absent, in directories that one process at a time writes to."""

import contextlib
import contextvars
import errno
import hashlib
import json
import os
import shutil
import time
import types
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from kdtoolkit import bounded

try:
    import fcntl
except ImportError:  # of Unix alone
    fcntl = None  # type: ignore[assignment]

_SCRATCH = ".partial-"
_LOCK = ".lock"
_LOOKING = 2.0  # Seconds, far more than a look takes.
_REPLACED = 100  # Times that a lock file may be another one once it is locked.
_CANNOT_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
# What network file systems, and directories whose names may not be listed, answer besides.
_CANNOT_SYNC_NAMES = {
    *_CANNOT_SYNC,
    errno.EACCES,
    errno.EBADF,
    errno.EISDIR,
    errno.EPERM,
    errno.EROFS,
}
# It is absent, no file, or on a bad sector.
_FAULTS = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL, errno.EIO}
# Directory -> its lock file, of those that this thread holds.
_held: contextvars.ContextVar[Mapping[Path, os.stat_result]] = contextvars.ContextVar(
    "held", default=types.MappingProxyType({})
)


class InUseError(ValueError):
    """Another process, or another thread of this one, holds the directory."""


class LostDirectoryError(OSError):
    """A directory was removed or replaced while this process held it."""


@contextlib.contextmanager
def locked(directory: str | os.PathLike, wait: bool = False) -> Iterator[None]:
    """Holds a directory against other processes and threads; a process that ends lets go.

    Whoever holds it may hold it again. What it then writes below, with the functions of this
    module, goes to that very directory, or is a `LostDirectoryError`. Where the file system cannot
    lock, a warning says so and nobody is held off.

    Args:
        directory: an existing one; its file `.lock` is locked, and stays there.
        wait: until it is free.

    Raises:
        InUseError: it is held, and `wait` is not set.
    """
    directory = Path(directory).resolve()
    if directory in _held.get():
        yield
        return
    with _locked_file(directory, wait) as stream:
        token = _held.set({**_held.get(), directory: os.fstat(stream.fileno())})
        try:
            yield
        finally:
            _held.reset(token)


def in_use(directory: str | os.PathLike) -> bool:
    """Whether another process, or another thread, holds the directory; writes nothing."""
    directory = Path(directory).resolve()
    if directory in _held.get():
        return False
    try:
        bounded.check_regular(directory / _LOCK)
        stream = open(directory / _LOCK, "rb")  # noqa: SIM115 - closed below
    except (FileNotFoundError, NotADirectoryError):
        return False
    with stream:
        try:
            _flock(stream, "LOCK_SH")
        except BlockingIOError:
            return True
        except OSError:  # a file system that cannot lock
            return False
    return False


def _locked_file(directory, wait):
    """Opens a directory's lock file, locked where that can be: the file that is there by then."""
    path = directory / _LOCK
    for _ in range(_REPLACED):
        with contextlib.ExitStack() as closing:
            with contextlib.suppress(FileNotFoundError):
                bounded.check_regular(path)
            stream = closing.enter_context(open(path, "ab"))
            try:
                _wait_for_lookers(directory, stream, wait)
            except BlockingIOError as error:
                raise InUseError(
                    f"{directory} is in use: another process, or thread, holds its {_LOCK}"
                ) from error
            except OSError as error:
                warnings.warn(
                    f"{directory} cannot be locked ({error.strerror}): nothing holds off a second "
                    "process that writes to it",
                    stacklevel=4,
                )
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(stream.fileno()), os.stat(path)):
                    closing.pop_all()
                    return stream
    raise LostDirectoryError(f"{path} is removed or replaced again and again")


def _wait_for_lookers(directory, stream, wait):
    """Locks a file; who looks with `in_use` holds it too, for a moment, and is no holder."""
    deadline = time.monotonic() + _LOOKING
    while True:
        try:
            return _flock(stream, "LOCK_EX", wait)
        except BlockingIOError:
            if in_use(directory) or time.monotonic() > deadline:
                raise
            time.sleep(0.001)


def _flock(stream, kind, wait=False):
    if fcntl is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    fcntl.flock(stream, getattr(fcntl, kind) | (0 if wait else fcntl.LOCK_NB))


def make_directory(directory: str | os.PathLike) -> None:
    """Creates a directory and its parents where they are not there."""
    directory = Path(directory)
    _check_held(directory)
    if not directory.is_dir():
        make_directory(directory.parent)
        directory.mkdir(exist_ok=True)
        _sync(directory.parent)


class DamagedFileError(ValueError):
    """A file of ours does not hold what was written to it; the message names the file."""


class OtherRunError(ValueError):
    """A directory holds a run of other arguments than those that it was given with."""


def write_atomically(path: str | os.PathLike, write: Callable[[Path], object]) -> None:
    """Calls `write(scratch)` and moves what it left, file or directory, to `path`.

    The scratch path lies in the same directory and keeps the suffix of `path`, which savers look
    at. If `write` fails nothing is left behind and an older `path` stays as it was. On return
    `path` is on the disk: it outlasts a loss of power, as does all that was written before it.
    """
    path = Path(path)
    _check_held(path)
    scratch = path.with_name(f"{_SCRATCH}{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        write(scratch)
        for part in [scratch, *scratch.rglob("*")]:
            _sync(part)
        if scratch.is_dir() and path.is_dir():
            shutil.rmtree(path)
        os.replace(scratch, path)
        _sync(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # of a full disk
            error.filename = os.fspath(path)
        raise
    finally:
        remove(scratch)


def write_json(path: str | os.PathLike, value) -> None:
    """Writes `value` as indented JSON, atomically."""
    text = _json(value)
    write_atomically(path, lambda scratch: scratch.write_text(text))


def read_json(path: str | os.PathLike) -> dict:
    """Reads a JSON object that `write_json` wrote.

    Raises:
        OSError: the file cannot be read.
        DamagedFileError: it holds something else.
    """
    return _object(path, read_bytes(path))


def write_record(path: str | os.PathLike, value: dict) -> None:
    """Writes a dict as `write_json` does, and after it its checksum, which `read_record` verifies.

    The checksum, `sha256`, is that of the file without it.
    """
    text = _record(value)
    write_atomically(path, lambda scratch: scratch.write_text(text))


def read_record(path: str | os.PathLike) -> dict:
    """Returns the dict of a file of `write_record`, every byte of which is as it was written.

    Raises:
        OSError: the file cannot be read.
        DamagedFileError: it holds something else, or has no checksum.
    """
    content = read_bytes(path)
    value = _object(path, content)
    if value.pop("sha256", None) is None:
        raise DamagedFileError(
            f"{path} is damaged: it has no checksum, or an older version wrote it"
        )
    try:
        same = _record(value).encode() == content
    except ValueError:  # NaN, which no record holds
        same = False
    if not same:
        raise DamagedFileError(f"{path} is damaged: it does not match its checksum")
    return value


def read_bytes(path: str | os.PathLike) -> bytes:
    """Returns a file's content; what is no file is an `OSError`, and not waited for."""
    bounded.check_regular(path)
    return Path(path).read_bytes()


def sha256(path: str | os.PathLike) -> str:
    """Returns the SHA-256 of a file's content, in hexadecimal."""
    bounded.check_regular(path)
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_damage(error: Exception) -> bool:
    """Whether what came of reading a file is the file's fault, so that it may be set aside.

    A missing permission, too many open files or a server that does not answer are not: the file
    may be whole.
    """
    return not isinstance(error, OSError) or error.errno in _FAULTS


def remove(path: Path) -> None:
    """Removes a file, a link or a directory if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def contents(directory: str | os.PathLike) -> list[Path]:
    """Returns what a directory holds, but for its lock and what is half-written."""
    return [
        path
        for path in Path(directory).iterdir()
        if path.name != _LOCK and not path.name.startswith(_SCRATCH)
    ]


def clear_scratch(directory: str | os.PathLike) -> None:
    """Removes what a killed process left half-written below `directory`, which this one holds.

    What lies below a directory that another process holds is that one's, and stays.
    """
    for parent, names, others in os.walk(os.fspath(directory)):
        if in_use(parent):
            names.clear()
            continue
        for name in [*names, *others]:
            if name.startswith(_SCRATCH):
                remove(Path(parent, name))
        names[:] = [name for name in names if not name.startswith(_SCRATCH)]


def set_aside(path: Path) -> Path:
    """Renames a damaged file, so that it is neither used nor lost; returns the new path."""
    aside = path.with_name(path.name + ".damaged")
    remove(aside)
    os.replace(path, aside)
    return aside


def _object(path, content):
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise DamagedFileError(f"{path} is damaged: it holds no JSON object")
    return value


def _json(value):
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def _record(value):
    return _json({**value, "sha256": hashlib.sha256(_json(value).encode()).hexdigest()})


def _check_held(path):
    """Raises a `LostDirectoryError` if a held directory above `path` is no longer the same."""
    path = Path(os.path.realpath(path))  # `resolve` raises an error of its own for a loop of links
    for directory, lock in _held.get().items():
        if not path.is_relative_to(directory):
            continue
        try:
            same = os.path.samestat(lock, os.stat(directory / _LOCK))
        except (FileNotFoundError, NotADirectoryError):
            same = False
        if not same:
            raise LostDirectoryError(
                f"{directory}, or its {_LOCK}, was removed or replaced while it was written to"
            )


def _sync(path):
    """Writes a file, or the names in a directory, to the disk, where the file system can."""
    cannot = _CANNOT_SYNC_NAMES if os.path.isdir(path) else _CANNOT_SYNC
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in cannot:
            raise
