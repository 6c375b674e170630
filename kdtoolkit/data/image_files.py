"""Image files as a stream."""

import copy
import functools
import hashlib
import io
import os
import weakref

import numpy as np
import tensorflow as tf
from PIL import Image

from kdtoolkit._bar import counted
from kdtoolkit.data import jpeg, picture
from kdtoolkit.data.scaling import check_cover, cover, cut, stretch
from kdtoolkit.data.stream import Stream
from kdtoolkit.data.threads import in_threads

_SMALL = 3  # A crop may cover a tenth of an image, a third of its height and width.
# TensorFlow does not say which file it cannot decode: one of those of the streams that are in use.
_in_use: weakref.WeakSet["ImageFileStream"] = weakref.WeakSet()


class ImageFileStream(Stream):
    """Images of files of their own, or some of them; each is decoded when its turn comes.

    Pixels are those that `folder.read` gives, turned and scaled in the same way, but where a box is
    cut out of the stored image. TensorFlow decodes what both decode to the same bits, in two thirds
    of the time, and of such a file nothing beyond a box (see `jpeg.decode_box`).

    Args:
        info: of the data set.
        paths: of the files, below `info.path`.
        labels: int32 `(n,)`.
        plain: which of them are `picture.is_plain`, bool `(n,)`.
    """

    in_order = True

    def __init__(self, info, paths, labels, plain):
        super().__init__(info)
        self.labels = labels
        self._paths = np.array(paths, object)
        self._plain = plain & decodes_as_pillow()
        self._turns = picture.Turns()
        self._hold()

    def _hold(self):
        # Tensors, no constants of a graph, as those of `Split`.
        with tf.device("CPU:0"):
            files = tf.constant([os.fsencode(path) for path in self._paths], tf.string)
            self._tensors = files, tf.constant(self.labels), tf.constant(self._plain)
        _in_use.add(self)

    def __len__(self):
        return len(self._paths)

    def subset(self, selected):
        subset = copy.copy(self)
        subset.labels, subset._paths = self.labels[selected], self._paths[selected]
        subset._plain = self._plain[selected]
        subset._hold()
        return subset

    def stored(self):
        return tf.data.Dataset.range(len(self)).map(lambda position: (position, position))

    def shuffled(self, order):
        return tf.data.Dataset.from_tensor_slices((order, order))

    def decode(self, example):
        shape = self._info.image_shape
        pixels = self._pixels(
            example,
            lambda content: jpeg.decode(content, shape[-1], shape[:2]),
            lambda: self._by_pillow(self._covering, example),
        )
        is_of_size = tf.reduce_all(tf.shape(pixels)[:2] == shape[:2])
        image = tf.cond(is_of_size, lambda: pixels, lambda: cover(pixels, shape[:2]))
        return tf.ensure_shape(image, shape), self._tensors[1][example]

    def decode_crop(self, example, choose):
        shape = self._info.image_shape

        box = self._pixels(
            example,
            lambda content: jpeg.decode_box(content, choose, shape[-1], shape[:2]),
            lambda: cut(self._by_pillow(self._shrunk, example), choose),
        )
        return tf.ensure_shape(stretch(box, shape[:2]), shape), self._tensors[1][example]

    def _pixels(self, example, by_tensorflow, by_pillow):
        """What one of two functions makes of a file, the first one of its content."""
        files, _, plain = self._tensors
        pixels = tf.cond(
            plain[example], lambda: by_tensorflow(tf.io.read_file(files[example])), by_pillow
        )
        return tf.ensure_shape(pixels, [None, None, self._info.image_shape[-1]])

    def _by_pillow(self, read, example):
        def said(position):
            try:
                return read(position), b""
            except ValueError as error:
                nothing = np.zeros((1, 1, self._info.image_shape[-1]), np.uint8)
                return nothing, str(error).encode(errors="backslashreplace")

        pixels, error = tf.numpy_function(said, [example], [tf.uint8, tf.string], stateful=False)
        # Of what Python raises here, TensorFlow would print the stack, several times.
        with tf.control_dependencies([tf.debugging.Assert(error == "", [error])]):
            return tf.ensure_shape(tf.identity(pixels), [None, None, None])

    def identity(self):
        names = hashlib.sha256()  # of all: an array of them would take the longest for each
        for path in self._paths:
            names.update(os.fsencode(os.path.relpath(path, self._info.path)) + b"\0")
        sizes = np.array([os.path.getsize(path) for path in self._paths], np.int64)
        # At the edges of a box it shows who decodes.
        return np.frombuffer(names.digest(), np.uint8), sizes, self.labels, self._plain

    def by_tensorflow(self):
        """Paths of the files that TensorFlow decodes."""
        return self._paths[self._plain]

    def is_of(self, path):
        """Whether the files are those of a data set in `path`."""
        return self._info.path == path

    def _covering(self, position):
        """Pixels of a file, to be brought to the data set's size."""
        height, width, channels = self._info.image_shape
        path, size = self._paths[position], (height, width)
        with picture.opened(path, size) as image, self._turns.of(image) as large:
            pixels = picture.pixels(image, channels)
            check_cover(pixels.shape, size)
            # A large one is scaled before it is the next one's turn.
            return np.asarray(cover(pixels, size)) if large else pixels

    def _shrunk(self, position):
        """Pixels of a file, of which a box is cut; a large one's are averaged until it is none."""
        height, width, channels = self._info.image_shape
        path, size = self._paths[position], (_SMALL * height, _SMALL * width)
        with picture.opened(path, size) as image, self._turns.of(image) as large:
            pixels = picture.pixels(image, channels)
            return picture.shrunk(pixels) if large else pixels


def undecodable(path):
    """Looks for a file that TensorFlow was to decode and cannot.

    Args:
        path: of the folder whose streams are in use.

    Returns:
        Path of the first one, in alphabetical order; None where there is none any more.
    """
    files = sorted({file for s in _in_use if s.is_of(path) for file in s.by_tensorflow()})

    def fails(file):
        try:
            with tf.device("CPU:0"):
                jpeg.decode(tf.io.read_file(os.fsencode(file)), channels=0)
        except tf.errors.OpError:
            return True
        return False

    failed = counted(in_threads(fails, files), len(files), "looking for the damaged image")
    return next((file for file, fail in zip(files, failed, strict=True) if fail), None)


@functools.cache
def decodes_as_pillow():
    """Whether TensorFlow and Pillow were built to decode JPEG alike, to the last bit."""
    noise = np.random.default_rng(0).integers(0, 256, (35, 53, 3), np.uint8)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        file = io.BytesIO()
        Image.fromarray(noise).save(file, "JPEG", subsampling=subsampling)
        for factor in picture.FACTORS:
            size = (17 // factor, 26 // factor)
            with tf.device("CPU:0"):
                decoded = jpeg.decode(file.getvalue(), 3, size).numpy()
            image = Image.open(file)
            picture.draft(image, size)
            if not np.array_equal(decoded, np.asarray(image)):
                return False
    return True
