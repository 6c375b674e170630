"""RandAugment: a few operations of one strength on each image, drawn ahead of the pipeline."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from kdtoolkit._checks import Integers, Interval, check
from kdtoolkit._types import Tensor
from kdtoolkit.data.augmentation import AroundAnother
from kdtoolkit.data.preprocessing import Preprocessing
from kdtoolkit.data.randomness import Purpose, random_fractions

_LARGEST = 30


@dataclasses.dataclass(frozen=True)
class RandAugment(AroundAnother):
    """Operations drawn at random, all of one strength (Cubuk, Zoph, Shlens, Le, NeurIPS 2020).

    Each image goes through `operations` of fourteen, each as likely as any other, the same more
    than once if it comes so: identity, auto-contrast, equalise, solarise, posterise, brightness,
    contrast, saturation, sharpness, rotation, and shear and shift along both axes. Where one can
    go two ways the sign is drawn. What comes from outside an image has the mean colour. Boxes are
    cut out before, the crops and mirrors of an `Augmentation` come after.

    Attributes:
        base: an `Augmenter` for crops and mirrors.
        operations: how many on each image, the paper's N.
        magnitude: their strength, the paper's M, from 0 to 30: at 30 a rotation is by 30 degrees, a
            shear by 0.3, a shift by 0.45 of the image, a factor of colours 0.1 or 1.9, and of eight
            bits four are left.

    Raises:
        ArgumentError: a number is outside its range.
    """

    operations: int = 2
    magnitude: float = 9.0

    def __post_init__(self):
        check("operations", self.operations, Integers(1))
        check("magnitude", self.magnitude, Interval(0, _LARGEST))

    def draw(self, count: int, seed: int, generation: int, epoch: int) -> np.ndarray:
        """What operation and which sign, uniform in [0, 1): float32 `(count, operations, 2)`."""
        columns = 2 * self.operations
        drawn = random_fractions(count, columns, Purpose.OPERATIONS, seed, generation, epoch)
        return drawn.reshape(count, self.operations, 2)

    def apply(
        self, images: Tensor, draws: Sequence[Tensor], preprocessing: Preprocessing
    ) -> Tensor:
        import tensorflow as tf

        from kdtoolkit.data import image_operations

        *others, drawn = draws
        images = tf.round(tf.cast(images, tf.float32))
        colour = 255 * tf.constant(preprocessing.mean, tf.float32)
        kinds = tf.cast(drawn[..., 0] * len(image_operations.OPERATIONS), tf.int32)
        signs = tf.where(drawn[..., 1] < 0.5, -1.0, 1.0)
        for number in range(self.operations):
            images = image_operations.apply_each(
                images, kinds[:, number], signs[:, number], self.magnitude / _LARGEST, colour
            )
        return self.base.apply(images, others, preprocessing)
