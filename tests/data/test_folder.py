"""Folders of images as they are found in the wild, against pixels written by hand."""

import os
import warnings

import numpy as np
import pytest
from PIL import Image

from kdtoolkit.data import describe, load, picture

RNG = np.random.default_rng(0)
ANT, BEE, CAT = "n01", "n02", "n03"


def grey(value, size=(6, 6)):
    return np.full((*size, 3), value)


@pytest.fixture
def tiny_imagenet(write_images, tmp_path):
    """Three training images of each class and three validation images, the first of them bees."""
    path = write_images(
        {f"train/{c}/images/{c}_{i}.JPEG": grey(10 * k) for k, c in enumerate((ANT, BEE, CAT))
         for i in range(3)}
        | {f"val/images/val_{i}.JPEG": grey(value) for i, value in enumerate((10, 20, 0))}
        | {"test/images/test_0.JPEG": grey(9)}
    )  # fmt: skip
    lines = [f"val_{i}.JPEG\t{c}\t0\t0\t5\t5\n" for i, c in enumerate((BEE, CAT, ANT))]
    (tmp_path / "val" / "val_annotations.txt").write_text("".join(lines))
    (tmp_path / "train" / ANT / f"{ANT}_boxes.txt").write_text("n01_0.JPEG\t0\t0\t5\t5\n")
    (tmp_path / "wnids.txt").write_text(f"{CAT}\n{ANT}\n{BEE}\n")
    (tmp_path / "words.txt").write_text(
        f"n00\tentity\n{ANT}\tcrane, wading bird\n{BEE}\tbee\n{CAT}\tcrane, hoist\n"
    )
    return path


def test_tiny_imagenet(tiny_imagenet):
    info = describe(tiny_imagenet)
    # Two classes whose first word is the same keep their folders' names.
    assert info.class_names == (ANT, "bee", CAT)
    assert (info.train_size, info.test_size, info.test_split) == (9, 3, "val")
    assert (info.validation_size, info.validation_split) == (None, None)
    data = load(tiny_imagenet, validation_fraction=1 / 3)
    assert (len(data.train), len(data.validation), len(data.test)) == (6, 3, 3)
    np.testing.assert_array_equal(np.sort(data.validation.labels), [0, 1, 2])
    for split in (data.train, data.validation, data.test):
        np.testing.assert_array_equal(
            split.images, grey(0)[None] + 10 * split.labels[:, None, None, None]
        )
    np.testing.assert_array_equal(data.test.labels, [1, 2, 0])


def test_tiny_imagenet_sorted_into_class_folders(tiny_imagenet, tmp_path):
    for i, name in enumerate((BEE, CAT, ANT)):
        (tmp_path / "val" / name).mkdir()
        source = tmp_path / "val" / "images" / f"val_{i}.JPEG"
        source.rename(tmp_path / "val" / name / source.name)
    (tmp_path / "val" / "images").rmdir()
    np.testing.assert_array_equal(load(tiny_imagenet).test.labels, [0, 1, 2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace(CAT, "n09"), r"same classes in train/ and val/.*: n03, n09$"),
        (lambda text: text.replace("\t", " "), r"a tab between.* line 1: 'val_0.JPEG n02 0 0 5"),
        (lambda text: text.replace("val_0", "val_7"), r"only: val_0.JPEG, val_7.JPEG$"),
    ],
)  # fmt: skip
def test_annotations_that_do_not_fit(tiny_imagenet, tmp_path, change, message):
    annotations = tmp_path / "val" / "val_annotations.txt"
    annotations.write_text(change(annotations.read_text()))
    with pytest.raises(ValueError, match=message) as error:
        describe(tiny_imagenet)
    assert "\n" not in str(error.value)


