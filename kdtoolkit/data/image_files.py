"""Image files as a stream."""

import copy
import os

import numpy as np
import tensorflow as tf

from kdtoolkit.data import picture
from kdtoolkit.data.scaling import check_cover, cover, cover_one
from kdtoolkit.data.stream import Stream


class ImageFileStream(Stream):
    """Images of files of their own, or some of them; each is decoded when its turn comes.

    Pixels are those that `folder.read` gives: the same decoder, turned and scaled in the same way.

    Args:
        info: of the data set.
        paths: of the files, below `info.path`.
        labels: int32 `(n,)`.
    """

    in_order = True

    def __init__(self, info, paths, labels):
        super().__init__(info)
        self.labels = labels
        self._paths = np.array(paths, object)
        self._turns = picture.Turns()

    def __len__(self):
        return len(self._paths)

    def subset(self, selected):
        subset = copy.copy(self)
        subset.labels, subset._paths = self.labels[selected], self._paths[selected]
        return subset

    def stored(self):
        return tf.data.Dataset.range(len(self)).map(lambda position: (position, position))

    def shuffled(self, order):
        return tf.data.Dataset.from_tensor_slices((order, order))

    def decode(self, example):
        shape = self._info.image_shape
        pixels, label = tf.numpy_function(
            self._read, [example], [tf.uint8, tf.int32], stateful=False
        )
        pixels = tf.ensure_shape(pixels, [None, None, shape[-1]])
        is_of_size = tf.reduce_all(tf.shape(pixels)[:2] == shape[:2])
        image = tf.cond(is_of_size, lambda: pixels, lambda: cover(pixels, shape[:2]))
        return tf.ensure_shape(image, shape), tf.ensure_shape(label, [])

    def identity(self):
        names = [os.path.relpath(path, self._info.path) for path in self._paths]
        sizes = np.array([os.path.getsize(path) for path in self._paths], np.int64)
        return np.array(names, str), sizes, self.labels

    def _read(self, position):
        height, width, channels = self._info.image_shape
        with (
            picture.opened(self._paths[position]) as image,
            self._turns.of(image) as large,
        ):
            pixels = picture.pixels(image, channels)
            if large:  # scaled before it is the next one's turn
                pixels = np.asarray(cover_one(pixels, (height, width)))
            check_cover(pixels.shape, (height, width))
        return pixels, self.labels[position]
