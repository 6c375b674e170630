"""What must hold of every input: it is refused as the documents say, or the result is right."""

import contextlib
import io
import traceback
import warnings

_LONGEST = 4000  # characters of a message that somebody is to read


class Finding(AssertionError):
    """Something that must not happen."""


def require(holds, what):
    if not holds:
        raise Finding(what)


def one_line(text, what, own=0):
    """A message that a person can read: one line, neither empty nor endless.

    Args:
        text: the message.
        what: it is.
        own: characters of the reader's own, which it may repeat.
    """
    lines = text.splitlines()
    require(len(lines) == 1 and lines[0].strip(), f"{what} has {len(lines)} lines: {text[:500]!r}")
    longest = _LONGEST + 4 * own
    require(len(text) <= longest, f"{what} has {len(text)} characters: {text[:200]!r}...")


def refused(error, path):
    """A library's refusal: a message of one line that names the file."""
    one_line(str(error), f"the message of the {type(error).__name__}")
    require(str(path) in str(error), f"the message does not name {path}: {error}")
    return "refused"


def command(main, arguments, silent=True):
    """Runs a command in this process.

    Args:
        main: the command: arguments -> status.
        arguments: of the command line.
        silent: whether it says nothing before it fails; otherwise its last line is the reason.

    Returns:
        `(status, standard output, lines of standard error)`.
    """
    output, error = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(error),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("always")
        for ignored in (ResourceWarning, DeprecationWarning, PendingDeprecationWarning):
            warnings.simplefilter("ignore", ignored)  # as Python does by itself
        try:
            status = main(arguments)
        except SystemExit as stopped:  # argparse's own way to end
            status = stopped.code
    output, error = output.getvalue(), error.getvalue()
    require(status in (0, 1, 2), f"exit status {status!r}: {error[-1000:]}")
    require("Traceback" not in error, error)
    if status:
        message = error if silent else error.rpartition("\n")[0].rpartition("\n")[2]
        one_line(message, f"standard error at status {status}", sum(map(len, arguments)))
    return status, output, error.splitlines()


def described(error):
    """An exception as the report shows it: what it is, and where it came from."""
    if isinstance(error, Finding):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    places = " < ".join(f"{f.filename.rpartition('/')[2]}:{f.lineno}" for f in frames[:-5:-1])
    return f"{type(error).__name__}: {str(error)[:300]} ({places})"
