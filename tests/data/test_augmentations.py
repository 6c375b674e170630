"""Augmentations by name."""

import numpy as np
import pytest

from kdtoolkit.data import Augmentation, PhotographAugmentation, RandAugment, load
from kdtoolkit.data.augmentations import named


def test_augmentation_by_name():
    digits = load("digits").train.augmentation
    assert digits == Augmentation(pad=1, flip=False)
    assert load("digits", augmentation="crop").train.augmentation == digits
    assert load("digits", augmentation="randaugment").train.augmentation == RandAugment(digits)
    data = load("digits", augmentation="photograph", train_examples=20)
    assert data.train.augmentation == PhotographAugmentation()
    images, _ = next(iter(data.train.epochs(20, seed=0, generation=0, epochs=1)))
    assert np.isfinite(images).all()
    with pytest.raises(ValueError, match="`augmentation` must be one of crop, photograph"):
        load("digits", augmentation="photo")


def test_randaugment_has_the_crops_that_suit():
    crops = PhotographAugmentation(brightness=0, contrast=0, saturation=0)
    assert named("randaugment", PhotographAugmentation()) == RandAugment(crops)
    assert named("crop", PhotographAugmentation()) == Augmentation()
