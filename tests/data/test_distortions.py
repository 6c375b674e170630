"""Crops and colours of photographs, against NumPy in float64, SciPy and Pillow."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance
from scipy import ndimage, stats

from kdtoolkit.data import distortions
from kdtoolkit.data.photographs import Draws, PhotographAugmentation, draw

STILL = PhotographAugmentation((1, 1), (1, 1), 0, 0, 0)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 9, 12, 3)).astype(np.float32)


def draws(**values):
    """`Draws` of three images: the middle, but for what is given."""
    return Draws(**{name: np.full(3, 0.5, np.float32) for name in Draws._fields})._replace(
        **{name: np.asarray(value, np.float32) for name, value in values.items()}
    )


def whole(images):
    return np.tile([0, 0, *images.shape[1:3]], (len(images), 1))


def test_draws_are_pure_and_uniform():
    drawn = draw(20_000, 1, 2, 3).T
    assert drawn.dtype == np.float32 and len(drawn) == len(Draws._fields)
    np.testing.assert_array_equal(drawn[:, :50], draw(50, 1, 2, 3).T)
    for key in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert not np.isin(drawn[:, :50], draw(50, *key)).any()
    for column in drawn:
        # Chi-square with 99 degrees of freedom: 148.2 is exceeded once in a thousand.
        assert np.sum((np.histogram(column, 100, (0, 1))[0] - 200) ** 2 / 200) < 148.2
    correlations = np.corrcoef(drawn) - np.eye(len(drawn))
    assert np.abs(correlations).max() < 4 / 20_000**0.5


class TestCropBoxes:
    COUNT = 20_000

    def boxes(self, height, width, augmentation=PhotographAugmentation()):  # noqa: B008
        sizes = np.full(self.COUNT, height), np.full(self.COUNT, width)
        drawn = Draws(*draw(self.COUNT, seed=0, generation=0, epoch=0).T)
        return distortions.crop_boxes(*sizes, drawn, augmentation).numpy()

    @pytest.mark.parametrize("size", [(375, 500), (500, 375), (200, 200), (40, 400), (400, 40)])
    def test_lie_in_the_image_and_have_the_allowed_proportions(self, size):
        top, left, height, width = self.boxes(*size).T
        assert min(top.min(), left.min()) >= 0
        assert (top + height).max() <= size[0] and (left + width).max() <= size[1]
        # Half a pixel of rounding on either edge.
        assert np.all((width + 0.5) / (height - 0.5) >= 3 / 4)
        assert np.all((width - 0.5) / (height + 0.5) <= 4 / 3)
        # The largest box of 4 / 3 or 3 / 4 that fits, and eight hundredths of the image.
        height_or_width = min(size)
        largest = min(size[0] * size[1], height_or_width**2 * 4 / 3)
        areas = height * width / (size[0] * size[1])
        assert areas.max() <= 1.05 * largest / (size[0] * size[1])
        assert areas.min() >= 0.07

    def test_areas_proportions_and_places_are_uniform(self):
        size = 10_000  # so large that rounding does not matter
        small = PhotographAugmentation(area=(0.1, 0.5))  # 3 / 4 and 4 / 3 always fit
        top, left, height, width = self.boxes(size, size, small).T.astype(float)
        for values in (
            (height * width / size**2 - 0.1) / 0.4,
            (np.log(width / height) / np.log(4 / 3) + 1) / 2,
            top / (size - height),
            left / (size - width),
        ):
            # Kolmogorov and Smirnov's distance is exceeded once in a thousand.
            assert stats.kstest(values, "uniform").statistic < 1.95 / self.COUNT**0.5

    def test_by_hand(self):
        # Half of 100 x 200 pixels, square: sqrt(10000) = 100 of 100 rows; the middle of 200 - 100.
        half = dataclasses.replace(STILL, area=(0.5, 0.5))
        boxes = distortions.crop_boxes([100] * 3, [200] * 3, draws(left=[0, 0.5, 0.999]), half)
        assert boxes.numpy().tolist() == [[0, 0, 100, 100], [0, 50, 100, 100], [0, 100, 100, 100]]
        # At 0.6 of the area, from 0.6 * 200 / 100 = 1.2 to 4 / 3: half way of the logarithms,
        # sqrt(1.6) = 1.26491; sqrt(12000 / 1.26491) = 97.40, sqrt(12000 * 1.26491) = 123.20.
        larger = dataclasses.replace(STILL, area=(0.6, 0.6), aspect=(3 / 4, 4 / 3))
        boxes = distortions.crop_boxes([100] * 3, [200] * 3, draws(top=[0, 0, 0.9]), larger)
        assert boxes.numpy().tolist() == [[0, 39, 97, 123], [0, 39, 97, 123], [3, 39, 97, 123]]
        # The whole of it has no such proportions: 100 x 133.
        all_of_it = dataclasses.replace(larger, area=(1, 1))
        boxes = distortions.crop_boxes([100] * 3, [200] * 3, draws(), all_of_it)
        assert boxes.numpy()[0].tolist() == [0, 34, 100, 133]


class TestEnlarge:
    def test_whole_images_stay_as_they_are(self):
        enlarged = distortions.enlarge(IMAGES, whole(IMAGES), [False] * 3)
        np.testing.assert_allclose(enlarged, IMAGES, atol=1e-3)
        of_bytes = distortions.enlarge(IMAGES.astype(np.uint8), whole(IMAGES), [False] * 3)
        assert of_bytes.dtype == tf.float32
        np.testing.assert_array_equal(of_bytes, enlarged)

    def test_some_are_mirrored(self):
        enlarged = distortions.enlarge(IMAGES, whole(IMAGES), [True, False, True])
        expected = np.stack([IMAGES[0, :, ::-1], IMAGES[1], IMAGES[2, :, ::-1]])
        np.testing.assert_allclose(enlarged, expected, atol=1e-3)

    def test_as_scipy_does(self):
        boxes = np.array([[2, 3, 6, 8], [0, 0, 9, 12], [6, 8, 3, 4], [0, 0, 1, 1]])
        images = np.concatenate([IMAGES, IMAGES[:1]])
        mirrored = np.array([True, False, False, True])
        enlarged = distortions.enlarge(images, boxes, mirrored).numpy()
        rows, columns = np.mgrid[:9, :12]
        for i, (top, left, height, width) in enumerate(boxes):
            # Pixels have their place in the middle: of a pixel's edges, ours and theirs meet.
            x = 11 - columns if mirrored[i] else columns
            place = top + (rows + 0.5) * height / 9 - 0.5, left + (x + 0.5) * width / 12 - 0.5
            for channel in range(3):
                expected = ndimage.map_coordinates(
                    images[i, ..., channel].astype(float), place, order=1, mode="nearest"
                )
                np.testing.assert_allclose(enlarged[i, ..., channel], expected, atol=5e-3)


class TestJitter:
    def test_against_float64(self):
        augmentation = dataclasses.replace(STILL, brightness=0.4, contrast=0.3, saturation=0.2)
        drawn = draws(brightness=[0, 0.9, 0.5], contrast=[0.5, 0.2, 1], saturation=[0.3, 0.5, 1])
        found = distortions.jitter(IMAGES, drawn, augmentation).numpy()
        for i, image in enumerate(IMAGES.astype(np.float64)):
            bright = image * (1 + 0.4 * (2 * drawn.brightness[i] - 1.0))
            contrast = 1 + 0.3 * (2 * drawn.contrast[i] - 1.0)
            mean = (bright @ [0.299, 0.587, 0.114]).mean()
            contrasted = contrast * bright + (1 - contrast) * mean
            saturation = 1 + 0.2 * (2 * drawn.saturation[i] - 1.0)
            grey = (contrasted @ [0.299, 0.587, 0.114])[..., None]
            expected = saturation * contrasted + (1 - saturation) * grey
            np.testing.assert_allclose(found[i], np.clip(expected, 0, 255), atol=2e-3)

    @pytest.mark.parametrize(
        ("name", "enhance"),
        [
            ("brightness", ImageEnhance.Brightness),
            ("contrast", ImageEnhance.Contrast),
            ("saturation", ImageEnhance.Color),
        ],
    )
    def test_each_as_pillow_does(self, name, enhance):
        augmentation = dataclasses.replace(STILL, **{name: 0.5})
        found = distortions.jitter(IMAGES, draws(**{name: [0.2, 0.5, 0.9]}), augmentation).numpy()
        for image, pixels, factor in zip(IMAGES, found, (0.7, 1, 1.4), strict=True):
            expected = enhance(Image.fromarray(image.astype(np.uint8))).enhance(factor)
            # Pillow rounds its grey and its result.
            assert np.abs(pixels - np.asarray(expected, float)).max() <= 1.6

    def test_grey_images_have_no_saturation(self):
        augmentation = dataclasses.replace(STILL, saturation=0.5, brightness=0.5)
        grey = IMAGES[..., :1]
        found = distortions.jitter(
            grey, draws(saturation=[0] * 3, brightness=[0] * 3), augmentation
        )
        np.testing.assert_allclose(found, grey / 2, rtol=1e-5)


@pytest.mark.parametrize("channels", [2, 4])
def test_other_channels_are_each_their_own_grey(channels):
    images = RNG.integers(0, 256, (3, 9, 12, channels)).astype(np.float32)
    augmentation = dataclasses.replace(STILL, saturation=0.5, contrast=0.5)
    drawn = draws(saturation=[0, 0.2, 1], contrast=[0.7, 0.5, 0])
    found = distortions.jitter(images, drawn, augmentation).numpy()
    contrast = np.array([1.2, 1, 0.5])[:, None, None, None]
    expected = contrast * images + (1 - contrast) * images.mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(found, np.clip(expected, 0, 255), atol=2e-3)


def test_works_in_a_graph_of_unknown_batch():
    augmentation = PhotographAugmentation()

    @tf.function(input_signature=[tf.TensorSpec([None, 9, 12, 3]), tf.TensorSpec([None, 8])])
    def distort(images, drawn):
        drawn = Draws(*tf.unstack(drawn, axis=1))
        heights = tf.fill(tf.shape(images)[:1], 9)
        boxes = distortions.crop_boxes(heights, heights, drawn, augmentation)
        enlarged = distortions.enlarge(images, boxes, drawn.flip < 0.5)
        return distortions.jitter(enlarged, drawn, augmentation)

    assert distort(IMAGES, draw(3, 0, 0, 0)).shape == (3, 9, 12, 3)
