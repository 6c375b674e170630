"""What a line of progress is made of, and one for things that are counted."""

import sys
import time
from collections.abc import Iterable, Iterator

_QUIET, _INTERVAL = 1.0, 0.1  # seconds before the first line, and between two


def bar(fraction: float) -> str:
    """Draws a fraction as text."""
    return f"[{('#' * int(20 * fraction)).ljust(20, '.')}]"


def clock(seconds: float) -> str:
    """Seconds as `m:ss` or `h:mm:ss`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def counted(items: Iterable, total: int, title: str, stream=None) -> Iterator:
    """Yields the items, with a line of progress on a terminal if that takes more than a second.

    The line is rewritten, and removed in the end.

    Args:
        items: of which there are `total`.
        title: what is done to them.
        stream: where to write; standard error by default.
    """
    stream = stream or sys.stderr
    if not stream.isatty():
        yield from items
        return
    start = time.monotonic()
    due = start + _QUIET
    try:
        for done, item in enumerate(items, start=1):
            yield item
            now = time.monotonic()
            if now >= due:
                left = clock((now - start) / done * (total - done))
                line = f"{title}  {done:,}/{total:,} {bar(done / total)}  {left} left"
                stream.write(f"\r\x1b[K{line}")
                stream.flush()
                due = now + _INTERVAL
    finally:
        if due > start + _QUIET:
            stream.write("\r\x1b[K")
            stream.flush()
