"""Mixup and CutMix: images of a batch that get parts of others, and parts of their labels."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from kdtoolkit._checks import AT_LEAST_0, ArgumentError, Integers, check
from kdtoolkit._types import Tensor
from kdtoolkit.data.augmentation import AroundAnother
from kdtoolkit.data.preprocessing import Preprocessing
from kdtoolkit.data.randomness import Purpose, random_fractions


@dataclasses.dataclass(frozen=True)
class Mixing(AroundAnother):
    """Mixup (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019), image by image.

    An image is mixed with the one before it in its batch, after both have been augmented; the first
    with the last. A batch is drawn anew in every epoch, so that this is another one each time, and
    a batch of one stays as it is. Mixup blends them, `share x + (1 - share) x'`; CutMix replaces a
    box with that of the other, of `1 - share` of the area, whose centre is anywhere and which ends
    at the image's edges. The share is drawn from `Beta(a, a)` for each image. Labels become rows of
    probabilities, each image's class with the share of it that is left. With both, each image is
    mixed in one of the two ways, as likely as in the other.

    Attributes:
        base: an `Augmenter`.
        classes: of the labels.
        mixup, cutmix: `a` of each; 0 for none.

    Raises:
        ArgumentError: a number is outside its range, or there is neither.
    """

    classes: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self):
        check("classes", self.classes, Integers(2))
        check("mixup", self.mixup, AT_LEAST_0)
        check("cutmix", self.cutmix, AT_LEAST_0)
        if not (self.mixup or self.cutmix):
            raise ArgumentError("mixup", "above 0, or else `cutmix`", self.mixup)
        if self.base.mixes:
            raise ArgumentError("base", "without mixing of its own", self.base)

    @property
    def mixes(self) -> bool:
        return True

    def draw(self, count: int, seed: int, generation: int, epoch: int) -> np.ndarray:
        """Share of a blend, share outside a box, and the box' centre: float32 `(count, 4)`.

        The first is 1 where an image gets a box, and the second where it is blended.
        """
        from scipy import special

        drawn = random_fractions(count, 4, Purpose.MIXING, seed, generation, epoch)
        shares = [
            special.betaincinv(a, a, drawn[:, 0].astype(float)) if a else np.ones(count)
            for a in (self.mixup, self.cutmix)
        ]
        if self.mixup and self.cutmix:
            blended = drawn[:, 1] < 0.5
            shares = [np.where(blended, shares[0], 1), np.where(blended, 1, shares[1])]
        return np.stack([*shares, *drawn[:, 2:].T], axis=1).astype(np.float32)

    def apply(
        self, images: Tensor, draws: Sequence[Tensor], preprocessing: Preprocessing
    ) -> Tensor:
        return self.base.apply(images, draws[:-1], preprocessing)

    def mix(self, images: Tensor, labels: Tensor, draws: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        import tensorflow as tf

        from kdtoolkit.data import distortions

        blend, outside, down, right = tf.unstack(draws[-1], axis=-1)
        own = distortions.outside_boxes(images.shape[1:3], 1 - outside, down, right)
        own *= blend[:, None, None, None]
        share = tf.reduce_mean(own, axis=(1, 2))  # (b, 1)
        rows = tf.one_hot(labels, self.classes)
        return (
            own * images + (1 - own) * tf.roll(images, 1, 0),
            share * rows + (1 - share) * tf.roll(rows, 1, 0),
        )
