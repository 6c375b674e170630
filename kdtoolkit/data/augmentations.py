"""Augmentations by name, and the one that suits a data set."""

from kdtoolkit._checks import OneOf, check
from kdtoolkit._types import ImageShape
from kdtoolkit.data.augmentation import Augmentation, Augmenter
from kdtoolkit.data.photographs import PhotographAugmentation
from kdtoolkit.data.rand_augment import RandAugment

_KINDS: dict[str, type[Augmenter]] = {"crop": Augmentation, "photograph": PhotographAugmentation}

AUGMENTATIONS = OneOf((*_KINDS, "randaugment"))
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
    if name == "randaugment":
        # Its own operations change colours.
        of_photographs = isinstance(usual, PhotographAugmentation)
        return RandAugment(PhotographAugmentation.of_crops() if of_photographs else usual)
    return usual if isinstance(usual, _KINDS[name]) else _KINDS[name]()


def suited(image_shape: ImageShape | None) -> Augmenter:
    """Returns the augmentation that suits images of which only their shape is known."""
    if image_shape is None or min(image_shape[:2]) < _SMALLEST or image_shape[-1] != 3:
        return Augmentation()
    return PhotographAugmentation()
