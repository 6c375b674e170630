"""Photographs through the pipelines, from memory and from files, against Pillow."""

import io

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from kdtoolkit.data import (
    Augmentation,
    PhotographAugmentation,
    Preprocessing,
    Split,
    Views,
    describe,
    distortions,
    epoch_plan,
    load,
    loading,
)
from kdtoolkit.data.photographs import Draws

COUNT = 20
STEADY = PhotographAugmentation(brightness=0, contrast=0, saturation=0)


def smooth(index, size):
    """A photograph of sorts: random colours, blurred."""
    colours = np.random.default_rng(index).integers(0, 256, (4, 5, 3), np.uint8)
    return np.asarray(Image.fromarray(colours).resize(size[::-1], Image.Resampling.BICUBIC))


PHOTOGRAPHS = [smooth(i, (40 + i, 64 - i)) for i in range(COUNT)]


@pytest.fixture(params=["jpeg", "png"])
def photographs(request, tmp_path, monkeypatch):
    """A data set named `imagenet2012`, streamed, and the files of its photographs."""

    def encode(image):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, request.param, quality=95)
        buffer.seek(0)
        return buffer

    def examples(images):
        return [(i, {"image": encode(image), "label": i % 2}) for i, image in enumerate(images)]

    files = [encode(image).read() for image in PHOTOGRAPHS]
    features = {
        "image": tfds.features.Image(encoding_format=request.param),
        "label": tfds.features.ClassLabel(names=["ant", "bee"]),
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name="imagenet2012",
        version="5.1.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets={"train": examples(PHOTOGRAPHS), "validation": examples(PHOTOGRAPHS[:4])},
        data_dir=tmp_path,
        disable_shuffling=True,
        download_config=tfds.download.DownloadConfig(num_shards=2),
    )
    monkeypatch.setattr(loading, "MEMORY_LIMIT", 0)
    return load("imagenet2012", tmp_path, image_size=(24, 28), validation_fraction=0), files


def stored(split, dataset):
    """Pixels from 0 to 255 of normalised batches, and labels."""
    images, labels = (np.concatenate(part) for part in zip(*dataset, strict=True))
    images = images * np.array(split.preprocessing.std) + split.preprocessing.mean
    return 255 * images, labels


def crop(image, box, mirrored):
    top, left, height, width = box
    box = (left, top, left + width, top + height)
    # Cut out first, for a `box` to `resize` averages over pixels around it.
    cropped = Image.fromarray(image).crop(box).resize((28, 24), Image.Resampling.BILINEAR)
    return np.asarray(cropped)[:, ::-1] if mirrored else np.asarray(cropped)


def test_streamed_photographs_are_cropped_as_they_are_stored(photographs):
    data, files = photographs
    decoded = [np.asarray(Image.open(io.BytesIO(file))) for file in files]
    assert data.info.augmentation == PhotographAugmentation()
    data.train.augmentation = STEADY
    plan = epoch_plan(COUNT, 3, 1, 2, STEADY)
    drawn = Draws(*plan.draws.T)
    sizes = zip(*(image.shape[:2] for image in decoded), strict=True)
    boxes = distortions.crop_boxes(*map(np.array, sizes), drawn, STEADY).numpy()
    epoch = data.train.epochs(8, seed=3, generation=1, first_epoch=2, epochs=3)
    images, labels = stored(data.train, epoch)
    np.testing.assert_array_equal(labels, plan.order % 2)
    assert (drawn.flip < 0.5).any() and (drawn.flip >= 0.5).any()
    for image, index in zip(images, plan.order, strict=True):
        expected = crop(decoded[index], boxes[index], drawn.flip[index] < 0.5)
        error = np.abs(image - expected)
        # Both are rounded to grey levels. A JPEG's colours are stored at half the resolution: the
        # outermost columns of a box that is decoded alone, scaled with it here, lack neighbours.
        assert error[:, 3:-3].max() <= 1.01


def test_streamed_photographs_are_cut_about_the_centre_in_tests(photographs):
    data, files = photographs
    # TensorFlow Datasets decodes whole images less exactly than Pillow.
    decoded = [tf.io.decode_image(file).numpy() for file in files]
    for epoch, order in (
        (data.test.batches(3), range(4)),
        (data.train.epochs(8, seed=0, epochs=1, augment=False), epoch_plan(COUNT, 0, 0, 0).order),
    ):
        images, _ = stored(data.train, epoch)
        for image, index in zip(images, order, strict=True):
            height, width = decoded[index].shape[:2]
            scale = max(24 / height, 28 / width)
            size = max(round(width * scale), 28), max(round(height * scale), 24)
            scaled = np.asarray(Image.fromarray(decoded[index]).resize(size, Image.BILINEAR))
            top, left = (size[1] - 24) // 2, (size[0] - 28) // 2
            assert np.abs(image - scaled[top : top + 24, left : left + 28]).max() <= 1.01


