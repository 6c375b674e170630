"""What a teacher says of a fixed set of views, computed once and kept on disk."""

import contextlib
import errno
import hashlib
import io
import math
import os
import shutil
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kdtoolkit import files
from kdtoolkit._checks import ArgumentError, Words, near
from kdtoolkit._types import Network, PathLike
from kdtoolkit.data.augmentation import Views
from kdtoolkit.data.pipeline import Split, StreamingSplit
from kdtoolkit.models.architecture import architecture
from kdtoolkit.models.contract import add_weights, check_logits
from kdtoolkit.models.graph import output_of
from kdtoolkit.models.precision import in_float32
from kdtoolkit.training.fused import fused

FORMAT = 1
"""Part of every key: to be raised when what is drawn, computed or stored changes."""

_CONTENTS = "cache.json"


@dataclass(frozen=True)
class TeacherCache:
    """A teacher's outputs for every view of every image of a split, in memory-mapped files.

    Attributes:
        directory: of these outputs alone.
        views: a `Views`.
        fingerprint: of the split that the teacher saw.
        logits: as the teacher gave them, float16 `(views, n, classes)`.
        features: layer name -> its outputs, float16 `(views, n, ...)`.
    """

    directory: Path
    views: Views
    fingerprint: str
    logits: np.memmap
    features: Mapping[str, np.memmap]

    def attach(self, split: Split | StreamingSplit) -> Split | StreamingSplit:
        """The split in these views, with what the teacher says of them.

        Args:
            split: the one that the cache was built of.

        Returns:
            A split whose `epochs` have, in place of images, `Examples` to which the dict
            `{"teacher_logits": float16 (b, classes)}` is attached and, where the cache has
            features, `"teacher_features"`: layer name -> float16 `(b, ...)`. A `Student` of this
            teacher needs no forward pass of it.

        Raises:
            ValueError: it is another split.
        """
        if split.fingerprint() != self.fingerprint:
            accepted = f"the one that {str(self.directory)!r} was built of"
            received = Words("other images, labels, preprocessing or augmentation")
            raise ArgumentError("split", accepted, received)
        return split.in_views(self.views, self._read)

    def _read(self, view, indices):
        arrays = [self.logits, *self.features.values()]
        rows = tf.numpy_function(
            lambda view, indices: [array[view, indices] for array in arrays],
            [view, indices],
            [tf.float16] * len(arrays),
            stateful=False,
        )
        logits, *features = (
            tf.ensure_shape(values, [None, *array.shape[2:]])
            for values, array in zip(rows, arrays, strict=True)
        )
        outputs = {"teacher_logits": logits}
        if features:
            outputs["teacher_features"] = dict(zip(self.features, features, strict=True))
        return outputs


def build(
    teacher: Network,
    split: Split | StreamingSplit,
    directory: PathLike,
    *,
    views: Views,
    layers: Iterable[str] = (),
    batch_size: int = 512,
) -> TeacherCache:
    """Opens the cache of a teacher's outputs, or computes them where there is none.

    Its key is the SHA-256 of the teacher's architecture and weights, the split's fingerprint, the
    views, the layers and `FORMAT`: another of these is another cache, beside the first. Files are
    read once and compared with their checksums; where they differ one warning names them, and they
    are computed again. A second process waits for the first one's cache.

    float16 keeps a logit to a relative 2^-11. Logits are not shifted, which would leave their
    softmax as it is and gain precision, because the focal temperature depends on the shift. A
    teacher in mixed precision computes in float32 here.

    Args:
        teacher: functional Keras model, or `Ensemble`, that returns logits.
        split: `Split` or `StreamingSplit`.
        directory: of caches alone, any number of them; made if it is not there.
        views: a `Views`.
        layers: names of the teacher's layers whose outputs are kept too, for methods that compare
            features.
        batch_size: of the teacher's forward passes.

    Returns:
        A `TeacherCache`.

    Raises:
        ValueError: there is no such layer (near matches are named); float16 cannot hold an output;
            the directory cannot be written to, or has too little room.
    """
    check_logits(teacher, "teacher")
    layers = tuple(dict.fromkeys(layers))
    with in_float32(teacher):
        return _build(teacher, split, directory, views, layers, batch_size)


