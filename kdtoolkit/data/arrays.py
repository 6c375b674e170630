"""Arrays in memory as a source of data."""

from collections.abc import Sequence

import numpy as np

from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit.data import source
from kdtoolkit.data.augmentation import Augmentation, Augmenter

_LARGEST = np.iinfo(np.int32).max  # index of a class


class Arrays(source.Source):
    """NumPy arrays: what a function given to `register` returns, in the usual case.

    Args:
        x: uint8 images `(n, height, width)`, or `(n, height, width, channels)` with 1 or 3
            channels.
        y: class indices `(n,)` or `(n, 1)`, integers from 0.
        validation_data, test_data: pairs of such arrays, whose images are as large as those of `x`;
            None to cut them from `x`.
        class_names: one a class, each one line of text, in the order of the indices; None for their
            numbers, up to the largest index.
        augmentation: of the training images. For characters, which mirrored are other classes:
            `Augmentation(flip=False)`.

    Raises:
        ArgumentError: an array is not as above.
    """

    def __init__(
        self,
        x: np.ndarray,
        y: np.ndarray,
        *,
        validation_data: tuple[np.ndarray, np.ndarray] | None = None,
        test_data: tuple[np.ndarray, np.ndarray] | None = None,
        class_names: Sequence[str] | None = None,
        augmentation: Augmenter = Augmentation(),  # noqa: B008
    ) -> None:
        self.train = _checked("x", "y", x, y)
        shape = self.train[0].shape[1:]
        self.validation, self.test = (
            None if pair is None else _checked_pair(argument, pair, shape)
            for argument, pair in (("validation_data", validation_data), ("test_data", test_data))
        )
        splits = filter(None, (self.train, self.validation, self.test))
        largest = max(int(labels.max()) for _, labels in splits)
        self.classes = largest + 1 if class_names is None else len(class_names)
        if largest >= self.classes:
            accepted = f"one for each class, of which `y` has {largest + 1}"
            raise ArgumentError("class_names", accepted, class_names)
        self.class_names = None if class_names is None else tuple(class_names)
        self.augmentation = augmentation

    def describe(self, name: str, image_size: tuple[int, int] | None = None) -> source.DatasetInfo:
        images, labels = self.train
        train_size, test_size = source.sizes(len(labels), self.test and len(self.test[1]))
        return source.DatasetInfo(
            name=name,
            kind="arrays",
            image_shape=source.image_shape(name, images.shape[1:], image_size),
            class_names=self.class_names,
            classes=self.classes,
            train_size=train_size,
            validation_size=self.validation and len(self.validation[1]),
            test_size=test_size,
            validation_split=self.validation and "validation",
            test_split=self.test and "test",
            augmentation=self.augmentation,
        )

    def read(
        self, info: source.DatasetInfo, choose: source.Choose, strict: bool = False
    ) -> source.Stored:
        from kdtoolkit.data.scaling import cover_all

        assert info.image_shape  # of `describe`
        size = info.image_shape[:2]

        def scaled(images, labels):
            return cover_all(images, size), labels

        validation, test = (pair and scaled(*pair) for pair in (self.validation, self.test))
        return source.Stored.of(info, choose, scaled(*self.train), validation, test)


def _checked_pair(argument, pair, shape):
    if not (isinstance(pair, tuple | list) and len(pair) == 2):
        raise ArgumentError(argument, "a pair of arrays, or None", Words(type(pair).__name__))
    images, labels = _checked(argument, argument, *pair)
    if images.shape[1:] != shape:
        received = Words(images.shape[1:])
        raise ArgumentError(argument, f"of images {shape}, as `x` has them", received)
    return images, labels


def _checked(images_argument, labels_argument, images, labels):
    """uint8 images `(n, height, width, channels)` and int32 labels `(n,)`, at least one."""
    images, labels = np.asarray(images), np.asarray(labels)
    shape = source.stored_shape(images.shape, images.dtype)
    if shape is None:
        raise ArgumentError(
            images_argument,
            source.IMAGES_ACCEPTED,
            Words(f"{images.dtype} of shape {images.shape}"),
            "Floats from 0 to 1 are bytes as np.uint8(np.rint(255 * x))",
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    is_integers = labels.dtype.kind in "iu" and labels.size
    lowest, largest = (int(labels.min()), int(labels.max())) if is_integers else (-1, -1)
    # Checked before they are cast: the largest would become other classes.
    if labels.shape != images.shape[:1] or lowest < 0 or largest > _LARGEST:
        found = f", from {lowest} to {largest}" if is_integers else ""
        raise ArgumentError(
            labels_argument,
            f"{len(images)} class indices, integers from 0 to {_LARGEST}, one for each image",
            Words(f"{labels.dtype} of shape {labels.shape}{found}"),
        )
    return images.reshape(shape), labels.astype(np.int32)
