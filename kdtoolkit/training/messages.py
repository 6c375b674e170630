"""What workers send each other, as bytes that cannot make the receiver run anything."""

import io
import json
from typing import Any

import numpy as np

from kdtoolkit._checks import ArgumentError, Words

_ARRAY, _BYTES = "array in the archive", "bytes in the archive"


def encode(value) -> bytes:
    """Returns a value as bytes, an `.npz` archive.

    Args:
        value: of None, booleans, numbers, strings, bytes, arrays of numbers, and of lists, tuples
            and dicts (with strings as keys) of such.

    Raises:
        TypeError: it holds something else.
    """
    arrays: dict[str, Any] = {}

    def keep(item):
        kind = _BYTES if isinstance(item, bytes) else _ARRAY
        if kind == _BYTES:
            item = np.frombuffer(item, np.uint8)
        if not isinstance(item, np.ndarray | np.generic) or item.dtype.kind not in "biufc":
            raise TypeError(
                "Argument `value` must be of JSON's types, bytes and arrays of numbers. "
                f"Received: {type(item).__name__}"
            )
        name = str(len(arrays))
        arrays[name] = item
        return {kind: name}

    text = json.dumps(value, default=keep)
    stream = io.BytesIO()
    np.savez(stream, value=np.frombuffer(text.encode(), np.uint8), **arrays)
    return stream.getvalue()


def decode(content: bytes):
    """Returns the value that `encode` was given; tuples are lists.

    Raises:
        ValueError: the bytes are none that `encode` returns.
    """

    def load(archive):
        def restore(item):
            if item.keys() == {_ARRAY}:
                return archive[item[_ARRAY]]
            return archive[item[_BYTES]].tobytes() if item.keys() == {_BYTES} else item

        return json.loads(archive["value"].tobytes(), object_hook=restore)

    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return load(archive)
    except Exception as error:  # Whatever a damaged archive raises.
        raise ArgumentError("content", "of `encode`", Words("other bytes"), str(error)) from error
