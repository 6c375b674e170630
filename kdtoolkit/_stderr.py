"""Silence for native code, which writes to the file descriptor, past Python's `sys.stderr`."""

import contextlib
import os
import sys
import tempfile


@contextlib.contextmanager
def held_back():
    """Holds back what is written to standard error; shows it after all if the block fails.

    Yields:
        A stream to where standard error leads otherwise.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            with os.fdopen(kept, "w", closefd=False) as shown:
                yield shown
        except Exception:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
