"""Small data sets on disk: two prepared by TensorFlow Datasets, and folders of images."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

TRAIN, TEST = 60, 12


def grey(index):
    """The pixels of stored image `index`: its number, so that it is known when it comes out."""
    return np.full((6, 6, 1), index, np.uint8)


@pytest.fixture(scope="session")
def tfds_dir(tmp_path_factory):
    """`grey/1.0.0` and `grey/1.10.0`: 60 training images in three files and 12 test images.

    `mixed/1.0.0`: images of several sizes and a training split alone.
    """
    path = tmp_path_factory.mktemp("tfds")

    def write(name, version, shape, splits):
        features = {
            "image": tfds.features.Image(shape=shape),
            "label": tfds.features.ClassLabel(names=["ant", "bee", "cat"]),
            "coarse_label": tfds.features.ClassLabel(names=["insect", "mammal"]),
        }
        tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version=version,
            features=tfds.features.FeaturesDict(features),
            split_datasets=splits,
            data_dir=path,
            disable_shuffling=True,
            download_config=tfds.download.DownloadConfig(num_shards=3),
        )

    def examples(images):
        return [
            (i, {"image": image, "label": i % 3, "coarse_label": int(i % 3 == 2)})
            for i, image in enumerate(images)
        ]

    for version, count in (("1.0.0", 3), ("1.10.0", TRAIN)):
        train = [grey(i) for i in range(count)]
        test = [grey(100 + i) for i in range(TEST)]
        splits = {"train": examples(train), "test": examples(test)}
        write("grey", version, (6, 6, 1), splits)
    mixed = [np.full((4 + i % 2, 8, 3), i, np.uint8) for i in range(15)]
    write("mixed", "1.0.0", (None, None, 3), {"train": examples(mixed)})
    return path


@pytest.fixture
def write_images(tmp_path):
    """Writes files `{path: (height, width) or pixels}` and returns their folder."""

    def write(files):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.zeros((*content, 3)) if isinstance(content, tuple) else content
            Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
        return str(tmp_path)

    return write