def _build(teacher, split, directory, views, layers, batch_size):
    teaching = _teaching(teacher, layers)
    fingerprint = split.fingerprint()
    key = _key(teacher, fingerprint, views, layers)
    directory = Path(directory)
    path = directory / key[:16]

    image = keras.KerasTensor((1, *split.preprocessing.image_shape))
    outputs = keras.tree.flatten(teaching.compute_output_spec(image))
    names = ["logits.npy", *(f"features_{k}.npy" for k in range(1, len(outputs)))]
    shapes = {
        name: (views.count, len(split), *output.shape[1:])
        for name, output in zip(names, outputs, strict=True)
    }
    size = sum(math.prod(shape) for shape in shapes.values()) * np.dtype(np.float16).itemsize

    def compute(scratch):
        scratch.mkdir()
        checksums = _write(scratch, shapes, _outputs(teaching, split, views, batch_size))
        files.write_json(scratch / _CONTENTS, {"key": key, "files": checksums})

    try:
        files.make_directory(directory)
        with files.locked(directory, wait=True):
            arrays = _stored(path, key, names)
            if arrays is None:
                files.clear_scratch(directory)
                if shutil.disk_usage(directory).free < size:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                files.write_atomically(path, compute)
                arrays = _open(path, key, names)
    except OSError as error:
        accepted = f"writable, with {size:,} bytes free"
        received = Words(f"{str(directory)!r} ({error.strerror or error})")
        raise ArgumentError("directory", accepted, received) from error
    logits, *features = arrays
    return TeacherCache(path, views, fingerprint, logits, dict(zip(layers, features, strict=True)))


def _teaching(teacher, layers):
    """A model that returns the teacher's logits, and the outputs of these layers after them."""
    if not layers:
        return fused(teacher)
    names = [layer.name for layer in getattr(teacher, "layers", ())]
    for layer in layers:
        if layer not in names or not hasattr(teacher, "operations"):
            received = Words(f"{layer!r} of {type(teacher).__name__} {teacher.name!r}")
            accepted, hint = "layers of a functional model", near(layer, names)
            raise ArgumentError("layers", accepted, received, hint, must="name")
    hidden = [output_of(teacher, layer) for layer in layers]
    return fused(keras.Model(teacher.input, [teacher.output, *hidden]))


def _key(teacher, fingerprint, views, layers):
    names = [layer.name for layer in teacher.layers] if layers else []
    places = [(layer, names.index(layer)) for layer in layers]
    known = (FORMAT, architecture(teacher), fingerprint, views, places)
    digest = hashlib.sha256(repr(known).encode())
    add_weights(digest, teacher)
    return digest.hexdigest()


def _outputs(teaching, split, views, batch_size):
    """Yields lists of NumPy arrays, one an output, of the views' images in order."""

    @tf.function(reduce_retracing=True)
    def forward(images):
        outputs = keras.tree.flatten(teaching(images, training=False))
        return [tf.cast(values, "float32") for values in outputs]

    for images, _ in split.batches(batch_size, views):
        yield [values.numpy() for values in forward(images)]


def _write(directory, shapes, batches):
    """Writes `.npy` files from their rows, and returns their checksums.

    Not through a memory map, which on a full disk ends the process in place of an error.
    """
    with contextlib.ExitStack() as stack:
        streams = {name: stack.enter_context(open(directory / name, "wb")) for name in shapes}
        digests = {name: hashlib.sha256() for name in shapes}

        def append(name, content):
            streams[name].write(content)
            digests[name].update(content)

        for name, shape in shapes.items():
            append(name, _header(shape))
        for batch in batches:
            for name, values in zip(shapes, batch, strict=True):
                append(name, _half(values, name).tobytes())
    return {name: digest.hexdigest() for name, digest in digests.items()}


def _header(shape):
    stream = io.BytesIO()
    description = {"descr": "<f2", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, description)
    return stream.getvalue()


def _half(values, name):
    with np.errstate(over="ignore"):
        half = values.astype("<f2")
    if not np.isfinite(half).all():
        accepted = "finite values up to 65504, which float16 holds"
        received = Words(f"{np.abs(values).max()} for {name!r}")
        raise ArgumentError("teacher", accepted, received, must="return")
    return half


def _stored(path, key, names):
    """The arrays of a cache that is there and whole, else None; what is damaged is removed."""
    if not path.exists():
        return None
    try:
        return _open(path, key, names)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if not files.is_damage(error):
            raise
        warnings.warn(f"{path} is damaged ({error}): it is computed again", stacklevel=3)
        files.remove(path)
        return None


def _open(path, key, names):
    contents = files.read_json(path / _CONTENTS)
    if contents["key"] != key:
        raise ValueError("it was built of another teacher, split or views")
    for name in names:
        if files.sha256(path / name) != contents["files"][name]:
            raise ValueError(f"{name} does not match its checksum")
    return [np.load(path / name, mmap_mode="r") for name in names]
