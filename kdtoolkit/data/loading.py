"""A data set's name, or arrays -> training, validation and test splits."""

import dataclasses
import math
import warnings
from collections.abc import Sequence

import numpy as np

from kdtoolkit._checks import BELOW_1, ArgumentError, Integers, UnsuitableError, check
from kdtoolkit._types import PathLike
from kdtoolkit.data import catalog
from kdtoolkit.data.arrays import Arrays
from kdtoolkit.data.augmentation import Augmentation, Augmenter
from kdtoolkit.data.augmentations import named
from kdtoolkit.data.mixing import Mixing
from kdtoolkit.data.pipeline import Split, StreamingSplit
from kdtoolkit.data.preprocessing import Preprocessing
from kdtoolkit.data.randomness import Purpose, stratified
from kdtoolkit.data.source import DatasetInfo, Stored, checked_image_size, held_out
from kdtoolkit.data.wording import some

MEMORY_LIMIT = 4 * 2**30
"""Bytes of decoded images above which a data set is streamed from its files."""

HELD_LIMIT = 2**28
"""Bytes of decoded images up to which a split of a streamed folder is held in memory."""

_MEASURED_IMAGES = 8192


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set ready to train on.

    Attributes:
        info: what is known of it.
        preprocessing: normalisation by the training images' mean and deviation.
        train, validation, test: `Split`s, or `StreamingSplit`s where they are too large for memory.
    """

    info: DatasetInfo
    preprocessing: Preprocessing
    train: Split | StreamingSplit
    validation: Split | StreamingSplit
    test: Split | StreamingSplit


def load(
    name: PathLike,
    data_dir: PathLike | None = None,
    *,
    image_size: int | tuple[int, int] | None = None,
    label: str | None = None,
    validation_fraction: float = 0.1,
    train_examples: int | None = None,
    strict_data: bool = False,
    augmentation: str | None = None,
    mixup: float = 0.0,
    cutmix: float = 0.0,
) -> Data:
    """Loads a data set, downloading a TensorFlow Datasets set that is not there yet.

    The validation images are cut from the training split, stratified by `label`, by a key that no
    seed enters: a network trained in one run never saw the validation images of another, so
    teachers, students and ensembles of different seeds can be compared on them. A data set with a
    validation split beside its test split (`info.validation_split`, as CINIC-10 has) validates on
    that, whatever `validation_fraction` says.

    A data set of more than `MEMORY_LIMIT` bytes is streamed. The mean and deviation are then those
    of 8,192 training images.

    - Of a folder these are the same share of each class. Everything else is the same, byte for
      byte, as in memory: cuts, order, pixels, crops and flips; but photographs are cropped as they
      are stored. A split of no more than `HELD_LIMIT` bytes is held in memory, unless it is
      cropped so. Files are looked at before training by their headers and their
      last bytes, and decoded where they are neither JPEG nor PNG or do not end as they should; one
      that turns out to be damaged later is a `DamagedDataError`, within `reading`.
    - Of a TensorFlow Datasets set they are the first in stored order; cuts are random but not
      stratified, as labels are not known before they are read.

    Args:
        name, data_dir, image_size, label: as in `describe`.
        validation_fraction: share of the training split that validates, in [0, 1), where there is
            no stored validation split.
        train_examples: train on exactly so many of the images that remain, stratified by class
            and the same in every run; None for all. A folder's others are not decoded; where some
            of those are damaged, and not in their headers alone, the validation images are not
            those of a run on all.
        strict_data: whether an image file that cannot be read is an error; otherwise such files
            of a folder are left out, and one warning says how many they are and names a few.
        augmentation: of the training images, `"crop"` (shifted by a few pixels, mirrored),
            `"photograph"` (crops of random size, mirrored, in other colours) or `"randaugment"`
            (a `RandAugment` and the crops of what suits the data set); None for what suits:
            photograph for ImageNet and for folders of colour images of at least 96 pixels, else
            crop, which mirrors no characters.
        mixup, cutmix: as of `Mixing`; 0 for images that are not mixed.

    Returns:
        A `Data`; its `info` counts the images that were read.

    Raises:
        ValueError: as in `describe`; an argument outside its range; images that cannot be read.
    """
    check("validation_fraction", validation_fraction, BELOW_1)
    name = catalog.as_name(name)
    source = catalog.find(name, data_dir, label)
    info = source.prepare(name, checked_image_size(image_size))
    if augmentation is not None:
        info = dataclasses.replace(info, augmentation=named(augmentation, info.augmentation))
    if not (info.image_shape and info.classes and info.train_size and info.test_size is not None):
        raise ValueError(
            f"Data set {name!r} must have an image shape, classes, and sizes of its training and "
            f"test splits when it is prepared. Received: {info}"
        )
    count = info.train_size + (info.validation_size or 0) + info.test_size
    size = count * math.prod(info.image_shape)
    if size > MEMORY_LIMIT and not source.streams:
        reason = (
            f"Data set {name!r} takes {size / 2**30:.1f} GiB decoded, more than the "
            f"{MEMORY_LIMIT / 2**30:g} GiB that a data set of kind {info.kind!r} may: "
            "choose a smaller `image_size`, or make it a folder of image files."
        )
        raise UnsuitableError("image_size", image_size, reason)
    if mixup or cutmix:
        mixing = Mixing(info.augmentation, info.classes, mixup, cutmix)
        info = dataclasses.replace(info, augmentation=mixing)

    def choose(labels):
        return cut(labels, info, validation_fraction, train_examples)

    if size > MEMORY_LIMIT:
        return _stream(info, choose, source.streamed(info, strict_data))
    return assemble(info, source.read(info, choose, strict_data))


def from_arrays(
    x: np.ndarray,
    y: np.ndarray,
    *,
    validation_data: tuple[np.ndarray, np.ndarray] | None = None,
    test_data: tuple[np.ndarray, np.ndarray] | None = None,
    validation_fraction: float = 0.1,
    class_names: Sequence[str] | None = None,
    augmentation: Augmenter = Augmentation(),  # noqa: B008
    name: str = "arrays",
) -> Data:
    """Makes a data set of arrays, as `load` does of what is stored.

    What is not given is cut from `x`, stratified by class and the same in every run: a fifth
    (`TEST_FRACTION`) for tests, and `validation_fraction` of what remains.

    Args:
        x, y, validation_data, test_data, class_names, augmentation: of `Arrays`.
        validation_fraction: share that validates, in [0, 1), where there is no `validation_data`.
        name: what messages call it.

    Returns:
        A `Data`.

    Raises:
        ArgumentError: an array is not what `Arrays` takes, or `validation_fraction` is outside its
            range or leaves no image to train on.

    Warns:
        UserWarning: classes are left without training images.
    """
    check("validation_fraction", validation_fraction, BELOW_1)
    source = Arrays(
        x,
        y,
        validation_data=validation_data,
        test_data=test_data,
        class_names=class_names,
        augmentation=augmentation,
    )
    info = source.describe(name)

    def choose(labels):
        return cut(labels, info, validation_fraction, train_examples=None)

    return assemble(info, source.read(info, choose))


def assemble(info: DatasetInfo, stored: Stored) -> Data:
    """Makes splits of what was read, and counts it; warns of classes that cannot be learned."""
    _name_untrained(info, stored.train[1])
    train, validation, test = stored.train, stored.validation, stored.test
    train_size = stored.size - len(test[1])
    validation, test = stored.stored_validation or validation, stored.stored_test or test
    info = dataclasses.replace(
        info,
        train_size=train_size,
        validation_size=len(validation[1]) if stored.stored_validation else None,
        test_size=len(test[1]),
    )
    preprocessing = Preprocessing.measure([train[0]])

    def split(images, labels):
        return Split(images, labels, preprocessing, info.augmentation)

    return Data(info, preprocessing, split(*train), split(*validation), split(*test))


def _name_untrained(info, labels):
    untrained = np.flatnonzero(np.bincount(labels, minlength=info.classes) == 0)
    if untrained.size:
        names = [info.class_names[label] if info.class_names else label for label in untrained]
        warnings.warn(
            f"{len(names)} of {info.classes} classes of {info.name!r} are left without training "
            f"images: {some(names)}",
            stacklevel=4,  # whoever called `load` or `from_arrays`
        )


def _stream(info, choose, streams):
    stored = streams.train
    known = stored.labels is not None
    parts = choose(stored.labels if known else np.zeros(len(stored), np.int32))
    train, validation, test = (stored.subset(part) for part in parts)
    if known:
        _name_untrained(info, train.labels)
    else:
        # A split without labels has -1 in all of its examples: told before hours of training.
        for split in filter(None, (streams.validation, streams.test)):
            split.load(1)
    train_size = len(stored) - len(test)
    validation = validation if streams.validation is None else streams.validation
    test = test if streams.test is None else streams.test
    info = dataclasses.replace(
        info,
        train_size=train_size,
        validation_size=None if streams.validation is None else len(validation),
        test_size=len(test),
    )
    preprocessing = Preprocessing.measure(_some(train).first_images(_MEASURED_IMAGES))

    def split(stream, hold=True):
        is_small = len(stream) * math.prod(info.image_shape) <= HELD_LIMIT
        if stream.in_order and is_small and hold:
            return Split(*stream.load(), preprocessing, info.augmentation)
        return StreamingSplit(stream, preprocessing, info.augmentation)

    # Whatever `train_examples` says, crops are cut out of the images as they are stored.
    hold = not info.augmentation.cuts_boxes
    return Data(info, preprocessing, split(train, hold), split(validation), split(test))


def _some(stream):
    """As many examples as are measured, the same share of each class where classes are known."""
    if stream.labels is None or len(stream) <= _MEASURED_IMAGES:
        return stream
    return stream.subset(stratified(stream.labels, _MEASURED_IMAGES, Purpose.EXAMPLES))


def cut(labels, info, validation_fraction, train_examples):
    """Indices of the training, validation and held-out test images of a stored split."""
    remaining = np.arange(len(labels))
    count = 0 if info.test_split else held_out(len(labels))
    test = _take(labels, remaining, count, Purpose.TEST)
    remaining = np.setdiff1d(remaining, test, assume_unique=True)
    is_cut = validation_fraction and not info.validation_split
    count = max(round(validation_fraction * len(remaining)), 1) if is_cut else 0
    validation = _take(labels, remaining, count, Purpose.VALIDATION)
    if count and count == len(remaining):
        accepted = f"an image to train on of the {len(remaining)} of {info.name!r}"
        raise ArgumentError("validation_fraction", accepted, validation_fraction, must="leave")
    remaining = np.setdiff1d(remaining, validation, assume_unique=True)
    if train_examples is None:
        train_examples = len(remaining)
    if train_examples not in Integers(1, len(remaining)):
        why = f"the training images of {info.name!r} less validation, {count}"
        accepted = f"from 1 to {len(remaining)}, {why}"
        raise ArgumentError("train_examples", accepted, train_examples)
    return _take(labels, remaining, train_examples, Purpose.EXAMPLES), validation, test


def _take(labels, indices, count, purpose):
    return indices[stratified(labels[indices], count, purpose)]
