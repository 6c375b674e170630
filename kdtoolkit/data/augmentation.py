"""What happens to which image in which epoch, decided in NumPy ahead of the pipeline."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from kdtoolkit._checks import Integers, check
from kdtoolkit._types import Tensor
from kdtoolkit.data.preprocessing import Preprocessing
from kdtoolkit.data.randomness import Purpose, random_words


class EpochPlan(NamedTuple):
    """One epoch of `n` images.

    Attributes:
        order: image indices in the order of training, int32 `(n,)`.
        offsets: top and left edge of image `i`'s crop in its padded image, int32 `(n, 2)`.
        flips: whether image `i` is mirrored after the crop, bool `(n,)`.
    """

    order: np.ndarray
    offsets: np.ndarray
    flips: np.ndarray


class Augmenter(abc.ABC):
    """What changes training images: draws for each of them in NumPy, and applies that in batches.

    A subclass is a frozen dataclass, whose fields tell what is seen from what another one shows
    (`Split.fingerprint`).
    """

    for_device: ClassVar[bool] = True
    """Whether `apply` can be a part of the train step (`Split.reader`), under XLA."""

    @property
    def mixes(self) -> bool:
        """Whether images of a batch get parts of others (`mix`), and labels are rows."""
        return False

    @property
    def cuts_boxes(self) -> bool:
        """Whether `apply` is given the `boxes` of images, mirrored, and not the whole.

        A `StreamingSplit` cuts them out of images as they are stored, a `Split` out of scaled ones.
        """
        return False

    @abc.abstractmethod
    def plan(self, order: np.ndarray, seed: int, generation: int, epoch: int) -> tuple[Any, ...]:
        """Draws an epoch: row `i` is a function of `(seed, generation, epoch, i)` alone.

        Args:
            order: image indices in the order of training, int32 `(n,)`.
            seed, generation, epoch: integers, 0 or more.

        Returns:
            A named tuple of `order` and the draws: arrays of `n` rows, row `i` of image `i`.
        """

    @abc.abstractmethod
    def apply(
        self,
        images: Tensor,
        draws: Sequence[Tensor],
        preprocessing: Preprocessing,
    ) -> Tensor:
        """Changes a batch, and normalises it.

        Args:
            images: `(b, height, width, channels)`, from 0 to 255: uint8, or float32 where boxes
                were enlarged.
            draws: those of `plan`, the rows of these images.
            preprocessing: a `Preprocessing`.

        Returns:
            float32, of the same shape.
        """

    def mix(self, images: Tensor, labels: Tensor, draws: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Gives images of a batch parts of others, and labels as much of those others' labels.

        Args:
            images: as `apply` returned them.
            labels: class indices, int32 `(b,)`.
            draws: as in `apply`.

        Returns:
            Images of the same shape; labels, rows of probabilities, float32 `(b, classes)`.
        """
        return images, labels

    def boxes(self, heights: Tensor, widths: Tensor, draws: Sequence[Tensor]) -> Tensor:
        """What is cut out of images of these sizes, where something `cuts_boxes`.

        Args:
            heights, widths: of the images, integers `(b,)` or `()`.
            draws: as in `apply`, or one row of each.

        Returns:
            int32 `(b, 4)` or `(4,)`: top, left, height, width.
        """
        raise NotImplementedError(f"{type(self).__name__} cuts no boxes out of images")

    def mirrored(self, draws: Sequence[Tensor]) -> Tensor:
        """Which of these boxes are mirrored.

        Args:
            draws: as in `boxes`.

        Returns:
            bool `(b,)` or `()`.
        """
        raise NotImplementedError(f"{type(self).__name__} cuts no boxes out of images")


