"""How photographs are augmented, and what is drawn for each of them ahead of the pipeline."""

import dataclasses
from typing import NamedTuple

import numpy as np

from kdtoolkit.data.randomness import Purpose, random_fractions


@dataclasses.dataclass(frozen=True)
class PhotographAugmentation:
    """Random crop of random size and proportions, mirrored or not, tilted, in other colours.

    Attributes:
        area: smallest and largest part of the image that a crop covers.
        aspect: narrowest and widest crop, width over height.
        rotation: largest angle either way, in degrees.
        brightness, contrast, saturation: a factor is between 1 less and 1 more this much.
    """

    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    rotation: float = 10.0
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4


class Draws(NamedTuple):
    """The columns of `draw`: float32 `(n,)`, uniform in [0, 1)."""

    area: np.ndarray
    aspect: np.ndarray
    top: np.ndarray
    left: np.ndarray
    flip: np.ndarray
    angle: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray


def draw(count, seed, generation, epoch):
    """Draws an epoch: row `i` is a function of `(seed, generation, epoch, i)` alone.

    Returns:
        float32 `(count, 9)`, whose columns are `Draws`.
    """
    columns = len(Draws._fields)
    return random_fractions(count, columns, Purpose.PHOTOGRAPHS, seed, generation, epoch)
