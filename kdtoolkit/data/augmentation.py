"""What happens to which image in which epoch, decided in NumPy ahead of the pipeline."""

import dataclasses
from typing import NamedTuple

import numpy as np

from kdtoolkit.data import photographs
from kdtoolkit.data.randomness import Purpose, random_words


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random crop of the padded image, then a horizontal flip of every second image on average.

    Attributes:
        pad: pixels of mean colour (zero after normalisation) added on each side; 0 does not crop.
        flip: whether images are mirrored.
    """

    pad: int = 4
    flip: bool = True


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
            if getattr(self, name) < lowest:
                raise ValueError(
                    f"Argument `{name}` must be {lowest} or more. "
                    f"Received: {name}={getattr(self, name)}"
                )


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


class PhotographPlan(NamedTuple):
    """One epoch of `n` photographs.

    Attributes:
        order: as in `EpochPlan`.
        draws: what is drawn for image `i`, in the epoch, float32 `(n, 9)`.
    """

    order: np.ndarray
    draws: np.ndarray


def epoch_plan(
    count: int,
    seed: int,
    generation: int,
    epoch: int,
    augmentation: Augmentation | photographs.PhotographAugmentation = Augmentation(),
    views: Views | None = None,
) -> EpochPlan | PhotographPlan:
    """Draws an epoch: a pure function of its arguments.

    An image's crop and flip depend on `(seed, generation, epoch, index)` alone, whatever `count`,
    the batch size and the epochs before; so a resumed run sees the images of an unbroken one. With
    `views` they depend on the epoch's view and the index.

    Args:
        count: number of images.
        seed, generation, epoch: integers, 0 or more.
        augmentation: an `Augmentation` or a `PhotographAugmentation`.
        views: a `Views`, or None for crops and flips of this epoch's own.

    Returns:
        An `EpochPlan` or a `PhotographPlan`, as the augmentation is.
    """
    words = random_words(count, 4, Purpose.EPOCH, seed, generation, epoch)
    order = np.argsort(words[:, 0], kind="stable").astype(np.int32)
    if views is not None:
        seed, generation, epoch = views.seed, views.generation, epoch % views.count
        words = random_words(count, 4, Purpose.EPOCH, seed, generation, epoch)
    if isinstance(augmentation, photographs.PhotographAugmentation):
        return PhotographPlan(order, photographs.draw(count, seed, generation, epoch))
    return EpochPlan(
        order=order,
        offsets=(words[:, 1:3] % np.uint64(2 * augmentation.pad + 1)).astype(np.int32),
        flips=augmentation.flip & (words[:, 3] >> np.uint64(63)).astype(bool),
    )
