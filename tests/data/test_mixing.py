"""Mixup and CutMix against NumPy in float64 and the distributions of their papers."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from kdtoolkit.data import (
    Augmentation,
    Mixing,
    Preprocessing,
    RandAugment,
    Split,
    Views,
    epoch_plan,
    load,
)

COUNT, CLASSES = 23, 5
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 10, 14, 3), np.uint8)
LABELS = (np.arange(COUNT) % CLASSES).astype(np.int32)
PREPROCESSING = Preprocessing((10, 14, 3), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
STILL = Augmentation(pad=0, flip=False)
BOTH = Mixing(STILL, CLASSES, mixup=0.4, cutmix=1.0)


def split(augmentation):
    return Split(IMAGES, LABELS, PREPROCESSING, augmentation)


def mixed(images, labels, draws):
    """A batch mixed image by image, in float64."""
    rows = np.eye(CLASSES)[labels]
    images, others = images.astype(float), np.roll(images.astype(float), 1, 0)
    found, found_rows = [], []
    for k, (blend, outside, down, right) in enumerate(draws.astype(float)):
        own = np.full((10, 14), blend)
        height, width = round(10 * np.sqrt(1 - outside)), round(14 * np.sqrt(1 - outside))
        top = int(np.round(np.float32(down * 10 - height / 2)))
        left = int(np.round(np.float32(right * 14 - width / 2)))
        own[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)] = 0
        found.append(own[..., None] * images[k] + (1 - own[..., None]) * others[k])
        found_rows.append(own.mean() * rows[k] + (1 - own.mean()) * rows[k - 1])
    return np.array(found), np.array(found_rows)


@pytest.mark.parametrize(
    "augmentation", [Mixing(STILL, CLASSES, mixup=0.4), Mixing(STILL, CLASSES, cutmix=1.0), BOTH]
)
def test_batches_are_mixed_image_by_image(augmentation):
    order, *_, draws = epoch_plan(COUNT, 3, 1, 2, augmentation)
    batches = split(augmentation).epochs(8, seed=3, generation=1, first_epoch=2, epochs=3)
    changed = 0
    for number, (images, labels) in enumerate(batches):
        indices = order[8 * number : 8 * number + 8]
        expected, rows = mixed(PREPROCESSING(IMAGES[indices]), LABELS[indices], draws[indices])
        np.testing.assert_allclose(images, expected, atol=1e-5)
        np.testing.assert_allclose(labels, rows, atol=1e-6)
        changed += np.sum(rows.max(-1) < 1)
    assert changed > COUNT / 4


def test_shares_are_beta_and_centres_uniform():
    blend, outside, down, right = Mixing(STILL, CLASSES, 0.4, 1.5).draw(20_000, 1, 2, 3).T
    blended = outside == 1
    assert abs(blended.mean() - 0.5) < 0.02 and (blend[~blended] == 1).all()
    # Kolmogorov and Smirnov: p below 0.001 is one false alarm in a thousand.
    for values, law in (
        (blend[blended], stats.beta(0.4, 0.4)),
        (outside[~blended], stats.beta(1.5, 1.5)),
        (down, stats.uniform()),
        (right, stats.uniform()),
    ):
        assert stats.kstest(values, law.cdf).pvalue > 0.001
    np.testing.assert_array_equal(BOTH.draw(50, 1, 2, 3), BOTH.draw(60, 1, 2, 3)[:50])
    assert (Mixing(STILL, CLASSES, 0.4).draw(50, 0, 0, 0)[:, 1] == 1).all()


def test_what_is_mixed_has_been_augmented():
    """And an epoch that is gone on with is the tail of the whole."""
    own = Augmentation(pad=2)
    alone = [images for images, _ in split(own).epochs(8, seed=3, epochs=2)]
    both = Mixing(own, CLASSES, mixup=1.0)
    whole = list(split(both).epochs(8, seed=3, epochs=2))
    for images, (found, _), number in zip(alone, whole, range(6), strict=True):
        order, *_, draws = epoch_plan(COUNT, 3, 0, number // 3, both)
        share = draws[order[8 * (number % 3) :][:8], 0][:, None, None, None]
        expected = share * images + (1 - share) * np.roll(images, 1, 0)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    resumed = split(both).epochs(8, seed=3, first_epoch=1, epochs=2)
    for (images, labels), (same, same_labels) in zip(whole[3:], resumed, strict=True):
        np.testing.assert_array_equal(images, same)
        np.testing.assert_array_equal(labels, same_labels)


def test_operations_around_what_is_mixed():
    """In either order each image is changed first, and then mixed."""
    shares = {"mixup": 1.0, "cutmix": 1.0}
    for (images, labels), (same, same_labels) in zip(
        split(RandAugment(Mixing(STILL, CLASSES, **shares))).epochs(8, seed=3, epochs=1),
        split(Mixing(RandAugment(STILL), CLASSES, **shares)).epochs(8, seed=3, epochs=1),
        strict=True,
    ):
        np.testing.assert_allclose(images, same, atol=1e-5)
        np.testing.assert_allclose(labels, same_labels, atol=1e-6)
        assert labels.shape[1] == CLASSES and np.max(labels, axis=-1).min() < 1


def test_images_that_are_not_augmented_are_not_mixed():
    images, labels = next(iter(split(BOTH).epochs(8, seed=0, epochs=1, augment=False)))
    order = epoch_plan(COUNT, 0, 0, 0).order[:8]
    np.testing.assert_array_equal(labels, LABELS[order])
    np.testing.assert_allclose(images, PREPROCESSING(IMAGES[order]), atol=1e-6)


def test_a_batch_of_one_stays_as_it_is():
    for images, labels in split(BOTH).epochs(1, seed=0, epochs=1).take(5):
        (place,) = np.flatnonzero(
            np.isclose(PREPROCESSING(IMAGES), images, atol=1e-5).all((1, 2, 3))
        )
        np.testing.assert_allclose(labels[0], np.eye(CLASSES)[LABELS[place]], atol=1e-6)


def test_what_is_fixed_cannot_be_mixed():
    for use in (
        lambda: split(BOTH).in_views(Views(2)),
        lambda: split(BOTH).batches(8, Views(2)),
    ):
        with pytest.raises(ValueError, match="`views` must be left out where images are mixed"):
            use()
    assert split(BOTH).bytes_for_device is None


def test_by_name():
    data = load("digits", mixup=0.2, train_examples=40)
    digits = Augmentation(pad=1, flip=False)
    assert data.train.augmentation == Mixing(digits, 10, mixup=0.2)
    assert data.train.fingerprint() != load("digits", train_examples=40).train.fingerprint()
    _, labels = next(iter(data.train.epochs(40, seed=0, epochs=1)))
    assert labels.dtype == tf.float32 and labels.shape == (40, 10)
    _, labels = next(iter(data.validation.batches(10)))
    assert labels.dtype == tf.int32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 1, "mixup": 1}, "`classes` must be an integer of at least 2"),
        ({"classes": 3}, "`mixup` must be above 0, or else `cutmix`"),
        ({"classes": 3, "mixup": -1}, "`mixup` must be at least 0"),
        ({"classes": 3, "cutmix": 1, "base": BOTH}, "`base` must be without mixing"),
    ],
)
def test_numbers_outside_their_range(options, message):
    with pytest.raises(ValueError, match=message):
        Mixing(**options)
