"""scikit-learn's digits: a data set that every installation has."""

import numpy as np

from kdtoolkit.data import source
from kdtoolkit.data.augmentation import Augmentation

_DIGITS = 1797


class DigitsSource(source.Source):
    """1,797 grey images of 8x8. They have no official test split."""

    def describe(self, name, image_size=None):
        train_size, test_size = source.sizes(_DIGITS, None)
        return source.DatasetInfo(
            name=name,
            kind="digits",
            image_shape=source.image_shape(name, (8, 8, 1), image_size),
            class_names=tuple("0123456789"),
            classes=10,
            train_size=train_size,
            test_size=test_size,
            augmentation=Augmentation(pad=1, flip=False),
        )

    def read(self, info, choose, strict=False):
        from sklearn.datasets import load_digits

        from kdtoolkit.data.scaling import cover_all

        digits = load_digits()
        # The stored values are 0 to 16.
        images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
        train = cover_all(images, info.image_shape[:2]), digits.target.astype(np.int32)
        return source.Stored.of(info, choose, train)
