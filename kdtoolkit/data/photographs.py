"""How photographs are augmented, and what is drawn for each of them ahead of the pipeline."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Self

import numpy as np

from kdtoolkit._types import Tensor
from kdtoolkit.data.augmentation import Augmenter
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

    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4

    @property
    def cuts_boxes(self) -> bool:
        return True

    @classmethod
    def of_crops(cls) -> Self:
        """Crops and mirrors alone, in the colours that images have."""
        return cls(brightness=0, contrast=0, saturation=0)

    def plan(self, order: np.ndarray, seed: int, generation: int, epoch: int) -> PhotographPlan:
        """A `PhotographPlan`."""
        return PhotographPlan(order, draw(len(order), seed, generation, epoch))

    def apply(
        self,
        images: Tensor,
        draws: Sequence[Tensor],
        preprocessing: Preprocessing,
    ) -> Tensor:
        from kdtoolkit.data import distortions

        if self.brightness or self.contrast or self.saturation:
            images = distortions.jitter(images, _columns(draws), self)
        return preprocessing(images)

    def boxes(self, heights: Tensor, widths: Tensor, draws: Sequence[Tensor]) -> Tensor:
        from kdtoolkit.data import distortions

        return distortions.crop_boxes(heights, widths, _columns(draws), self)

    def mirrored(self, draws: Sequence[Tensor]) -> Tensor:
        return _columns(draws).flip < 0.5


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