@dataclasses.dataclass(frozen=True)
class Augmentation(Augmenter):
    """Random crop of the padded image, then a horizontal flip of every second image on average.

    Attributes:
        pad: pixels of mean colour (zero after normalisation) added on each side; 0 does not crop.
        flip: whether images are mirrored.

    Raises:
        ArgumentError: `pad` is no integer of at least 0.
    """

    pad: int = 4
    flip: bool = True

    def __post_init__(self):
        check("pad", self.pad, Integers(0))

    def plan(self, order: np.ndarray, seed: int, generation: int, epoch: int) -> EpochPlan:
        """An `EpochPlan`."""
        words = random_words(len(order), 4, Purpose.EPOCH, seed, generation, epoch)
        return EpochPlan(
            order=order,
            offsets=(words[:, 1:3] % np.uint64(2 * self.pad + 1)).astype(np.int32),
            flips=self.flip & (words[:, 3] >> np.uint64(63)).astype(bool),
        )

    def apply(
        self,
        images: Tensor,
        draws: Sequence[Tensor],
        preprocessing: Preprocessing,
    ) -> Tensor:
        from kdtoolkit.data import distortions

        offsets, flips = draws
        return distortions.crop_and_flip(preprocessing(images), offsets, flips, self.pad)


@dataclasses.dataclass(frozen=True)
class AroundAnother(Augmenter):
    """Adds something to another augmentation: its own draws come after those of the other.

    Attributes:
        base: an `Augmenter`.
    """

    for_device: ClassVar[bool] = False

    base: Augmenter = Augmentation()

    @property
    def cuts_boxes(self) -> bool:
        return self.base.cuts_boxes

    @property
    def mixes(self) -> bool:
        return self.base.mixes

    def plan(self, order: np.ndarray, seed: int, generation: int, epoch: int) -> tuple[Any, ...]:
        """That of the other, and what `draw` draws."""
        drawn = self.draw(len(order), seed, generation, epoch)
        return (*self.base.plan(order, seed, generation, epoch), drawn)

    @abc.abstractmethod
    def draw(self, count: int, seed: int, generation: int, epoch: int) -> np.ndarray:
        """Its own draws: `(count, ...)`, row `i` as in `plan`."""

    def boxes(self, heights: Tensor, widths: Tensor, draws: Sequence[Tensor]) -> Tensor:
        return self.base.boxes(heights, widths, draws[:-1])

    def mirrored(self, draws: Sequence[Tensor]) -> Tensor:
        return self.base.mirrored(draws[:-1])

    def mix(self, images: Tensor, labels: Tensor, draws: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        return self.base.mix(images, labels, draws[:-1])


@dataclasses.dataclass(frozen=True)
class Views:
    """A fixed set of crops and flips of each image, in place of fresh ones in every epoch.

    Epoch `e` shows all images in view `e % count`, and view `v` is what epoch `v` of `(seed,
    generation)` shows without views. So what a teacher says of each view can be computed once, for
    any number of students; and a run of that seed and generation that has no more epochs than
    views is, byte for byte, the run without views.

    Attributes:
        count: of views, 1 or more.
        seed, generation: integers, 0 or more.

    Raises:
        ValueError: an attribute is outside its range.
    """

    count: int
    seed: int = 0
    generation: int = 0

    def __post_init__(self):
        for name, lowest in (("count", 1), ("seed", 0), ("generation", 0)):
            check(name, getattr(self, name), Integers(lowest))


def epoch_plan(
    count: int,
    seed: int,
    generation: int,
    epoch: int,
    augmentation: Augmenter = Augmentation(),
    views: Views | None = None,
) -> Any:
    """Draws an epoch: a pure function of its arguments.

    An image's crop and flip depend on `(seed, generation, epoch, index)` alone, whatever `count`,
    the batch size and the epochs before; so a resumed run sees the images of an unbroken one. With
    `views` they depend on the epoch's view and the index.

    Args:
        count: number of images.
        seed, generation, epoch: integers, 0 or more.
        augmentation: an `Augmenter`.
        views: a `Views`, or None for crops and flips of this epoch's own.

    Returns:
        The augmentation's plan: an `EpochPlan` of an `Augmentation`, a `PhotographPlan` of a
        `PhotographAugmentation`, a plain tuple of one that is around another.
    """
    words = random_words(count, 4, Purpose.EPOCH, seed, generation, epoch)
    order = np.argsort(words[:, 0], kind="stable").astype(np.int32)
    if views is not None:
        seed, generation, epoch = views.seed, views.generation, epoch % views.count
    return augmentation.plan(order, seed, generation, epoch)
