"""RandAugment through the pipelines, from memory and from files."""

import numpy as np
import pytest
from PIL import Image

from kdtoolkit.data import (
    Augmentation,
    PhotographAugmentation,
    Preprocessing,
    RandAugment,
    Split,
    distortions,
    epoch_plan,
    load,
    loading,
)
from kdtoolkit.data.image_operations import OPERATIONS, apply_each
from kdtoolkit.data.photographs import Draws

COUNT = 24
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 12, 14, 3), np.uint8)
LABELS = np.arange(COUNT, dtype=np.int32)
PREPROCESSING = Preprocessing((12, 14, 3), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
STILL = Augmentation(pad=0, flip=False)


def epoch_of(augmentation, batch_size=10, **key):
    """Images of an epoch in stored order."""
    split = Split(IMAGES, LABELS, PREPROCESSING, augmentation)
    epoch = split.epochs(batch_size, **{"seed": 3, "epochs": 1, **key})
    images, labels = (np.concatenate(part) for part in zip(*epoch, strict=True))
    return images[np.argsort(labels)]


def operated(images, drawn, magnitude):
    """The images after all that was drawn, one operation after another."""
    images = images.astype(np.float32)
    for number in range(drawn.shape[1]):
        kinds = np.floor(drawn[:, number, 0] * 14).astype(np.int32)
        signs = np.where(drawn[:, number, 1] < 0.5, -1, 1).astype(np.float32)
        images = apply_each(images, kinds, signs, magnitude / 30, (102.0, 127.5, 153.0))
    return np.asarray(images)


def test_operations_come_before_crops_and_mirrors():
    augmentation = RandAugment(Augmentation(pad=2), operations=3, magnitude=15)
    _, offsets, flips, drawn = epoch_plan(COUNT, 3, 1, 2, augmentation)
    expected = PREPROCESSING(operated(IMAGES, drawn, 15))
    expected = distortions.crop_and_flip(expected, offsets, flips, 2)
    found = epoch_of(augmentation, generation=1, first_epoch=2, epochs=3)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # Whatever the batch is, an image is what it is.
    again = epoch_of(augmentation, batch_size=7, generation=1, first_epoch=2, epochs=3)
    np.testing.assert_allclose(again, found, atol=1e-5)


def test_draws_are_those_of_the_augmentation_alone_and_uniform():
    augmentation = RandAugment(operations=3)
    count = 20_000
    order, offsets, flips, drawn = epoch_plan(count, 1, 2, 3, augmentation)
    for part, alone in zip((order, offsets, flips), epoch_plan(count, 1, 2, 3), strict=True):
        np.testing.assert_array_equal(part, alone)
    assert drawn.shape == (count, 3, 2)
    np.testing.assert_array_equal(drawn[:50], epoch_plan(50, 1, 2, 3, augmentation)[-1])
    assert not np.isin(drawn[:50], epoch_plan(50, 1, 2, 4, augmentation)[-1]).any()
    for column in drawn.reshape(count, -1).T:
        counts = np.bincount((column * len(OPERATIONS)).astype(int), minlength=14)
        # Chi-square with 13 degrees of freedom: 34.5 is exceeded once in a thousand.
        assert np.sum((counts - count / 14) ** 2 / (count / 14)) < 34.5


def test_boxes_are_cut_before():
    crops = PhotographAugmentation.of_crops()
    augmentation = RandAugment(crops)
    plan = epoch_plan(COUNT, 3, 0, 0, augmentation)
    drawn = Draws(*plan[1].T)
    sizes = np.full(COUNT, 12), np.full(COUNT, 14)
    boxes = distortions.crop_boxes(*sizes, drawn, crops)
    enlarged = np.round(distortions.enlarge(IMAGES, boxes, drawn.flip < 0.5))
    expected = PREPROCESSING(operated(enlarged, plan[2], 9))
    np.testing.assert_allclose(epoch_of(augmentation), expected, atol=2e-3)


def test_streamed_images_are_the_same(tmp_path, monkeypatch):
    for index in range(COUNT):
        folder = tmp_path / "ab"[index % 2]
        folder.mkdir(exist_ok=True)
        Image.fromarray(IMAGES[index]).save(folder / f"{index}.png")
    options = {"validation_fraction": 0, "augmentation": "randaugment"}
    held = load(str(tmp_path), **options).train
    monkeypatch.setattr(loading, "MEMORY_LIMIT", 0)
    monkeypatch.setattr(loading, "HELD_LIMIT", 0)
    streamed = load(str(tmp_path), **options).train
    assert type(streamed) is not type(held) and streamed.augmentation == RandAugment()
    pairs = zip(held.epochs(8, seed=0, epochs=2), streamed.epochs(8, seed=0, epochs=2), strict=True)
    for (images, labels), (same_images, same_labels) in pairs:
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(labels, same_labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"operations": 0}, "`operations` must be a positive integer"),
        ({"magnitude": 31}, r"`magnitude` must be in \[0, 30\]"),
    ],
)
def test_numbers_outside_their_range(options, message):
    with pytest.raises(ValueError, match=message):
        RandAugment(**options)
