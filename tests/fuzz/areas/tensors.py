"""Weights from PyTorch: `.safetensors`, `.npz`, and both formats of `torch.save`."""

import struct

import numpy as np

from tests.fuzz import judge, mutations
from tests.fuzz.areas.archives import members_of, mutate_array
from tests.fuzz.mutations import pick

_SUFFIXES = (".safetensors", ".npz", ".pth", ".pt")

# What a pickle may say before its own content: opcodes with numbers that cost, or that nest.
_PICKLES = [
    b"r" + struct.pack("<I", 2**31 - 1),
    b"Nr" + struct.pack("<I", 2**29),
    b"\x8e" + struct.pack("<Q", 2**62),
    b"\x8d" + struct.pack("<Q", 2**40),
    b"B" + struct.pack("<I", 2**31 - 1),
    b"\x8b" + struct.pack("<i", 2**30),
    b"\x95" + struct.pack("<Q", 2**63),
    b"(" * 10_000,
    b"]" * 100_000 + b"a" * 99_999,
    b")" + b"\x85" * 100_000,
    b")" + b"2\x86" * 60,  # pairs of the same pair: 2**60 leaves
    b"}" + b")" + b"2\x86" * 60 + b"Ns",
    b"cos\nsystem\nX\x04\0\0\0true\x85R",
    b"cbuiltins\neval\n(X\x01\0\0\x001tR",
    b"ccollections\nOrderedDict\n)R}b",
    b"ctorch._utils\n_rebuild_tensor_v2\n)R",
    b"ctorch\nFloatStorage\nQ",
    b"X\x01\0\0\0aQ",
    b"I" + b"9" * 6000 + b"\n",
    b"\x82\x01",
    b"P0\n",
]


class Tensors:
    """`load_state_dict`: the network gets the file's weights, or an error, and then keeps its own.

    Zip files have checksums, so damage must be noticed. `.safetensors` and old files of
    `torch.save` have none: damage to the numbers shows as those numbers.
    """

    def __init__(self, directory):
        from kdtoolkit import models
        from tests.models import test_state_dict as networks

        self._load = models.load_state_dict
        self._network = networks.small()
        self._own = self._network.get_weights()
        self._directory = directory
        state, _ = networks.random_state(self._network)
        self._samples = [
            sample
            for suffix in _SUFFIXES
            for sample in self._written(suffix, directory / f"state{suffix}", state)
        ]
        self._bombs = [mutations.bomb(3072)]

    def attempt(self, rng):
        suffix, sample, members, weights, mutable = pick(rng, self._samples)
        path = self._directory / f"state{suffix}"
        same = rng.random() < 0.5
        if same:
            content = mutations.damage(sample, rng, [other for _, other, *_ in self._samples])
            start, end = mutable
            same = sample[start:end] in content
        elif members is not None:
            members, changed = mutations.mutate_members(members, rng, _mutate, self._bombs)
            content, same = mutations.write_zip(members), not changed
        elif suffix == ".safetensors":
            content = _mutate_safetensors(sample, rng)
        else:
            content = _mutate_pickle(sample, rng)
        path.write_bytes(content)
        try:
            self._load(self._network, path)
        except ValueError as error:
            judge.require(_equal(self._network.get_weights(), self._own), "changed, and refused")
            return judge.refused(error, path)
        found = self._network.get_weights()
        self._network.set_weights(self._own)
        if same:
            known = [weights, *(w for *_, w, _ in self._samples)]
            judge.require(any(_equal(found, one) for one in known), "other weights, without a word")
        return "accepted"

    def _written(self, suffix, path, state):
        """Yields samples: suffix, bytes, members, weights, and where numbers have no checksum."""
        for write in _WRITERS[suffix]:
            mutable = write(path, state)
            self._load(self._network, path)
            weights = self._network.get_weights()
            self._network.set_weights(self._own)
            zipped = suffix in (".npz", ".pth")
            yield suffix, path.read_bytes(), members_of(path) if zipped else None, weights, mutable


def _equal(one, other):
    return all(map(np.array_equal, one, other))


def _mutate(member, rng):
    if member.name.endswith(b".npy"):
        return mutate_array(member, rng)
    return _mutate_pickle(member.content, rng)


def _mutate_pickle(content, rng):
    if rng.random() < 0.4:
        return mutations.damage(content, rng)
    inserted = pick(rng, _PICKLES)
    cut = 2 if rng.random() < 0.5 else int(rng.integers(len(content)))
    rest = pick(rng, [content[cut:], b"0" + content[cut:], b"."])
    return content[:cut] + inserted + rest


def _mutate_safetensors(content, rng):
    length = int.from_bytes(content[:8], "little")
    header = mutations.mutate_json(content[8 : 8 + length], rng)
    stated = pick(rng, [len(header)] * 8 + [0, 1, 2**62, 2**64 - 1])
    return struct.pack("<Q", stated) + header + content[8 + length :]


# Writers return the part of the file that has no checksum.


def _write_safetensors(path, state):
    from tests.models import test_tensor_files as files

    kinds = {"float32": "F32", "int64": "I64"}
    header, data = {}, b""
    for name, value in state.items():
        content = value.tobytes()
        offsets = len(data), len(data) + len(content)
        header[name] = files.entry(kinds[value.dtype.name], list(value.shape), *offsets)
        data += content
    files.write_safetensors(path, header, data)
    return path.stat().st_size - len(data), path.stat().st_size


def _write_npz(path, state):
    np.savez(path, **state)
    return 0, 0


def _described(state):
    """The state as PyTorch describes it, and its storages."""
    from tests.models import test_tensor_files as files

    kinds = {"float32": "FloatStorage", "int64": "LongStorage"}
    value, storages = {}, {}
    for number, (name, array) in enumerate(state.items()):
        key = f"{number:03}"
        storage = files.Storage(kinds[array.dtype.name], key, array.size)
        strides = tuple(stride // array.itemsize for stride in array.strides)
        value[name] = files.tensor(storage, 0, array.shape, strides)
        storages[key] = array
    return value, storages


def _write_torch(path, state):
    from tests.models import test_tensor_files as files

    value, storages = _described(state)
    value = {"epoch": 3, "state_dict": value}
    files.write_torch(path, value, {key: a.tobytes() for key, a in storages.items()})
    return 0, 0


def _write_legacy(path, state):
    from tests.models import test_tensor_files as files

    value, storages = _described(state)
    files.write_legacy(path, value, {k: (a.size, a.tobytes()) for k, a in storages.items()})
    numbers = sum(8 + array.nbytes for array in storages.values())
    return path.stat().st_size - numbers, path.stat().st_size


_WRITERS = {
    ".safetensors": [_write_safetensors],
    ".npz": [_write_npz],
    ".pth": [_write_torch],
    ".pt": [_write_legacy],
}
