"""One function of many things, such as the files of a folder, on all cores."""

from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

from kdtoolkit._machine import cores

_SUBMITTED = 1024


def in_threads(function: Callable[[Any], Any], items: Sequence) -> Iterator[Any]:
    """Yields `function(item)` of each item, in order.

    Few are submitted at a time, however many there are: each takes 2 kB until it is due. Where the
    iterator is closed early the others are not called.

    Args:
        function: called from several threads.
        items: a sequence that can be sliced.
    """
    with futures.ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(items), _SUBMITTED):
            yield from pool.map(function, items[start : start + _SUBMITTED])