def test_resumed_stream_is_the_tail_of_the_whole(photographs):
    train = photographs[0].train
    whole = list(train.epochs(8, seed=1, epochs=3).as_numpy_iterator())
    resumed = list(train.epochs(8, seed=1, first_epoch=1, epochs=3).as_numpy_iterator())
    for (images, labels), (same_images, same_labels) in zip(whole[3:], resumed, strict=True):
        assert images.tobytes() == same_images.tobytes()
        assert labels.tobytes() == same_labels.tobytes()
    assert not np.array_equal(np.sort(whole[0][0], axis=0), np.sort(whole[3][0], axis=0))


def test_views_of_streamed_photographs(photographs):
    assert_views_are_the_epochs_of_their_key(photographs[0].train)


def assert_views_are_the_epochs_of_their_key(split):
    """Whatever is in a view, a teacher sees it in stored order and a student in its own."""
    views = Views(2, seed=5)
    in_order, labels = stored(split, split.batches(6, views))
    _, stored_labels = stored(split, split.batches(6))
    np.testing.assert_array_equal(labels, np.tile(stored_labels, 2))
    count = len(split)
    for view in range(2):
        for epoch in (
            split.in_views(views).epochs(8, seed=7, first_epoch=view, epochs=view + 1),
            split.in_views(views).epochs(8, seed=7, first_epoch=view + 2, epochs=view + 3),
        ):
            images, own_labels = stored(split, epoch)
            order = np.array([np.abs(in_order - image).sum((1, 2, 3)).argmin() for image in images])
            assert sorted(order % count) == list(range(count)) and set(order // count) == {view}
            np.testing.assert_allclose(images, in_order[order], atol=1e-3)
            np.testing.assert_array_equal(own_labels, labels[order])


class TestInMemory:
    IMAGES = np.stack([smooth(i, (24, 28)) for i in range(COUNT)])

    def split(self, augmentation=PhotographAugmentation()):  # noqa: B008
        preprocessing = Preprocessing((24, 28, 3), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
        return Split(self.IMAGES, np.arange(COUNT, dtype=np.int32), preprocessing, augmentation)

    def test_crops(self):
        split = self.split(STEADY)
        images, order = stored(split, split.epochs(8, seed=3, epochs=1))
        drawn = Draws(*epoch_plan(COUNT, 3, 0, 0, STEADY).draws.T)
        sizes = np.full(COUNT, 24), np.full(COUNT, 28)
        boxes = distortions.crop_boxes(*sizes, drawn, STEADY).numpy()
        for image, index in zip(images, order, strict=True):
            expected = crop(self.IMAGES[index], boxes[index], drawn.flip[index] < 0.5)
            # Less the edges, where Pillow sees nothing beyond the box.
            error = np.abs(image - expected)[3:-3, 3:-3]
            assert error.max() <= 1.01

    def test_distorts_all_of_it(self):
        split = self.split()
        images, order = stored(split, split.epochs(8, seed=3, epochs=1))
        drawn = Draws(*epoch_plan(COUNT, 3, 0, 0, split.augmentation).draws[order].T)
        sizes = np.full(COUNT, 24), np.full(COUNT, 28)
        boxes = distortions.crop_boxes(*sizes, drawn, split.augmentation)
        enlarged = distortions.enlarge(self.IMAGES[order], boxes, drawn.flip < 0.5)
        expected = distortions.jitter(enlarged, drawn, split.augmentation)
        np.testing.assert_allclose(images, expected, atol=2e-3)

    def test_views_are_the_epochs_of_their_key(self):
        assert_views_are_the_epochs_of_their_key(self.split())


@pytest.mark.parametrize(
    ("size", "mode", "kind"),
    [
        ((96, 96), "RGB", PhotographAugmentation),
        ((96, 95), "RGB", Augmentation),
        ((96, 96), "L", Augmentation),
    ],
)
def test_folder_of_photographs_is_augmented_as_such(size, mode, kind, tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for index in range(4):
            image = Image.fromarray(smooth(index, size)).convert(mode)
            image.save(tmp_path / name / f"{index}.png")
    assert describe(str(tmp_path)).augmentation == kind()
    assert load(str(tmp_path)).train.augmentation == kind()
