"""Named tensors from the files that PyTorch code bases keep them in.

NumPy is all that is needed. Files come from anywhere: sizes and offsets are checked before they are
used, and what a pickle may call is a list of two.
"""

import collections
import io
import json
import math
import pickle
import reprlib
import zipfile
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from kdtoolkit import bounded
from kdtoolkit._checks import ArgumentError
from kdtoolkit.data.wording import shown

# Keys under which training code keeps the state dict beside an epoch, an optimizer, a score.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net")

_BFLOAT16 = "bfloat16"  # NumPy has no such type; the others are NumPy's names
_SAFETENSORS_KINDS = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": _BFLOAT16,
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U8": "|u1",
    "BOOL": "|b1",
}
_STORAGE_KINDS = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": _BFLOAT16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}
_MOST_AXES = 64  # as in NumPy
_MOST_SHARED = 8
_LONGEST = 400  # characters of a reason
# Opcodes that hash what they are given, or make as much as they claim.
_REFUSED = b"".join([pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET, pickle.BYTEARRAY8])
_KEYS = (str, int, float, bool, type(None))
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def read(path):
    """Reads the tensors of a file, by name.

    Args:
        path: ends in `.safetensors`, `.npz`, or, written by `torch.save`, `.pth`, `.pt`,
            `.pth.tar` or `.bin`. The latter may hold the tensors under one of `WRAPPERS`.

    Returns:
        A dict of arrays. bfloat16 becomes float32, other types stay.

    Raises:
        ValueError: another ending; a file that is absent, damaged or of another kind, or, by
            `torch.save`, holds anything but tensors, numbers, text and containers of them.
    """
    path = Path(path)
    reader = next((r for ending, r in _READERS.items() if path.name.lower().endswith(ending)), None)
    if reader is None:
        raise ArgumentError("path", f"in {', '.join(_READERS)}", str(path), must="end")
    try:
        bounded.check_regular(path)
        return reader(path)
    except Exception as error:  # Whatever a damaged archive or pickle raises.
        reason = shown(str(error).strip().partition("\n")[0], _LONGEST)
        if not isinstance(error, ValueError):
            reason = f"{type(error).__name__}: {reason}"
        raise ValueError(f"{str(path)!r} cannot be read: {reason}") from error


def _read_safetensors(path):
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > len(content) - 8:
        raise ValueError("the file ends within its header")
    data = memoryview(content)[8 + length :]
    header = json.loads(content[8 : 8 + length], object_pairs_hook=_without_repeats)
    if not isinstance(header, dict):
        raise ValueError("the header is no object")
    header.pop("__metadata__", None)
    tensors, end = {}, 0
    # The format allows neither gaps nor overlaps, so that each byte is one tensor's.
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        kind = _SAFETENSORS_KINDS.get(entry["dtype"])
        if kind is None:
            raise ValueError(f"tensor {name!r} has the unsupported dtype {entry['dtype']!r}")
        shape = _sizes(entry["shape"])
        start, stop = _sizes(entry["data_offsets"])
        if start != end or stop - start != math.prod(shape) * _itemsize(kind):
            raise ValueError(f"tensor {name!r} has offsets that do not match its shape")
        if stop > len(data):
            raise ValueError(f"the file ends within tensor {name!r}")
        tensors[name], end = _decode(data[start:stop], kind).reshape(shape), stop
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes belong to no tensor")
    return tensors


def _without_repeats(pairs):
    if len(dict(pairs)) != len(pairs):
        raise ValueError("the header repeats a name")
    return dict(pairs)


def _read_npz(path):
    with zipfile.ZipFile(path) as archive:
        bounded.check_expansion(archive)
    with np.load(path, allow_pickle=False) as arrays:
        tensors = {name: arrays[name] for name in arrays.files}
    for name, tensor in tensors.items():
        if not isinstance(tensor, np.ndarray):  # NumPy gives the bytes of other files as they are
            raise ValueError(f"its member {name!r} is no array")
    return tensors


class _Storage(NamedTuple):
    kind: str
    key: str
    count: int  # type: ignore[assignment]  # a method of tuples, unused


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: list
    strides: list


def _read_torch(path):
    if not zipfile.is_zipfile(path):
        return _read_torch_legacy(path)
    with zipfile.ZipFile(path) as archive:
        bounded.check_expansion(archive, most=1)  # torch.save never compresses
        index = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if index is None:
            raise ValueError("it was not written by torch.save")
        root = index.removesuffix("data.pkl")
        if root + "byteorder" in archive.namelist():
            _check_byte_order(_stored(archive, root + "byteorder") == b"little")
        state = _state_dict(_Unpickler(io.BytesIO(_stored(archive, index))).load())
        content = {
            key: _stored(archive, f"{root}data/{key}")
            for key in {tensor.storage.key for tensor in state.values()}
        }
    return _arrays(state, content)


def _stored(archive, name):
    # A compressed record that claims less than it has would still be decompressed whole.
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"record {name!r} is compressed")
    return archive.read(name)


