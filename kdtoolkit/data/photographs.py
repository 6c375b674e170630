"""How photographs are augmented, and what is drawn for each of them ahead of the pipeline."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np

from kdtoolkit._checks import OneOf, check
from kdtoolkit._types import ImageShape, Tensor
from kdtoolkit.data.augmentation import Augmentation, Augmenter
from kdtoolkit.data.preprocessing import Preprocessing
from kdtoolkit.data.randomness import Purpose, random_fractions


class PhotographPlan(NamedTuple):
    """One epoch of `n` photographs.

    Attributes:
        order: as in `EpochPlan`.
        draws: what is drawn for image `i`, in the epoch, float32 `(n, 8)`.
    """

    order: np.ndarray
    draws: np.ndarray


@dataclasses.dataclass(frozen=True)
class PhotographAugmentation(Augmenter):
    """Random crop of random size and proportions, mirrored or not, in other colours.

    Attributes:
        area: smallest and largest part of the image that a crop covers.
        aspect: narrowest and widest crop, width over height.
        brightness, contrast, saturation: a factor is between 1 less and 1 more this much.
    """

    for_device: ClassVar[bool] = False
    crops_stored: ClassVar[bool] = True

    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4

    def plan(self, order: np.ndarray, seed: int, generation: int, epoch: int) -> PhotographPlan:
        """A `PhotographPlan`."""
        return PhotographPlan(order, draw(len(order), seed, generation, epoch))

    def apply(
        self,
        images: Tensor,
        draws: Sequence[Tensor],
        preprocessing: Preprocessing,
        cropped: bool = False,
    ) -> Tensor:
        import tensorflow as tf

        from kdtoolkit.data import distortions

        if not cropped:
            count, (height, width) = tf.shape(images)[0], images.shape[1:3]
            boxes = self.boxes(tf.fill([count], height), tf.fill([count], width), draws)
            images = distortions.enlarge(images, boxes, self.mirrored(draws))
        return preprocessing(distortions.jitter(images, _columns(draws), self))

    def boxes(self, heights: Tensor, widths: Tensor, draws: Sequence[Tensor]) -> Tensor:
        from kdtoolkit.data import distortions

        return distortions.crop_boxes(heights, widths, _columns(draws), self)

    def mirrored(self, draws: Sequence[Tensor]) -> Tensor:
        return _columns(draws).flip < 0.5


_KINDS: dict[str, type[Augmenter]] = {"crop": Augmentation, "photograph": PhotographAugmentation}

AUGMENTATIONS = OneOf(tuple(_KINDS))
"""Names of the kinds of augmentation."""

_SMALLEST = 96  # pixels high and wide: smaller images are rarely photographs as they were taken


def named(name: str, usual: Augmenter) -> Augmenter:
    """Returns the augmentation of a name.

    Args:
        name: one of `AUGMENTATIONS`.
        usual: that of the data set, which is returned where it is of this kind.

    Raises:
        ArgumentError: there is no such name.
    """
    check("augmentation", name, AUGMENTATIONS)
    return usual if isinstance(usual, _KINDS[name]) else _KINDS[name]()


def suited(image_shape: ImageShape | None) -> Augmenter:
    """Returns the augmentation that suits images of which only their shape is known."""
    if image_shape is None or min(image_shape[:2]) < _SMALLEST or image_shape[-1] != 3:
        return Augmentation()
    return PhotographAugmentation()


class Draws(NamedTuple):
    """The columns of `draw`: float32 `(n,)`, uniform in [0, 1)."""

    area: np.ndarray
    aspect: np.ndarray
    top: np.ndarray
    left: np.ndarray
    flip: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray


def draw(count, seed, generation, epoch):
    """Draws an epoch: row `i` is a function of `(seed, generation, epoch, i)` alone.

    Returns:
        float32 `(count, 8)`, whose columns are `Draws`.
    """
    columns = len(Draws._fields)
    return random_fractions(count, columns, Purpose.PHOTOGRAPHS, seed, generation, epoch)


def _columns(draws):
    """`Draws` as tensors, of the one part of a `PhotographPlan` that is drawn."""
    import tensorflow as tf

    (rows,) = draws
    return Draws(*tf.unstack(rows, axis=-1))
