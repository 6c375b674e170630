"""What a source of data is: it describes a data set, and reads it.

Nothing here imports TensorFlow, which a source imports when it reads: command lines are checked
with descriptions.
"""

import abc
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from kdtoolkit._checks import ArgumentError, Integers, Words
from kdtoolkit.data.augmentation import Augmentation, Augmenter
from kdtoolkit.data.wording import is_line

IMAGES_ACCEPTED = (
    "uint8 of shape (n, height, width), or (n, height, width, channels) with 1 or 3 channels"
)
"""What an array of images must be (see `stored_shape`), as messages say it."""

VALIDATION_NAMES = ("valid", "val", "validation")
"""What a stored split may be called that validates, or tests where there is no `test`."""

TEST_FRACTION = 0.2
"""Share of a data set without a test split that is held out as one."""

Choose = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Labels of the stored training split -> indices of what of it trains, validates and tests."""

Labelled = tuple[np.ndarray, np.ndarray]
"""Images, uint8 `(n, height, width, channels)`, and labels, int32 `(n,)`."""


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """Facts about a data set; None is what only loading can tell.

    Attributes:
        name: as it was asked for.
        kind: "digits", "tfds", "folder", "archive" or "arrays", or what a source of one's own says.
        image_shape: `(height, width, channels)` of the images as they are loaded.
        class_names: one a class, in the order of the labels; each one line of text, as files carry
            them.
        classes: number of classes.
        train_size: images in the training split, before validation images are cut from it. Of a
            folder, these three sizes count files; `load` leaves out what cannot be read.
        validation_size: images in the validation split; None where it is cut from the training
            split.
        test_size: images in the test split.
        path: folder or file that holds the data.
        validation_split: name of the stored split that validates, or None.
        test_split: name of the stored split that serves as the test set; None where there is
            none, and `TEST_FRACTION` of the images is held out, stratified by class.
        augmentation: what suits these images.
        unreadable: paths of a folder's image files without a readable header.
        label: name of the stored feature whose classes are learned; None where there is but one.

    Raises:
        ArgumentError: a class name is not such a line.
    """

    name: str
    kind: str
    image_shape: tuple[int, int, int] | None = None
    class_names: tuple[str, ...] | None = None
    classes: int | None = None
    train_size: int | None = None
    validation_size: int | None = None
    test_size: int | None = None
    path: str | None = None
    validation_split: str | None = None
    test_split: str | None = None
    augmentation: Augmenter = dataclasses.field(default_factory=Augmentation)
    unreadable: tuple[str, ...] = ()
    label: str | None = None

    def __post_init__(self):
        for name in self.class_names or ():
            if not is_line(name):
                received = Words(repr(name))
                raise ArgumentError("class_names", "names of one line of UTF-8 text", received)

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names; numbers where the data set has none."""
        return self.class_names or tuple(map(str, range(self.classes or 0)))


class Stored(NamedTuple):
    """`(images, labels)` of what is used of a data set.

    Images uint8 `(n, *image_shape)`, labels int32 `(n,)`.

    Attributes:
        train, validation, test: of the parts of the stored training split.
        size: number of images of the stored training split that can be read, as far as is known.
        stored_validation, stored_test: of the stored splits of that name, None where there is none.
    """

    train: Labelled
    validation: Labelled
    test: Labelled
    size: int
    stored_validation: Labelled | None = None
    stored_test: Labelled | None = None

    @classmethod
    def of(
        cls,
        info: DatasetInfo,
        choose: Choose,
        train: Labelled,
        validation: Labelled | None = None,
        test: Labelled | None = None,
    ) -> "Stored":
        """What is used of splits that were read whole.

        Args:
            info: of the data set.
            choose: as of `Source.read`.
            train, validation, test: of the stored splits; None where there is none.

        Raises:
            ValueError: images are not of `info.image_shape`, or a label is not one of
                `info.classes`.
        """
        for split in filter(None, (train, validation, test)):
            _check(info, *split)
        images, labels = train
        trained, validated, tested = ((images[part], labels[part]) for part in choose(labels))
        return cls(trained, validated, tested, len(labels), validation, test)


class Streams(NamedTuple):
    """The stored splits of a data set that is too large for memory: `stream.Stream`s.

    Attributes:
        train, validation, test: None where there is no such split.
    """

    train: Any
    validation: Any = None
    test: Any = None


