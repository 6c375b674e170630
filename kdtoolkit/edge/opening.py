"""Opens a `.tflite` file that anybody may have given: what is wrong with it is one line."""

import contextlib
import math
import os
from collections.abc import Iterator

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from kdtoolkit import bounded
from kdtoolkit.data.wording import shown

_LARGE = 2**31
"""Bytes that a graph's tensors may have together, however small its file is.

All are counted, though LiteRT lets many of them share their memory: it says no more before it
allocates. A ResNet-50 for images of 224x224 has 1.1 GB of them, and a file of 102 MB.
"""


@contextlib.contextmanager
def blaming(path: str | os.PathLike) -> Iterator[None]:
    """Turns what goes wrong with a file, in this block, into a `ValueError` that names it."""
    try:
        yield
    # LiteRT raises RuntimeError for a graph that this version of it cannot run.
    except (OSError, ValueError, RuntimeError) as error:
        cause = shown(getattr(error, "strerror", None) or str(error).partition("\n")[0], 400)
        raise ValueError(f"Cannot use {os.fspath(path)!r} as a classifier: {cause}") from error


def open_interpreter(path: str | os.PathLike, threads: int) -> tuple[Interpreter, int]:
    """Returns LiteRT's interpreter of a file, with nothing allocated, and its tensors' bytes.

    Raises:
        ValueError: these are too many.
        RuntimeError, OSError: LiteRT cannot read the file.
    """
    interpreter = Interpreter(model_path=os.fspath(path), num_threads=threads)
    size = sum(map(_bytes, _tensors(interpreter)))
    most = max(_LARGE, bounded.MOST_EXPANSION * os.path.getsize(path))
    if size > most:
        raise ValueError(
            f"its tensors have {size:,} bytes together. Accepted: {most:,}, the larger "
            f"of {_LARGE:,} and {bounded.MOST_EXPANSION} times the size of the file"
        )
    return interpreter, size


def _tensors(interpreter):
    """Details of the tensors of all graphs."""
    for subgraph in range(interpreter.num_subgraphs()):
        yield from interpreter.get_tensor_details(subgraph)


def _bytes(tensor):
    return math.prod(map(int, tensor["shape"])) * np.dtype(tensor["dtype"]).itemsize