def _read_torch_legacy(path):
    """Before PyTorch 1.6: five pickles and the storages one after the other."""
    with open(path, "rb") as stream:
        if _Unpickler(stream).load() != _LEGACY_MAGIC:
            raise ValueError("it was not written by torch.save")
        _Unpickler(stream).load()  # the version of the protocol: there was only one
        _check_byte_order(_Unpickler(stream).load()["little_endian"])
        unpickler = _Unpickler(stream)
        state = _state_dict(unpickler.load())
        content = {}
        for key in _Unpickler(stream).load():
            _check_key(key)
            storage = unpickler.storages[key]
            if int.from_bytes(stream.read(8), "little") != storage.count:
                raise ValueError(f"storage {key!r} has another size than its tensors")
            content[key] = stream.read(storage.count * _itemsize(storage.kind))
    return _arrays(state, content)


def _check_byte_order(little):
    if not little:
        raise ValueError("it was written by a big-endian machine")


class _Unpickler(pickle._Unpickler):
    """Knows ordered dicts and tensors. Every other global is refused, so nothing can be executed.

    Tensors are described, not read: that is for later, once it is known which are wanted. The
    unpickler in Python, not that in C: its memo is a dict, where the other makes an array for the
    largest index that a pickle names, and what becomes a key can be looked at before it is hashed.
    """

    dispatch: ClassVar[dict[int, Any]] = {
        code: load for code, load in pickle._Unpickler.dispatch.items() if code not in _REFUSED
    }

    def __init__(self, stream):
        super().__init__(stream)
        self.storages = {}

    def load_setitem(self):
        _check_key(self.stack[-2])
        super().load_setitem()

    def load_setitems(self):
        for key in self.stack[::2]:
            _check_key(key)
        super().load_setitems()

    def load_dict(self):
        for key in self.stack[::2]:
            _check_key(key)
        super().load_dict()

    dispatch |= {
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
    }

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            # New functions each time: a pickle may set attributes of what it is given.
            return lambda *args: _ordered_dict(*args)
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *args: _describe(*args)
        if module == "torch" and name in _STORAGE_KINDS:
            return _STORAGE_KINDS[name]
        raise ValueError(
            f"it would run {module}.{name}; only tensors, numbers, text and containers of them are "
            "read: save `model.state_dict()` alone"
        )

    def persistent_load(self, pid):
        tag, kind, key, _, count = pid[:5]
        if tag != "storage" or kind not in _STORAGE_KINDS.values() or type(key) is not str:
            raise ValueError("a storage is damaged")
        storage = _Storage(kind, key, *_sizes([count]))
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key!r} has two sizes")
        return storage


def _check_key(key):
    """Tuples of one another, however few, may take forever to hash: they are no names."""
    parts = key if type(key) is tuple else [key]
    if not all(isinstance(part, _KEYS) for part in parts):
        raise ValueError("a dict has keys that are neither text nor numbers")


def _ordered_dict(pairs=()):
    for key, _ in pairs:
        _check_key(key)
    return collections.OrderedDict(pairs)


def _describe(storage, offset, shape, strides, *_):
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise ValueError("a tensor is damaged")
    (offset,), shape, strides = _sizes([offset]), _sizes(shape), _sizes(strides)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    # More elements than the storage has would be repeats, without end.
    if math.prod(shape) > storage.count or (math.prod(shape) and last >= storage.count):
        raise ValueError("a tensor reaches beyond its storage")
    return _Tensor(storage, offset, shape, strides)


def _arrays(state, content):
    """The tensors' values, each a copy; some may share a storage, but not without end."""
    size = sum(math.prod(t.shape) * _itemsize(t.storage.kind) for t in state.values())
    stored = sum(map(len, content.values()))
    if size > max(bounded.SMALL, _MOST_SHARED * stored):
        raise ValueError(f"its tensors take {size:,} bytes, its storages {stored:,}")
    return {name: _array(tensor, content[tensor.storage.key]) for name, tensor in state.items()}


def _array(tensor, content):
    kind, _, count = tensor.storage
    if len(content) != count * _itemsize(kind):
        raise ValueError(f"storage {tensor.storage.key!r} has another size than its tensors")
    values = _decode(content, kind)
    if not math.prod(tensor.shape):
        return np.empty(tensor.shape, values.dtype)
    strides = [stride * values.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(
        values[tensor.offset :], tensor.shape, strides, writeable=False
    ).copy()


def _state_dict(value):
    """The dict of tensors that a checkpoint is or has."""
    for key in WRAPPERS:
        if isinstance(value, dict) and isinstance(value.get(key), dict):
            value = value[key]
            break
    if not isinstance(value, dict) or not value:
        raise ValueError(f"it holds no state dict, nor one under {', '.join(WRAPPERS)}")
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise ValueError(f"its entry {name!r} is no tensor")
    return value


def _sizes(values):
    if len(values) > _MOST_AXES:
        raise ValueError(f"a tensor has more than {_MOST_AXES} axes")
    if any(type(value) is not int or value < 0 for value in values):
        # Cut short: lists that contain a list many times over are small in a pickle, not as text.
        raise ValueError(f"a size is no natural number: {reprlib.repr(values)}")
    if any(value >= 2**63 for value in values):  # as long as the file, it takes forever to multiply
        raise ValueError("a size is 2**63 or more")
    return list(values)


def _itemsize(kind):
    return 2 if kind == _BFLOAT16 else np.dtype(kind).itemsize


def _decode(content, kind):
    if kind == _BFLOAT16:  # the upper half of a float32
        return (np.frombuffer(content, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(content, kind)


_READERS = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".pth.tar": _read_torch,
    ".bin": _read_torch,
}
