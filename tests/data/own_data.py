"""Data in a file of one's own, for `data.register` and `--dataset=own_data:spots`."""

import numpy as np

from kdtoolkit import data


def spots():
    """Four quarters of an image, of which one is bright: its number is the class."""
    y = np.arange(80) % 4
    x = np.zeros((80, 8, 8), np.uint8)
    for image, label, value in zip(x, y, range(100, 180), strict=True):
        top, left = 4 * (label // 2), 4 * (label % 2)
        image[top : top + 4, left : left + 4] = value
    augmentation = data.Augmentation(pad=0, flip=False)
    return data.Arrays(x[:60], y[:60], test_data=(x[60:], y[60:]), augmentation=augmentation)


class Ramp(data.Source):
    """A source that is described without its images: a grey level for each class."""

    def describe(self, name, image_size=None):
        height, width = image_size or (3, 5)
        shape, names = (height, width, 1), ("dark", "bright")
        return data.DatasetInfo(name, "ramp", shape, names, 2, train_size=40, test_size=10)

    def read(self, info, choose, strict=False):
        y = np.arange(50, dtype=np.int32) % 2
        x = np.ones((50, *info.image_shape), np.uint8)
        x[y == 0], x[y == 1] = 100, 200
        return data.Stored.of(info, choose, (x, y))