class Source(abc.ABC):
    """Where a data set comes from: `register` gives one of your own a name.

    A `load` describes a data set, prepares it, and reads it. A recipe does the first with its
    command line, before TensorFlow is imported.
    """

    streams: ClassVar[bool] = False
    """Whether a data set that is too large for memory can be `streamed`."""

    @abc.abstractmethod
    def describe(self, name: str, image_size: tuple[int, int] | None = None) -> DatasetInfo:
        """Facts about the data set, without its images where that is possible.

        Args:
            name: what the data set is called.
            image_size: `(height, width)` that images are to have; None for their own.

        Raises:
            ValueError: the data are not what the source reads, or need an `image_size`.
        """

    def prepare(self, name: str, image_size: tuple[int, int] | None = None) -> DatasetInfo:
        """As `describe`, once the data are there: what has to be downloaded first, is.

        Its image shape, classes, and sizes of the training and test splits are no more None.
        """
        return self.describe(name, image_size)

    @abc.abstractmethod
    def read(self, info: DatasetInfo, choose: Choose, strict: bool = False) -> Stored:
        """What is used of the data set, in memory: `Stored.of` of splits that are read whole.

        Args:
            info: of `prepare`.
            choose: function of the labels of the stored training split, int32 `(n,)`; returns the
                indices of the images that train, validate and test. No others need be read.
            strict: whether an image file that cannot be read is an error; otherwise such files are
                left out, and one warning says how many they are and names a few.

        Raises:
            ValueError: an image cannot be decoded, or a label is not one of `info.classes`.
        """

    def streamed(self, info: DatasetInfo, strict: bool = False) -> Streams:
        """The examples of the stored splits, which are read while they are used.

        Args:
            info, strict: as in `read`.

        Raises:
            ValueError: files are not what can be streamed; an image file is damaged and `strict`.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be streamed")


def roles(splits):
    """Which of a data set's stored splits validates and which one tests, None for none.

    Args:
        splits: names of all of them.
    """
    validation = next((name for name in VALIDATION_NAMES if name in splits), None)
    return (validation, "test") if "test" in splits else (None, validation)


def held_out(count):
    """How many of `count` images are held out where there is no test split."""
    return round(TEST_FRACTION * count)


def sizes(stored_train_size, test_size):
    """Training and test images, the latter held out where none are stored."""
    if test_size is not None:
        return stored_train_size, test_size
    return stored_train_size - held_out(stored_train_size), held_out(stored_train_size)


def checked_image_size(image_size):
    """`(height, width)` of an `image_size` as `describe` takes it, or None.

    Raises:
        ArgumentError: it is something else.
    """
    if image_size is None:
        return None
    size = tuple(image_size) if isinstance(image_size, Iterable) else (image_size,) * 2
    if len(size) != 2 or not all(length in Integers(1) for length in size):
        raise ArgumentError("image_size", "a positive integer or (height, width)", image_size)
    return int(size[0]), int(size[1])


def stored_shape(shape, dtype):
    """`(n, height, width, channels)` of an array of images, or None if it is not `IMAGES_ACCEPTED`.

    Args:
        shape, dtype: of the array.
    """
    shape = (*shape, 1) if len(shape) == 3 else shape
    is_held = len(shape) == 4 and shape[-1] in (1, 3) and 0 not in shape
    return shape if is_held and dtype == np.uint8 else None


def image_shape(name, stored, size):
    """`(height, width, channels)` of images as they are loaded.

    Args:
        name: of the data set.
        stored: their shape as they are stored; height and width None where they differ.
        size: `(height, width)` that they are scaled to, or None.

    Raises:
        ValueError: they differ, and there is no size.
    """
    if size is None and None in stored:
        accepted = f"given: the images of {name!r} have different sizes"
        raise ArgumentError("image_size", accepted, Words("none"))
    return (*(size or stored[:2]), stored[2])


def _check(info, images, labels):
    if images.shape[1:] != info.image_shape:
        raise ValueError(
            f"Data set {info.name!r} must have images of shape {info.image_shape}. "
            f"Received: {images.shape[1:]}"
        )
    outside = np.flatnonzero((labels < 0) | (labels >= info.classes))
    if outside.size:
        raise ValueError(
            f"Data set {info.name!r} must have labels from 0 to {info.classes - 1}. "
            f"Received: {labels[outside[0]]} at index {outside[0]}"
        )