def test_cinic10(write_images):
    path = write_images(
        {f"{split}/{name}/{i}.png": grey(10 * first + label)
         for first, split in enumerate(("train", "valid", "test"))
         for label, name in enumerate(("bird", "cat")) for i in range(2 + first)}
    )  # fmt: skip
    info = describe(path)
    assert (info.train_size, info.validation_size, info.test_size) == (4, 6, 8)
    assert (info.validation_split, info.test_split) == ("valid", "test")
    for fraction in (0, 0.5):
        data = load(path, validation_fraction=fraction)
        assert (len(data.train), len(data.validation), len(data.test)) == (4, 6, 8)
        for first, split in enumerate((data.train, data.validation, data.test)):
            np.testing.assert_array_equal(split.images[:, 0, 0, 0], 10 * first + split.labels)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"1.png": (5, 5), "2.png": (5, 5)}, r"one sub-folder of images for each class, or train/ "
         r"and test/ .* Found: 1.png, 2.png$"),
        ({f"{i}.png": (5, 5) for i in range(9)}, r"Found: 0.png, 1.png, 2.png and 6 more$"),
        ({"outer/train/a/1.png": (5, 5), "outer/test/a/1.png": (5, 5)},
         r"Class 'outer' .* no images .* Found: test/, train/$"),
    ],
)  # fmt: skip
def test_another_layout(write_images, files, message):
    path = write_images(files)
    with pytest.raises(ValueError, match=message) as error:
        describe(path)
    assert "\n" not in str(error.value)


def test_empty_folder(tmp_path):
    with pytest.raises(ValueError, match=r"Found: nothing$"):
        describe(str(tmp_path))


class TestBroken:
    @pytest.fixture
    def path(self, write_images, tmp_path):
        """Ten images of each class: of `a`, one cut short, one no image, and one of floats."""
        noise = RNG.integers(0, 256, (32, 32, 3))
        path = write_images({f"{name}/{i}.png": noise for name in "ab" for i in range(10)})
        short = tmp_path / "a" / "3.png"
        short.write_bytes(short.read_bytes()[:200])
        (tmp_path / "a" / "4.png").write_bytes(b"no image")
        floats = Image.fromarray(np.zeros((32, 32), np.float32))
        floats.save(tmp_path / "a" / "5.png", "TIFF")
        return path

    def test_are_left_out_with_one_warning(self, path):
        message = r"^Left out 3 image files of '.*' that cannot be read: a/3.png, a/4.png, a/5.png$"
        with pytest.warns(UserWarning, match=message) as warned:
            data = load(path, validation_fraction=0)
        assert len(warned) == 1 and warned[0].filename == __file__
        # A fifth of the seventeen that are left.
        assert (len(data.train), len(data.test)) == (14, 3)
        assert (data.info.train_size, data.info.test_size) == (14, 3)
        labels = np.concatenate([data.train.labels, data.test.labels])
        np.testing.assert_array_equal(np.bincount(labels), [7, 10])

    def test_are_errors_if_strict(self, path):
        with pytest.raises(ValueError, match=r"Cannot read image '.*a/4\.png': .*") as error:
            load(path, strict_data=True)
        assert "\n" not in str(error.value)

    def test_no_image_of_a_class(self, path, tmp_path):
        for file in (tmp_path / "b").iterdir():
            file.write_bytes(b"no image")
        with pytest.raises(ValueError, match=r"No image of class 'b' .* image '.*b/0\.png'"):
            load(path)

    def test_no_image_at_all(self, path, tmp_path):
        for file in tmp_path.glob("*/*"):
            file.write_bytes(b"no image")
        with pytest.raises(ValueError, match=r"None of 20 files is an image.*a/0\.png"):
            load(path)

    def test_whole_folders_warn_of_nothing(self, write_images):
        path = write_images({f"{name}/{i}.png": (5, 5) for name in "ab" for i in range(5)})
        with warnings.catch_warnings(action="error"):
            load(path, strict_data=True)


