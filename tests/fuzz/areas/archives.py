"""Data sets as `.npz` files."""

import io
import zipfile

import numpy as np

from tests.fuzz import judge, mutations
from tests.fuzz.mutations import Member, pick

_HEADERS = [
    "{'descr': '|u1', 'fortran_order': False, 'shape': (%s, 6, 5, 3), }",
    "{'descr': '|u1', 'fortran_order': True, 'shape': (30, 6, 5, 3), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (30, 6, 5, 3), }",
    "{'descr': '<i8', 'fortran_order': False, 'shape': (%s,), }",
    "{'descr': '<i8', 'fortran_order': False, 'shape': (30, %s), }",
    "{'descr': '<m8[s]', 'fortran_order': False, 'shape': (30,), }",
    "{'descr': '|V%s', 'fortran_order': False, 'shape': (30,), }",
    "{'descr': '<U%s', 'fortran_order': False, 'shape': (30,), }",
    "{'descr': [('a', '|u1', (%s,))], 'fortran_order': False, 'shape': (30,), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000000, %s, 3), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (0, %s, 5, 3), }",
    "(" * 300 + ")" * 300,
    "[" * 5000,
    "-" * 9000 + "1",
    "{'shape': __import__('os')}",
    "\0",
    "",
]
_SIZES = ["-1", "0", "1", "29", "30.0", "True", "None", "2**70", str(2**31), str(2**62), "9" * 5000]


def npy(header, data=b"", version=(1, 0), length=None):
    """An array file whose header is any text."""
    text = header.encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    length = len(text) if length is None else length
    size = 2 if version[0] == 1 else 4
    magic = b"\x93NUMPY" + bytes(version)
    return magic + (length % 256**size).to_bytes(size, "little") + text + data


def mutate_array(member, rng):
    """Another array file, of the format or nearly."""
    kind, content = rng.random(), member.content
    if kind < 0.4:
        return mutations.damage(content, rng)
    if kind < 0.9:
        header = pick(rng, _HEADERS)
        header = header.replace("%s", pick(rng, _SIZES))
        version = pick(rng, [(1, 0), (1, 0), (2, 0), (3, 0), (9, 9)])
        length = pick(rng, [None, None, None, 0, 1, 65535, 2**32 - 1])
        return npy(header, content[128:], version, length)
    stream = io.BytesIO()
    array = pick(rng, [np.float64("nan"), np.arange(30.0), np.array(["a"] * 30), np.zeros((0,))])
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return [Member(name.encode(), archive.read(name)) for name in archive.namelist()]


class Archives:
    """`data.load`: the arrays that were written, or an error that names the file.

    A zip has a checksum of each array, so damage must be noticed. What was written by somebody who
    knows the format must be images and labels that fit each other.
    """

    def __init__(self, directory):
        from kdtoolkit import data

        self._load = data.load
        self._path = directory / "data.npz"
        rng = np.random.default_rng(0)
        images, labels = rng.integers(0, 256, (30, 6, 5, 3), np.uint8), np.arange(30) % 3
        keras = {"x_train": images, "y_train": labels, "x_test": images[:6], "y_test": labels[:6]}
        self._samples = []
        for arrays in (keras, {"images": images[..., 0], "labels": labels.astype(np.uint8)}):
            for save in (np.savez, np.savez_compressed):
                save(self._path, **arrays)
                sample = self._path.read_bytes()
                self._samples.append((sample, members_of(self._path), self._figures(None)))
        header = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (3221225472,), }")
        large = header.replace(b"3221225472,", b"%d, 1024, 1024, 1," % 3072)
        self._bombs = [mutations.bomb(3072, header), mutations.bomb(3072, large)]

    def attempt(self, rng):
        sample, members, figures = pick(rng, self._samples)
        same = rng.random() < 0.5
        if same:
            others = [other for other, *_ in self._samples]
            self._path.write_bytes(mutations.damage(sample, rng, others))
        else:
            members, changed = mutations.mutate_members(members, rng, mutate_array, self._bombs)
            self._path.write_bytes(mutations.write_zip(members))
            same = not changed
        size = pick(rng, [None, None, None, 4, (3, 7)])
        try:
            found = self._figures(size)
        except ValueError as error:
            return judge.refused(error, self._path)
        if same and size is None:
            known = [figures, *(f for _, _, f in self._samples)]  # another sample may be whole
            judge.require(found in known, "other images or labels, without a word")
        return "accepted"

    def _figures(self, size):
        data = self._load(str(self._path), image_size=size, validation_fraction=0.2)
        shape, classes = data.info.image_shape, data.info.classes
        figures = []
        for split in (data.train, data.validation, data.test):
            images, labels = split.images, split.labels
            judge.require(
                images.dtype == np.uint8
                and images.shape == (len(labels), *shape)
                and labels.ndim == 1
                and (not len(labels) or 0 <= labels.min() <= labels.max() < classes),
                f"images {images.dtype} {images.shape}, labels {labels}, info {data.info}",
            )
            figures.append((images.tobytes(), labels.tolist()))
        return figures
