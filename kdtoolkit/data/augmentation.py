"""What happens to which image in which epoch, decided in NumPy ahead of the pipeline."""

import dataclasses
from typing import NamedTuple

import numpy as np

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


def epoch_plan(count, seed, generation, epoch, augmentation=Augmentation()):
    """Draws an epoch: a pure function of its arguments.

    An image's crop and flip depend on `(seed, generation, epoch, index)` alone, whatever `count`,
    the batch size and the epochs before; so a resumed run sees the images of an unbroken one.

    Args:
        count: number of images.
        seed, generation, epoch: integers, 0 or more.
        augmentation: an `Augmentation`.

    Returns:
        An `EpochPlan`.
    """
    words = random_words(count, 4, Purpose.EPOCH, seed, generation, epoch)
    return EpochPlan(
        order=np.argsort(words[:, 0], kind="stable").astype(np.int32),
        offsets=(words[:, 1:3] % np.uint64(2 * augmentation.pad + 1)).astype(np.int32),
        flips=augmentation.flip & (words[:, 3] >> np.uint64(63)).astype(bool),
    )