class TestFewExamples:
    @pytest.fixture
    def path(self, write_images):
        numbers = {f"{name}/{i:02}.png": np.full((4, 4), 25 * k + i) for k, name in enumerate("ab")
                   for i in range(25)}  # fmt: skip
        return write_images(numbers)

    def numbers(self, data):
        splits = (data.train, data.validation, data.test)
        return [set(split.images[:, 0, 0, 0]) for split in splits]

    def test_no_others_are_decoded(self, path, monkeypatch):
        all_train, *held_out = self.numbers(load(path))
        decoded = []
        upright = picture.upright
        monkeypatch.setattr(
            picture, "upright", lambda image: decoded.append(image.filename) or upright(image)
        )
        train, *others = self.numbers(load(path, train_examples=6))
        assert others == held_out and len(train) == 6 and train <= all_train
        # Of fifty a fifth is tested on, a tenth of the others validates.
        assert len(decoded) == len(set(decoded)) == 6 + 4 + 10

    def test_what_cannot_be_read_is_replaced(self, path, tmp_path):
        chosen = self.numbers(load(path, train_examples=6))[0]
        damaged = {f"{'ab'[n // 25]}/{n % 25:02}.png" for n in chosen}
        for name in damaged:
            content = (tmp_path / name).read_bytes()
            (tmp_path / name).write_bytes(content[: content.index(b"IDAT") + 8])
        with pytest.warns(UserWarning, match=r"^Left out \d+ image files"):
            data = load(path, train_examples=6)
        assert len(data.train) == 6 and not self.numbers(data)[0] & chosen

    def test_an_impossible_number_is_found_before_any_is_decoded(self, path, monkeypatch):
        monkeypatch.setattr(picture, "upright", None)
        with pytest.raises(ValueError, match=r"`train_examples` must be from 1 to 36"):
            load(path, train_examples=37)


def test_a_fifo_among_the_photographs(write_images, tmp_path):
    path = write_images({f"{name}/{i}.png": (5, 5) for name in "ab" for i in range(5)})
    os.mkfifo(tmp_path / "a" / "fifo.png")
    with pytest.warns(UserWarning, match=r"^Left out 1 image files .* be read: a/fifo\.png$"):
        load(path)
    with pytest.raises(ValueError, match=r"'.*a/fifo\.png': .*Not a regular file"):
        load(path, strict_data=True)


def test_a_strip_that_would_grow_beyond_memory(write_images):
    files = {f"a/{i}.png": (8, 8) for i in range(5)} | {"a/strip.png": (1, 50_000)}
    with pytest.warns(UserWarning, match=r"^Left out 1 image files .* be read: a/strip\.png$"):
        load(write_images(files), image_size=32)


@pytest.mark.parametrize("name", ["two\nlines", "a\rreturn", os.fsdecode(b"latin-\xe9")])
def test_a_name_that_is_no_label_is_found_at_once(write_images, name):
    path = write_images({f"{folder}/{i}.png": (5, 5) for folder in ("b", name) for i in range(3)})
    with pytest.raises(ValueError, match=r"one line of UTF-8 text\. Received: ") as error:
        describe(path)
    assert str(error.value).endswith(repr(name)) and "\n" not in str(error.value)


