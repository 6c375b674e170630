"""What every command line makes of an error that it did not foresee itself.

*Expected* is what the machine or a person does to a command that is right: a full disk, a missing
permission, too little memory, a damaged file of ours, Ctrl-C, SIGTERM, a reader of the output who
leaves. It is one line and an exit status. Anything else is a mistake of this package: it keeps its
traceback, so that it can be reported. What is wrong with the flags of a command, or with the data
that it is given, each command says for itself.

Imports are few: from here on an interruption is a line as well.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable

NOBODY_READS = 141  # as shells count: 128 and the number of the signal, SIGPIPE
_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


def guarded(name: str, call: Callable[[], int], advice: str = "") -> int:
    """Runs a command, and turns what can be expected into one line on standard error.

    Args:
        name: of the command, which begins the line.
        call: runs it and returns its exit status.
        advice: ends the line after Ctrl-C and SIGTERM.

    Returns:
        The exit status: 1 for an error, 130 after Ctrl-C, 143 after SIGTERM, 141 where nobody reads
        standard output or standard error any more.

    Raises:
        Exception: a mistake of this package.
    """
    _replace_closed_streams()
    received = []

    def stop(number, frame):
        received.append(number)
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    with _handling(stop):
        try:
            try:
                return call()
            finally:
                sys.stdout.flush()  # here, where an error can still be handled
        except (Exception, KeyboardInterrupt) as error:
            for number in _WORDS:  # who presses Ctrl-C twice is told once
                _handle(number, signal.SIG_IGN)
            # A pipe or a socket of the command's own may break as well.
            unread = [stream for stream in (sys.stdout, sys.stderr) if _is_unread(stream)]
            if isinstance(error, BrokenPipeError) and unread:
                for stream in unread:  # The interpreter flushes once more when it ends.
                    with contextlib.suppress(OSError, ValueError):
                        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
                return NOBODY_READS
            # Libraries turn an interruption in the middle of their own work into other errors.
            if received or isinstance(error, KeyboardInterrupt):
                number = received[0] if received else signal.SIGINT
                return fail(name, _WORDS[number] + advice, 128 + number)
            reason = _reason(error)
            if reason is None:
                raise
            return fail(name, reason, 1)


def fail(name: str, message: object, status: int, stream=None) -> int:
    """Says something in one line on standard error, above all why a command ends.

    Args:
        name: of the command.
        message: what is said.
        status: is returned.
        stream: takes the line in place of standard error.
    """
    line = f"{name}: {' '.join(str(message).split())}"
    with contextlib.suppress(OSError):
        print(line, file=stream or sys.stderr, flush=True)
    return status


def begin() -> None:
    """Makes an interruption one line before there is a command: while its modules are imported."""
    for number in _WORDS:
        _handle(number, _ending())


def ending_at_once(stream):
    """Context in which Ctrl-C and SIGTERM end the process: imports would distort an exception.

    Args:
        stream: takes the line, in place of a standard error that is held back.
    """
    return _handling(_ending(stream))


def _ending(stream=None):
    def end(number, frame):
        os._exit(fail("kdtoolkit", _WORDS[number], 128 + number, stream))

    return end


@contextlib.contextmanager
def _handling(handler):
    previous = {number: _handle(number, handler) for number in _WORDS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            if handler is not None:
                signal.signal(number, handler)


def _handle(number, handler):
    """Sets a handler and returns the one before; None where nothing may be set."""
    with contextlib.suppress(ValueError):  # not the main thread
        if signal.getsignal(number) not in (signal.SIG_IGN, None):  # as of a job in the background
            return signal.signal(number, handler)
    return None


def _reason(error):
    """What happened to a command, in words; None for a mistake of this package."""
    from kdtoolkit.files import DamagedFileError, OtherRunError

    if isinstance(error, MemoryError):
        return f"out of memory. {error}"
    if isinstance(error, (DamagedFileError, OtherRunError)):
        return error
    if isinstance(error, OSError):
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return f"{' -> '.join(names)}: {error.strerror}" if names else error.strerror or error
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow and isinstance(error, tensorflow.errors.OpError):
        message = error.message.rpartition("}} ")[2].partition("\n")[0].partition(" [Op:")[0]
        kinds = tensorflow.errors.ResourceExhaustedError, tensorflow.errors.PermissionDeniedError
        if isinstance(error, kinds) or os.strerror(2) in message:
            return message
    return None


def _is_unread(stream):
    """Whether a stream is a pipe or a socket that nobody holds the other end of any more."""
    import select

    # Where it is no file, or closed; and on Windows, which has no `poll`.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
    return False


def _replace_closed_streams():
    """Where a standard stream was closed, its number would be that of the next file opened."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
