"""NumPy archives, against the arrays that were written."""

import numpy as np
import pytest

from kdtoolkit.data import describe, load

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (30, 6, 5, 3), np.uint8)
LABELS = np.arange(30) % 3
KERAS = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:6], "y_test": LABELS[:6]}


@pytest.fixture
def write(tmp_path):
    def write(arrays, save=np.savez):
        path = tmp_path / "data.npz"
        save(path, **arrays)
        return str(path)

    return write


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("column", [False, True])
def test_keras_names(write, save, column):
    arrays = {**KERAS, "y_train": LABELS[:, None]} if column else {**KERAS, "x_val": IMAGES}
    path = write(arrays, save)
    info = describe(path)
    assert (info.kind, info.image_shape, info.classes) == ("archive", (6, 5, 3), 3)
    assert (info.train_size, info.test_size, info.test_split) == (30, 6, "test")
    data = load(path, validation_fraction=0)
    for split, images, labels in (
        (data.train, IMAGES, LABELS),
        (data.test, IMAGES[:6], LABELS[:6]),
    ):
        np.testing.assert_array_equal(split.images, images)
        np.testing.assert_array_equal(split.labels, labels)
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)


def test_images_and_labels(write):
    path = write({"images": IMAGES[..., 0], "labels": LABELS.astype(np.uint8)})
    assert describe(path).image_shape == (6, 5, 1)
    data = load(path)
    # A fifth of thirty is tested on, a tenth of the twenty-four others rounds to two.
    assert (len(data.train), len(data.validation), len(data.test)) == (22, 2, 6)
    index = {image.tobytes(): i for i, image in enumerate(IMAGES[..., :1])}
    found = [
        index[image.tobytes()]
        for s in (data.train, data.validation, data.test)
        for image in s.images
    ]
    assert sorted(found) == list(range(30))
    labels = np.concatenate([s.labels for s in (data.train, data.validation, data.test)])
    np.testing.assert_array_equal(labels, LABELS[found])


def test_image_size(write):
    constant = np.broadcast_to(np.arange(30, dtype=np.uint8)[:, None, None], (30, 6, 5))
    data = load(write({"images": constant, "labels": LABELS}), image_size=4)
    assert data.info.image_shape == (4, 4, 1)
    images = np.concatenate([s.images for s in (data.train, data.validation, data.test)])
    np.testing.assert_array_equal(np.sort(images[:, 3, 0, 0]), np.arange(30))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_train": None}, r"arrays x_train, y_train, x_test, y_test or images, labels\. It has: "
         r"x_test, y_test, y_train$"),
        ({"x_train": IMAGES / 255}, r"'x_train' .* uint8 .* Received: float64 \(30, 6, 5, 3\)$"),
        ({"x_train": IMAGES[..., :2]}, r"1 or 3 channels\. Received: uint8 \(30, 6, 5, 2\)$"),
        ({"x_train": IMAGES[:0]}, r"Received: uint8 \(0, 6, 5, 3\)$"),
        ({"x_train": IMAGES[:, 0, 0]}, r"Received: uint8 \(30, 3\)$"),
        ({"x_train": IMAGES[:7]}, "label for each image. Received: 7 images in 'x_train', 30 lab"),
        ({"x_test": IMAGES[:6, :4]}, r"same shape\. Received: \(6, 5, 3\) and \(4, 5, 3\)$"),
        ({"y_train": np.eye(3)[LABELS]}, r"'y_train' .* integers .* Received: float64 \(30, 3\)$"),
        ({"y_train": LABELS + 1}, r"from 0.* Received: 3 different labels in .*, from 1 to 3$"),
        ({"y_train": LABELS - 1}, r"3 different labels in 'y_train', from -1 to 1$"),
        ({"y_train": 2 * LABELS}, r"3 different labels in 'y_train', from 0 to 4$"),
        ({"y_test": LABELS[:6] * 4}, r"same classes in 'y_train' and 'y_test'.* only: 1, 2, 4 and"),
        ({"y_train": np.array(["a"] * 30, object)}, r"array 'y_train' .*: Object arrays cannot be"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit(write, change, message):
    arrays = {name: array for name, array in {**KERAS, **change}.items() if array is not None}
    with pytest.raises(ValueError, match=message) as error:
        describe(write(arrays))
    assert "\n" not in str(error.value) and "data.npz" in str(error.value)


def test_damaged_files(write, tmp_path):
    path = tmp_path / "none.npz"
    with pytest.raises(ValueError, match=r"Cannot read archive '.*none.npz': No such file"):
        describe(str(path))
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"Cannot read archive '.*none.npz': File is not a zip"):
        describe(str(path))
    whole = write(KERAS)
    with open(whole, "r+b") as file:
        file.seek(2000)  # among the pixels of the first array
        file.write(b"damage")
    with pytest.raises(ValueError, match=r"Cannot read archive '.*data.npz': Bad CRC-32") as error:
        load(whole)
    assert "\n" not in str(error.value)
