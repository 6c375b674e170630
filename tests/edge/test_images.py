"""Pictures of any kind, against hand-computed pixels, Pillow and the training pipeline."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from kdtoolkit.data import scaling
from kdtoolkit.edge import images

RNG = np.random.default_rng(0)


def pixels(*values):
    return np.array(values, np.uint8)


def draw(height, width, channels):
    """Random pixels beside flat and ramped ones."""
    image = RNG.integers(0, 256, (height, width, channels))
    image[: height // 2, : width // 3] = 255
    image[height // 2 :, width // 2 :] = np.linspace(0, 255, width - width // 2)[:, None]
    return image.astype(np.uint8)


def test_an_image_that_fits_is_not_copied():
    image = draw(4, 5, 3)
    assert images.fit(image, (4, 5, 3)) is image


@pytest.mark.parametrize("shape", [(1, 2), (1, 2, 1)])
def test_grey_becomes_colour(shape):
    image = pixels(10, 200).reshape(shape)
    assert images.fit(image, (1, 2, 3)).tolist() == [[[10, 10, 10], [200, 200, 200]]]
    assert images.fit(image, (1, 2, 1)).tolist() == [[[10], [200]]]


def test_colour_becomes_grey():
    # 0.299 * 100 + 0.587 * 50 + 0.114 * 200 = 82.05; white stays white.
    image = pixels([[100, 50, 200], [255, 255, 255]])
    assert images.fit(image, (1, 2, 1)).tolist() == [[[82], [255]]]


def test_colour_becomes_the_grey_of_pillow():
    image = draw(30, 40, 3)
    expected = np.asarray(Image.fromarray(image).convert("L"), int)
    # Pillow's weights are rounded to 16 bits.
    assert np.abs(images.fit(image, (30, 40, 1))[..., 0] - expected).max() <= 1


def test_transparency_is_laid_over_white():
    # Opacity 51 / 255 = 0.2: 0.2 * 100 + 0.8 * 255 = 224.
    image = pixels([[100, 0, 255, 51], [1, 2, 3, 0], [1, 2, 3, 255]])
    over_white = [[224, 204, 255], [255, 255, 255], [1, 2, 3]]
    assert images.fit(image, (1, 3, 3)).tolist() == [over_white]
    # 0.299 * 224 + 0.587 * 204 + 0.114 * 255 = 215.794; 0.299 + 2 * 0.587 + 3 * 0.114 = 1.815.
    assert images.fit(image, (1, 3, 1)).tolist() == [[[216], [255], [2]]]


def test_shrinking_averages_all_pixels():
    # Distances of the pixels from the first centre are 0.5, 0.5, 1.5 of a half-width of 2: weights
    # 3, 3 and 1, (0 * 3 + 70 * 3 + 140) / 7 = 50.
    ramp = np.broadcast_to(pixels(0, 70, 140, 210)[:, None, None], (4, 4, 1))
    assert images.cover(ramp, (2, 2))[..., 0].tolist() == [[50, 50], [160, 160]]
    assert images.cover(ramp.swapaxes(0, 1), (2, 2))[..., 0].tolist() == [[50, 160], [50, 160]]


def test_enlarging_interpolates():
    image = pixels([[0], [100]])
    # New centres lie at 0.25, 0.75, 1.25 and 1.75; the old ones at 0.5 and 1.5.
    assert images.cover(image, (2, 4))[..., 0].tolist() == [[0, 25, 75, 100]] * 2


def test_what_is_left_over_is_cut_about_the_centre():
    image = draw(3, 9, 3)
    np.testing.assert_array_equal(images.cover(image, (3, 3)), image[:, 3:6])
    image = draw(8, 3, 3)
    np.testing.assert_array_equal(images.cover(image, (3, 3)), image[2:5])


@pytest.mark.parametrize("stored", [(48, 64, 3), (50, 31, 1), (7, 90, 3), (5, 6, 3), (200, 151, 3)])
@pytest.mark.parametrize("size", [(16, 16), (12, 25), (33, 9)])
def test_equals_pillow_and_the_training_pipeline(stored, size):
    image = draw(*stored)
    covered = images.cover(image, size).astype(int)
    assert np.abs(covered - np.array(scaling.cover(image, size))).max() <= 1

    scale = max(size[0] / stored[0], size[1] / stored[1])
    height, width = (max(round(n * scale), s) for n, s in zip(stored[:2], size, strict=True))
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    for channel in range(stored[-1]):
        scaled = Image.fromarray(image[..., channel].astype(np.float32)).resize(
            (width, height), Image.Resampling.BILINEAR
        )
        expected = np.asarray(scaled)[top : top + size[0], left : left + size[1]]
        assert np.abs(covered[..., channel] - expected).max() <= 0.51


def test_a_long_strip_takes_no_more_memory_than_itself():
    # Scaled to a height of 32 it would be 64 million pixels wide.
    image = np.broadcast_to(pixels([90], [30])[..., None], (2, 4_000_000, 1))
    tracemalloc.start()
    covered = images.cover(image, (32, 32))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20
    np.testing.assert_array_equal(covered[[0, -1], :, 0], [[90] * 32, [30] * 32])


@pytest.mark.parametrize(
    "image, received",
    [
        (np.zeros((4, 4, 3)), "float64"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
        ([[0, 1], [2, 3]], "list"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
    ],
)
def test_no_image(image, received):
    with pytest.raises(ValueError, match=f"Argument `image` must .*Received: {received}$"):
        images.fit(image, (4, 4, 3))
