"""NumPy archives, against the arrays that were written."""

import io
import os
import tracemalloc
import zipfile

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
    arrays = {**KERAS, "y_train": LABELS[:, None]} if column else {**KERAS, "more": IMAGES}
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


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
@pytest.mark.parametrize("has_test", [True, False])
def test_validation_images(write, name, has_test):
    """They validate beside test images, and test where there are none; as those of a folder do."""
    arrays = KERAS if has_test else {key: KERAS[key] for key in ("x_train", "y_train")}
    path = write({**arrays, f"x_{name}": IMAGES[9:], f"y_{name}": LABELS[9:]})
    info, data = describe(path), load(path, validation_fraction=0.5)
    if has_test:
        assert (info.validation_split, info.test_split) == (name, "test")
        assert (info.train_size, info.validation_size, info.test_size) == (30, 21, 6)
        np.testing.assert_array_equal(data.train.images, IMAGES)
        np.testing.assert_array_equal(data.test.images, IMAGES[:6])
        held = data.validation
    else:
        assert (info.validation_split, info.test_split) == (None, name)
        assert (info.train_size, info.validation_size, info.test_size) == (30, None, 21)
        assert (len(data.train), len(data.validation)) == (15, 15)
        held = data.test
    np.testing.assert_array_equal(held.images, IMAGES[9:])
    np.testing.assert_array_equal(held.labels, LABELS[9:])


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
        ({"x_train": None}, r"arrays x_train, y_train, .* labels alone\. It has: "
         r"x_test, y_test, y_train$"),
        ({"x_test": None, "y_test": None}, r"It has: x_train, y_train$"),
        ({"x_val": IMAGES}, r"It has: x_test, x_train, x_val, y_test, y_train$"),
        ({f"{kind}_{name}": KERAS[f"{kind}_train"] for kind in "xy" for name in ("val", "valid")},
         "It has: .*x_val, x_valid, y"),
        ({"x_val": IMAGES, "y_val": LABELS - 1}, r"-1 at index 0 of 'y_val', outside 0 to 2$"),
        ({"x_val": IMAGES[:, 1:], "y_val": LABELS}, r"same shape .*: \(6, 5, 3\) and \(5, 5, 3\)"),
        ({"x_val": IMAGES[:2], "y_val": LABELS[:2]}, r"classes in 'y_train' and 'y_val'.*: 2$"),
        ({"images": IMAGES, "labels": LABELS, "x_train": None}, r"images, labels alone\. It has"),
        ({"x_train": IMAGES / 255}, r"'x_train' .* uint8 .* Received: float64 \(30, 6, 5, 3\)$"),
        ({"x_train": IMAGES[..., :2]}, r"1 or 3 channels\. Received: uint8 \(30, 6, 5, 2\)$"),
        ({"x_train": IMAGES[:0]}, r"Received: uint8 \(0, 6, 5, 3\)$"),
        ({"x_train": IMAGES[:, 0, 0]}, r"Received: uint8 \(30, 3\)$"),
        ({"x_train": IMAGES[:7]}, "label for each image. Received: 7 images in 'x_train', 30 lab"),
        ({"x_test": IMAGES[:6, :4]}, r"same shape in .*: \(6, 5, 3\) and \(4, 5, 3\)$"),
        ({"y_train": np.eye(3)[LABELS]}, r"'y_train' .* integers .* Received: float64 \(30, 3\)$"),
        ({"y_train": LABELS + 1}, r"from 0.* label 3 at index 2 of 'y_train', outside 0 to 2$"),
        ({"y_train": LABELS - 1}, r"Received: label -1 at index 0 of 'y_train', outside 0 to 2$"),
        ({"y_train": 2 * LABELS}, r"Received: label 4 at index 2 of 'y_train', outside 0 to 2$"),
        ({"y_test": LABELS[:6] * 4}, r"Received: label 4 at index 1 of 'y_test', outside 0 to 2$"),
        ({"y_test": LABELS[:6] % 2}, r"same classes in 'y_train' and 'y_test'.* one .* only: 2$"),
        ({"y_train": np.array(["a"] * 30, object)}, r"'y_train' .* Received: object \(30,\)$"),
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
    with pytest.raises(
        ValueError, match=r"Cannot read .*'x_train' .*data.npz': Bad CRC-32"
    ) as error:
        load(whole)
    assert "\n" not in str(error.value)


class TestBombs:
    """Small files of much, by what is said of it or by compression: refused before it is read."""

    @pytest.fixture
    def refused(self, tmp_path):
        def refused(**members):
            path = tmp_path / "bomb.npz"
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, content in members.items():
                    archive.writestr(f"{name}.npy", content)
            tracemalloc.start()
            with pytest.raises(ValueError, match=r"^Cannot read .*bomb\.npz': ") as error:
                describe(str(path))
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 2**22
            return str(error.value)

        return refused

    def npy(self, shape, dtype, size):
        stream = io.BytesIO()
        description = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, description)
        return stream.getvalue() + bytes(size)

    def test_labels_that_expand(self, refused):
        images = self.npy((2**26, 1, 1), "|u1", 2**26)
        labels = self.npy((2**26,), "|u1", 2**26)
        assert "expand to 134,217,984, more than 400" in refused(images=images, labels=labels)

    def test_images_that_are_not_there(self, refused):
        images = self.npy((2**40, 32, 32), "|u1", 100)
        labels = self.npy((2**40,), "<i8", 100)
        assert "100 bytes are not uint8 (1099511627776, 32, 32)" in refused(
            images=images, labels=labels
        )

    def test_drawings_compress_well_and_are_read(self, write):
        rng = np.random.default_rng(0)
        corners = rng.integers(0, 44, (18_000, 2))
        images = np.zeros((len(corners), 64, 64), np.uint8)  # 70 MiB
        for image, (y, x) in zip(images, corners, strict=True):
            image[y : y + 20, x : x + 20] = 255
        path = write({"images": images, "labels": np.arange(18_000) % 2}, np.savez_compressed)
        assert os.path.getsize(path) < images.nbytes / 90
        assert describe(path).image_shape == (64, 64, 1)


def test_a_fifo_is_not_waited_for(tmp_path):
    path = tmp_path / "data.npz"
    os.mkfifo(path)
    with pytest.raises(ValueError, match=r"Cannot read archive '.*data\.npz': Not a regular file$"):
        describe(str(path))


def test_names_of_several_lines_and_long_reasons(write, tmp_path):
    with pytest.raises(ValueError, match=r"It has: a\\nb, x{200}\.\.\.$"):
        describe(write({"a\nb": LABELS, "x" * 300: LABELS}))
    path = write(KERAS)
    with open(path, "r+b") as file:
        file.seek(26)  # the length of the first name, in front of the array
        file.write(b"\xff\x0f")
    with pytest.raises(ValueError, match=r"File name in directory 'x_train.npy' and") as error:
        load(path)
    assert len(str(error.value)) < 600