def test_words_that_name_no_class(tiny_imagenet, tmp_path):
    (tmp_path / "words.txt").write_text(f"{BEE}\t, honey\n")
    assert describe(tiny_imagenet).class_names == (ANT, BEE, CAT)
    (tmp_path / "words.txt").write_bytes(f"{BEE}\tgu\xeape\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"words\.txt' must be UTF-8. Received: .* 0xea"):
        describe(tiny_imagenet)


def test_every_kind_of_image_is_read_and_nothing_else_lost_in_silence(write_images, tmp_path):
    path = write_images(
        {f"{folder}/{i}{extension}": np.full((5, 5), 70)
         for folder in "ab" for i, extension in enumerate(picture.EXTENSIONS)}
    )  # fmt: skip
    (tmp_path / "a" / "notes.txt").write_text("not an image, nor meant to be one")
    (tmp_path / "a" / ".hidden").write_text("likewise")
    assert describe(path).train_size + describe(path).test_size == 2 * len(picture.EXTENSIONS)
    with warnings.catch_warnings(action="error"):
        assert np.abs(load(path).train.images.astype(int) - 70).max() <= 1
    (tmp_path / "b" / "photo.heic").write_bytes(b"")
    (tmp_path / "b" / "more").mkdir()
    (tmp_path / "top.png").write_bytes((tmp_path / "a" / "0.png").read_bytes())
    message = (
        r"^Left out 3 files of '.*' that are no images by their names: b/more, b/photo.heic, top"
    )
    with pytest.warns(UserWarning, match=message) as warned:
        load(path)
    assert len(warned) == 1 and warned[0].filename == __file__


def test_what_lies_beside_a_class_folder_of_images_is_named(write_images):
    path = write_images(
        {f"{folder}/{i}.png": (5, 5) for folder in ("a/images", "a/more", "b/images")
         for i in range(5)}
    )  # fmt: skip
    message = r"^Left out 1 files of '.*' that are no images by their names: a/more$"
    with pytest.warns(UserWarning, match=message):
        data = load(path, validation_fraction=0)
    assert len(data.train) + len(data.test) == 10


def test_a_class_left_without_training_images(write_images):
    sizes = {"a": 9, "b": 9, "lonely": 1}
    path = write_images(
        {f"{split}/{name}/{i}.png": (5, 5)
         for split in ("train", "test") for name, size in sizes.items() for i in range(size)}
    )  # fmt: skip
    message = r"^1 of 3 classes of '.*' are left without training images: lonely$"
    with pytest.warns(UserWarning, match=message) as warned:
        load(path, train_examples=4)
    assert len(warned) == 1 and warned[0].filename == __file__


def test_validation_that_takes_all(write_images):
    path = write_images({f"{name}/{i}.png": (5, 5) for name in "ab" for i in range(5)})
    message = r"`validation_fraction` must leave an image to train on of the 8 .*: \w+=0\.99$"
    with pytest.raises(ValueError, match=message):
        load(path, validation_fraction=0.99)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["png", "jpg"])
def test_images_are_turned_upright(tmp_path, orientation, extension):
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :8] = 255  # the top left corner
    upright[8:, 8:] = 128
    # What a camera stores, by the EXIF standard's words on where row 0 and column 0 are.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(5):
            image = Image.fromarray(np.ascontiguousarray(stored))
            image.getexif()[0x0112] = orientation
            path = tmp_path / name / f"{i}.{extension}"
            image.save(path, exif=image.getexif(), quality=95)
    assert describe(str(tmp_path)).image_shape == (16, 24, 3)
    images = load(str(tmp_path)).test.images.astype(int)
    assert np.abs(images - upright).max() <= (0 if extension == "png" else 8)


def test_colours_greys_and_transparency_of_several_sizes(tmp_path):
    """Colour, grey, RGBA, palette and CMYK side by side, each its own known colour."""
    pictures = {
        "colour.png": Image.new("RGB", (8, 8), (200, 100, 50)),
        "grey.png": Image.new("L", (12, 6), 70),
        # Opacity 51 / 255 = 0.2: 0.2 * 100 + 0.8 * 255 = 224.
        "transparent.png": Image.new("RGBA", (6, 12), (100, 0, 255, 51)),
        "palette.gif": Image.new("RGB", (6, 6), (0, 255, 0)).quantize(4),
        "cmyk.jpg": Image.new("CMYK", (9, 9), (0, 0, 0, 255)),
        "deep.png": Image.fromarray(np.full((7, 7), 25700, np.uint16)),
    }
    for folder in ("train", "test"):
        (tmp_path / folder / "a").mkdir(parents=True)
        for name, image in pictures.items():
            image.save(tmp_path / folder / "a" / name)
    expected = {
        "cmyk.jpg": (0, 0, 0),
        "colour.png": (200, 100, 50),
        "deep.png": (100, 100, 100),
        "grey.png": (70, 70, 70),
        "palette.gif": (0, 255, 0),
        "transparent.png": (224, 204, 255),
    }
    images = load(str(tmp_path), image_size=6).test.images
    for image, colour in zip(images, expected.values(), strict=True):
        assert np.abs(image.astype(int) - colour).max() <= 1


@pytest.mark.parametrize("name", ["words.txt", "val/val_annotations.txt"])
def test_text_that_is_not_utf_8_is_named(tiny_imagenet, tmp_path, name):
    (tmp_path / name).write_bytes(b"n01\tF\xe4hre\n")
    with pytest.raises(ValueError, match=rf"File '.*{name}' must be UTF-8"):
        describe(tiny_imagenet)
