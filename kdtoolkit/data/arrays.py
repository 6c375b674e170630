"""A data set of NumPy arrays in memory."""

import math
from collections.abc import Sequence

import numpy as np

from kdtoolkit._checks import ArgumentError, Interval
from kdtoolkit.data import loading, sources
from kdtoolkit.data.augmentation import Augmentation
from kdtoolkit.data.catalog import DatasetInfo
from kdtoolkit.data.photographs import PhotographAugmentation

_FRACTION = Interval(0, 1, open_high=True)


def from_arrays(
    x: np.ndarray,
    y: np.ndarray,
    *,
    validation_data: tuple[np.ndarray, np.ndarray] | None = None,
    test_data: tuple[np.ndarray, np.ndarray] | None = None,
    validation_fraction: float = 0.1,
    class_names: Sequence[str] | None = None,
    augmentation: Augmentation | PhotographAugmentation = Augmentation(),  # noqa: B008
    name: str = "arrays",
) -> loading.Data:
    """Makes a data set of arrays, as `load` does of what is stored.

    What is not given is cut from `x`, stratified by class and the same in every run: a fifth
    (`TEST_FRACTION`) for tests, and `validation_fraction` of what remains.

    Args:
        x: uint8 images `(n, height, width)` or `(n, height, width, channels)`.
        y: class indices `(n,)` or `(n, 1)`, integers from 0.
        validation_data, test_data: pairs of such arrays, whose images are as large as those of `x`;
            None to cut them from `x`.
        validation_fraction: share that validates, in [0, 1), where there is no `validation_data`.
        class_names: one a class, in the order of the indices; None for their numbers, up to the
            largest index.
        augmentation: of the training images. For characters, which mirrored are other classes:
            `Augmentation(flip=False)`.
        name: what messages call it.

    Returns:
        A `Data`.

    Raises:
        ArgumentError: an array is not as above, or `validation_fraction` is outside its range or
            leaves no image to train on.

    Warns:
        UserWarning: classes are left without training images.
    """
    if validation_fraction not in _FRACTION:
        raise ArgumentError("validation_fraction", _FRACTION, validation_fraction)
    train = _checked("x", "y", x, y)
    shape = train[0].shape[1:]
    others = []
    for argument, pair in (("validation_data", validation_data), ("test_data", test_data)):
        if pair is not None and not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise ArgumentError(argument, "a pair of arrays, or None", type(pair).__name__)
        own = None if pair is None else _checked(argument, argument, *pair)
        if own is not None and own[0].shape[1:] != shape:
            raise ArgumentError(argument, f"of images {shape}, as `x` has them", own[0].shape[1:])
        others.append(own)
    validation, test = others
    indices = np.concatenate([labels for _, labels in filter(None, (train, validation, test))])
    classes = int(indices.max()) + 1 if class_names is None else len(class_names)
    if indices.max() >= classes:
        accepted = f"one for each class, of which `y` has {indices.max() + 1}"
        raise ArgumentError("class_names", accepted, class_names)
    info = DatasetInfo(
        name=name,
        kind="arrays",
        image_shape=shape,
        class_names=None if class_names is None else tuple(class_names),
        classes=classes,
        validation_split=validation and "validation",
        test_split=test and "test",
        augmentation=augmentation,
    )
    images, labels = train
    trained, validated, tested = (
        (images[part], labels[part])
        for part in loading.cut(labels, info, validation_fraction, train_examples=None)
    )
    stored = sources.Stored(trained, validated, tested, len(labels), validation, test)
    return loading.assemble(info, stored)


def _checked(images_argument, labels_argument, images, labels):
    """uint8 images `(n, height, width, channels)` and int32 labels `(n,)`, at least one."""
    images, labels = np.asarray(images), np.asarray(labels)
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or not math.prod(images.shape):
        raise ArgumentError(
            images_argument,
            "uint8 images of shape (n, height, width) or (n, height, width, channels)",
            f"{images.dtype} of shape {images.shape}",
            "Floats from 0 to 1 are bytes as np.uint8(np.rint(255 * x))",
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1] or labels.min() < 0:
        lowest = f", the least {labels.min()}" if labels.dtype.kind in "iu" and labels.size else ""
        raise ArgumentError(
            labels_argument,
            f"{len(images)} class indices, integers from 0, one for each image",
            f"{labels.dtype} of shape {labels.shape}{lowest}",
        )
    return images[..., None] if images.ndim == 3 else images, labels.astype(np.int32)
