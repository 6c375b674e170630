"""RandAugment's operations against Pillow, which defines them, and SciPy."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

from kdtoolkit.data.image_operations import OPERATIONS, apply_each

STRENGTH = 0.4
COLOUR = (100.0, 20.0, 200.0)


def smooth(seed, size=(20, 26)):
    colours = np.random.default_rng(seed).integers(20, 230, (4, 5, 3), np.uint8)
    return np.asarray(Image.fromarray(colours).resize(size[::-1], Image.Resampling.BICUBIC))


IMAGES = np.stack([smooth(seed) for seed in range(4)])
SIGNS = np.array([1, -1, -1, 1], np.float32)


def applied(name, images=IMAGES, strength=STRENGTH):
    kinds = np.full(len(images), list(OPERATIONS).index(name), np.int32)
    colour = COLOUR[: images.shape[-1]]
    return apply_each(images.astype(np.float32), kinds, SIGNS, strength, colour).numpy()


def enhanced(enhance):
    def operation(image, sign):
        return enhance(image).enhance(1 + sign * 0.9 * STRENGTH)

    return operation


PILLOW = {
    "identity": lambda image, sign: image,
    "auto_contrast": lambda image, sign: ImageOps.autocontrast(image),
    "equalize": lambda image, sign: ImageOps.equalize(image),
    "solarize": lambda image, sign: ImageOps.solarize(image, 154),  # above 256 (1 - 0.4)
    "posterize": lambda image, sign: ImageOps.posterize(image, 6),  # 8 - round(4 * 0.4)
    "brightness": enhanced(ImageEnhance.Brightness),
    "contrast": enhanced(ImageEnhance.Contrast),
    "saturation": enhanced(ImageEnhance.Color),
    "sharpness": enhanced(ImageEnhance.Sharpness),
}


@pytest.mark.parametrize("name", PILLOW)
def test_colours_are_pillows(name):
    expected = [
        np.asarray(PILLOW[name](Image.fromarray(image), sign))
        for image, sign in zip(IMAGES, SIGNS, strict=True)
    ]
    found = applied(name)
    # Pillow cuts fractions off where a blend is rounded here.
    tolerance = 0 if name in ("identity", "equalize", "solarize", "posterize") else 1
    assert np.abs(found - expected).max() <= tolerance
    assert name == "identity" or (found != IMAGES).mean() > 0.2


def test_equalize_leaves_what_cannot_be_spread():
    flat = np.full((4, 20, 26, 1), 7, np.uint8)
    flat[:, 0, 0] = 9  # 519 pixels of one value and one of another
    for name in ("equalize", "auto_contrast"):
        found = applied(name, flat)
        image = Image.fromarray(flat[0, ..., 0])
        np.testing.assert_array_equal(found[0, ..., 0], np.asarray(PILLOW[name](image, 1)))
    still = np.full((4, 20, 26, 1), 7, np.uint8)
    for name in ("equalize", "auto_contrast"):
        np.testing.assert_array_equal(applied(name, still), still)


# Where a pixel at (row, column) from the centre comes from, at strength 0.4.
ANGLE = np.deg2rad(12)
MOVES = {
    "rotate": lambda s: (
        [[np.cos(ANGLE), s * np.sin(ANGLE)], [-s * np.sin(ANGLE), np.cos(ANGLE)]],
        (0, 0),
    ),
    "shear_x": lambda s: ([[1, 0], [s * 0.12, 1]], (0, 0)),
    "shear_y": lambda s: ([[1, s * 0.12], [0, 1]], (0, 0)),
    "translate_x": lambda s: (np.eye(2), (0, s * 5)),  # 0.18 of 26
    "translate_y": lambda s: (np.eye(2), (s * 4, 0)),  # 0.18 of 20
}


@pytest.mark.parametrize("name", MOVES)
def test_moves_are_scipys(name):
    found = applied(name)
    centre = np.array([19, 25]) / 2
    for image, sign, moved in zip(IMAGES, SIGNS, found, strict=True):
        matrix, offset = MOVES[name](sign)
        offset = centre - np.asarray(matrix) @ centre + offset
        for channel, colour in enumerate(COLOUR):
            expected = ndimage.affine_transform(
                image[..., channel].astype(float),
                matrix,
                offset,
                order=1,
                mode="grid-constant",
                cval=colour,
            )
            assert np.abs(moved[..., channel] - expected).max() <= 0.51
    assert (found == np.array(COLOUR)).all(-1).any()


def test_rotation_is_pillows():
    """Not only by the sign that the test above has as well."""
    for image, sign, found in zip(IMAGES, SIGNS, applied("rotate"), strict=True):
        pillows = Image.fromarray(image).rotate(12 * sign, Image.Resampling.BILINEAR)
        inside = np.asarray(Image.new("L", (26, 20), 255).rotate(12 * sign)) == 255
        inside = ndimage.binary_erosion(inside, iterations=2)
        assert np.abs(found - np.asarray(pillows))[inside].max() <= 2


def test_each_image_has_its_own_operation():
    count = len(OPERATIONS)
    images = np.tile(IMAGES[:1], (2 * count, 1, 1, 1)).astype(np.float32)
    kinds = np.random.default_rng(0).permutation(np.arange(2 * count) % count).astype(np.int32)
    signs = np.where(np.arange(2 * count) % 3, 1, -1).astype(np.float32)
    found = tf.function(apply_each)(images, kinds, signs, STRENGTH, COLOUR).numpy()
    for image, kind, sign, changed in zip(images, kinds, signs, found, strict=True):
        alone = apply_each(image[None], [kind], [sign], STRENGTH, COLOUR)[0]
        np.testing.assert_array_equal(changed, alone)


def test_strength_0_changes_nothing():
    for name in OPERATIONS:
        if name in ("auto_contrast", "equalize"):
            continue
        found = applied(name, strength=0.0)
        np.testing.assert_array_equal(found, IMAGES, err_msg=name)


def test_grey_images():
    grey = IMAGES[..., :1]
    for name in OPERATIONS:
        found = applied(name, grey)
        if name in PILLOW:
            expected = PILLOW[name](Image.fromarray(grey[1, ..., 0]), SIGNS[1])
            if name == "saturation":
                expected = grey[1, ..., 0]
            assert np.abs(found[1, ..., 0] - np.asarray(expected)).max() <= 1
