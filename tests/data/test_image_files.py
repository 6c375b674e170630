"""A folder of images that is streamed, against the same folder in memory."""

import contextlib
import os
import warnings

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kdtoolkit.data import (
    DamagedDataError,
    PhotographAugmentation,
    Split,
    StreamingSplit,
    Views,
    distortions,
    epoch_plan,
    load,
    loading,
    picture,
    reading,
)
from kdtoolkit.data.photographs import Draws
from tests.data.test_photographs import assert_views_are_the_epochs_of_their_key

SIZE = (24, 28)
SPLITS = ("train", "validation", "test")


def smooth(index):
    """A photograph of sorts: random colours, blurred; its size is its own."""
    colours = np.random.default_rng(index).integers(0, 256, (4, 5, 3), np.uint8)
    size = (50 - index % 7, 40 + index % 5)
    return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path):
    """Twelve images of each of two classes: JPEG, PNG, grey, transparent, turned, of 16 bits."""
    path = tmp_path / "fünf photos"
    for k, name in enumerate("ab"):
        (path / name).mkdir(parents=True)
        for i in range(8):
            kind = ("jpg", "png")[i % 2]
            smooth(12 * k + i).save(path / name / f"{i:02}.{kind}", quality=90)
        smooth(8 + k).convert("L").save(path / name / "08.jpg")
        smooth(10 + k).convert("CMYK").save(path / name / "09.jpg")
        exif = Image.Exif()
        exif[0x0112] = 6
        smooth(12 + k).save(path / name / "10.jpg", exif=exif)
        transparent = smooth(14 + k)
        transparent.putalpha(100)
        transparent.save(path / name / "11.png")
    return path


@pytest.fixture
def streamed(monkeypatch):
    """Loads a folder as one that is too large for memory, and none of whose splits is small."""

    def stream(path, **options):
        with monkeypatch.context() as patch:
            patch.setattr(loading, "MEMORY_LIMIT", 0)
            patch.setattr(loading, "HELD_LIMIT", -1)
            return load(str(path), image_size=SIZE, **options)

    return stream


def held(path, **options):
    return load(str(path), image_size=SIZE, **options)


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        for part, same in zip(tf.nest.flatten(batch), tf.nest.flatten(other), strict=True):
            assert part.numpy().tobytes() == same.numpy().tobytes()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"train_examples": 5, "validation_fraction": 0.3},
    ],
)
def test_is_the_folder_in_memory(folder, streamed, options):
    """Cuts, order, labels, pixels and views: every byte of what a network is given."""
    options = {"augmentation": "crop", **options}
    stream, memory = streamed(folder, **options), held(folder, **options)
    assert stream.info == memory.info
    assert stream.preprocessing == memory.preprocessing
    for name in SPLITS:
        one, other = getattr(stream, name), getattr(memory, name)
        assert isinstance(one, StreamingSplit) and isinstance(other, Split)
        assert_same(one.batches(5), other.batches(5))
        for pixels, same in zip(one.pixels(3), other.pixels(3), strict=True):
            np.testing.assert_array_equal(pixels, same)
        for pixels, same in zip(one.spread(3), other.spread(3), strict=True):
            np.testing.assert_array_equal(pixels, same)
    for changes in ({"augment": False}, {"first_epoch": 1, "generation": 1}):
        one, other = (
            data.train.epochs(5, seed=3, epochs=2, **changes) for data in (stream, memory)
        )
        assert_same(one, other)
    views = Views(2, seed=1)
    assert_same(stream.train.batches(5, views), memory.train.batches(5, views))
    one, other = (
        data.train.in_views(views).epochs(5, seed=3, epochs=2) for data in (stream, memory)
    )
    assert_same(one, other)


def test_photographs_are_cropped_as_they_are_stored(folder, streamed, monkeypatch):
    """Of every kind of file, against Pillow: cut out upright, scaled, mirrored."""
    steady = PhotographAugmentation(brightness=0, contrast=0, saturation=0)
    train = streamed(folder, augmentation="photograph").train
    train.augmentation = steady
    drawn = Draws(*epoch_plan(len(train), 3, 0, 1, steady).draws.T)
    (epoch,) = train.epochs(len(train), seed=3, first_epoch=1, epochs=2)
    order = epoch_plan(len(train), 3, 0, 1).order
    shown = 255 * (epoch[0] * np.array(train.preprocessing.std) + train.preprocessing.mean)
    mirrored = set()
    for index, pixels in zip(order, shown.numpy(), strict=True):
        with picture.opened(train._stream._paths[index]) as image:
            whole = Image.fromarray(picture.pixels(image, 3))
        sizes = np.array([whole.height]), np.array([whole.width])
        one = Draws(*(column[index : index + 1] for column in drawn))
        top, left, height, width = distortions.crop_boxes(*sizes, one, steady).numpy()[0]
        box = whole.crop((left, top, left + width, top + height))
        expected = np.asarray(box.resize(SIZE[::-1], Image.Resampling.BILINEAR), float)
        mirrored.add(one.flip[0] < 0.5)
        if one.flip[0] < 0.5:
            expected = expected[:, ::-1]
        # As in test_photographs.py.
        assert np.abs(pixels - expected)[:, 4:-4].max() <= 1.01
    assert mirrored == {False, True}
    # Images that are called large here: none is averaged, for none is as large as to need it.
    monkeypatch.setattr(picture.Turns, "of", lambda self, image: contextlib.nullcontext(True))
    assert_same([epoch], train.epochs(len(train), seed=3, first_epoch=1, epochs=2))


def test_a_large_photograph_is_averaged_before_it_is_cropped(folder, streamed, monkeypatch):
    train = streamed(folder, augmentation="photograph").train
    whole = [train._stream._covering(index).shape for index in range(len(train))]
    monkeypatch.setattr(picture, "_LARGE", 600)
    for index, (height, width, channels) in enumerate(whole):
        pixels = train._stream._shrunk(index)
        # 50 x 40 pixels and a few less: of every two by two one is left.
        assert pixels.shape == (-(-height // 2), -(-width // 2), channels)
        with picture.opened(train._stream._paths[index]) as image:
            stored = picture.pixels(image, 3).astype(float)
        rows, columns = height // 2, width // 2
        blocks = stored[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2, 3)
        assert np.abs(pixels[:rows, :columns] - blocks.mean(axis=(1, 3))).max() <= 0.51
    (epoch,) = train.epochs(len(train), seed=3, epochs=1)
    assert epoch[0].shape == (len(train), *SIZE, 3)


@pytest.fixture
def large(tmp_path):
    """JPEG files that are decoded at a half, a quarter and an eighth of their size."""
    for name in "ab":
        (tmp_path / "large" / name).mkdir(parents=True)
        for i in range(8):
            size = (130 + 90 * i, 110 + 80 * i)
            exif = Image.Exif()
            exif[0x0112] = 1 + 5 * (i % 2)
            image = smooth(i).resize(size, Image.Resampling.BICUBIC)
            image.save(tmp_path / "large" / name / f"{i}.jpg", exif=exif, quality=95)
    return tmp_path / "large"


def test_large_files_are_decoded_smaller_as_in_memory(large, streamed):
    stream, memory = streamed(large, augmentation="crop"), held(large, augmentation="crop")
    plain = stream.train._stream._plain
    assert plain.any() and not plain.all()
    for name in SPLITS:
        assert_same(getattr(stream, name).batches(5), getattr(memory, name).batches(5))


def test_crops_of_large_files_are_decoded_smaller(large, streamed):
    """Of a plain file by what the box allows, of another by what the smallest box would."""
    steady = PhotographAugmentation(brightness=0, contrast=0, saturation=0)
    train = streamed(large, augmentation="photograph").train
    train.augmentation = steady
    plans = [epoch_plan(len(train), 3, 0, epoch, steady) for epoch in range(3)]
    order = np.concatenate([plan.order for plan in plans])
    shown = np.concatenate([x for x, _ in train.epochs(len(train), seed=3, epochs=3)])
    shown = 255 * (shown * np.array(train.preprocessing.std) + train.preprocessing.mean)
    factors = set()
    for place, (index, pixels) in enumerate(zip(order, shown, strict=True)):
        with picture.opened(train._stream._paths[index]) as image:
            whole = Image.fromarray(picture.pixels(image, 3))
        one = Draws(*plans[place // len(train)].draws[index, :, None])

        def box_of(image, one=one):
            sizes = np.array([image.height]), np.array([image.width])
            return distortions.crop_boxes(*sizes, one, steady).numpy()[0]

        def factor_of(height, width, times):
            fits = min(height / SIZE[0], width / SIZE[1]) / times
            return max(f for f in (1, 2, 4, 8) if f <= max(fits, 1))

        plain = bool(train._stream._plain[index])
        if plain:
            box = box_of(whole)
            factor = factor_of(*box[2:], 2)
            top, left, height, width = box // factor
        else:
            factor = factor_of(whole.height, whole.width, 6)
            top, left, height, width = box_of(whole.reduce(factor))
        factors.add((plain, factor))
        # Pillow has it from the decoder at the same size; of a box that lies inside, the same.
        box = whole.reduce(factor).crop((left, top, left + width, top + height))
        expected = np.asarray(box.resize(SIZE[::-1], Image.Resampling.BILINEAR), float)
        if one.flip[0] < 0.5:
            expected = expected[:, ::-1]
        assert np.abs(pixels - expected)[:, 4:-4].mean() < 2
    assert {(True, 2), (True, 4), (False, 1), (False, 2)} <= factors


def test_views_of_photographs(folder, streamed):
    assert_views_are_the_epochs_of_their_key(streamed(folder, augmentation="photograph").train)


def test_two_replicas_share_each_batch(folder, streamed, two_replicas):
    train = streamed(folder).train
    distributed = two_replicas.experimental_distribute_dataset(train.epochs(5, seed=1, epochs=1))
    for batch, whole in zip(distributed, train.epochs(5, seed=1, epochs=1), strict=True):
        for shares, expected in zip(batch, whole, strict=True):
            parts = two_replicas.experimental_local_results(shares)
            assert len(parts) == 2
            np.testing.assert_array_equal(np.concatenate(parts), expected)


def test_pillow_decodes_where_tensorflow_would_otherwise(folder, streamed, monkeypatch):
    assert streamed(folder).train._stream._plain.any()
    monkeypatch.setattr("kdtoolkit.data.image_files.decodes_as_pillow", lambda: False)
    stream = streamed(folder).train
    assert not stream._stream._plain.any()
    assert_same(stream.batches(5), held(folder).train.batches(5))


def test_no_image_validates(folder, streamed):
    stream, memory = (load(folder, validation_fraction=0).validation for load in (streamed, held))
    for read in ("pixels", "spread"):
        for part, same in zip(getattr(stream, read)(3), getattr(memory, read)(3), strict=True):
            assert part.shape == same.shape and part.dtype == same.dtype and not len(part)


def test_progressive_files_that_were_cut_short(folder, streamed):
    """Each ends as it should: memory has them, with what Pillow makes of the rest."""
    for path in sorted(folder.glob("*/0[0-6].jpg")):
        smooth(0).resize((300, 240)).save(path, progressive=True, quality=90)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] + content[-2:])
    assert_same(streamed(folder).train.batches(5), held(folder).train.batches(5))


def test_its_own_splits(folder, streamed):
    for name in ("train", "valid", "test"):
        (folder / name).mkdir()
        for class_name in "ab":
            (folder / name / class_name).mkdir()
            for file in sorted((folder / class_name).iterdir())[: 4 + len(name)]:
                os.link(file, folder / name / class_name / file.name)
    stream, memory = streamed(folder), held(folder)
    assert stream.info == memory.info
    for name in SPLITS:
        assert_same(getattr(stream, name).batches(4), getattr(memory, name).batches(4))


def test_what_is_measured_is_of_every_class(folder, streamed, monkeypatch):
    monkeypatch.setattr(loading, "_MEASURED_IMAGES", 4)
    stream = streamed(folder)
    # Of each class two: all but them can be damaged.
    images, labels = loading._some(stream.train._stream).load()
    np.testing.assert_array_equal(labels, [0, 0, 1, 1])
    mean = images.reshape(-1, 3).mean(axis=0) / 255
    np.testing.assert_allclose(stream.preprocessing.mean, mean, atol=1e-9)


def test_only_what_is_used_is_decoded(folder, streamed, monkeypatch):
    monkeypatch.setattr("kdtoolkit.data.image_files.decodes_as_pillow", lambda: False)
    decoded = []
    upright = picture.upright
    monkeypatch.setattr(
        picture, "upright", lambda image: decoded.append(image.filename) or upright(image)
    )
    data = streamed(folder, train_examples=6)
    assert len(decoded) == len(set(decoded)) == 6  # mean and deviation
    list(data.train.epochs(4, seed=0, epochs=1))
    list(data.validation.batches(4))
    assert len(set(decoded)) == 6 + len(data.validation)


def test_a_large_image_is_scaled_in_its_turn(folder, streamed, monkeypatch):
    monkeypatch.setattr(picture, "_LARGE", 1)
    assert_same(streamed(folder).test.batches(4), held(folder).test.batches(4))


class TestLimits:
    BYTES = 24 * 24 * 28 * 3  # of all images

    @pytest.mark.parametrize(
        ("memory", "small", "expected"),
        [
            (BYTES, 0, (Split, Split, Split)),
            (BYTES - 1, 0, (StreamingSplit,) * 3),
            # A fifth is tested on, a tenth of the others validates.
            (BYTES - 1, 5 * BYTES // 24, (StreamingSplit, Split, Split)),
            (BYTES - 1, 4 * BYTES // 24, (StreamingSplit, Split, StreamingSplit)),
            (BYTES - 1, 17 * BYTES // 24, (Split, Split, Split)),
        ],
    )
    def test_decide_what_is_held(self, folder, monkeypatch, memory, small, expected):
        monkeypatch.setattr(loading, "MEMORY_LIMIT", memory)
        monkeypatch.setattr(loading, "HELD_LIMIT", small)
        data = load(str(folder), image_size=SIZE)
        sizes = [len(getattr(data, name)) for name in SPLITS]
        assert sizes == [17, 2, 5]
        assert tuple(type(getattr(data, name)) for name in SPLITS) == expected

    def test_photographs_are_streamed_to_be_cropped(self, folder, monkeypatch):
        """However few they are: with `train_examples` crops stay what they are."""
        monkeypatch.setattr(loading, "MEMORY_LIMIT", 0)
        data = load(str(folder), image_size=SIZE, augmentation="photograph", train_examples=3)
        assert [type(getattr(data, name)) for name in SPLITS] == [StreamingSplit, Split, Split]

    def test_what_is_held_is_what_would_be_streamed(self, folder, streamed, monkeypatch):
        stream = streamed(folder)
        monkeypatch.setattr(loading, "MEMORY_LIMIT", 0)
        small = load(str(folder), image_size=SIZE)
        assert_same(
            stream.train.epochs(5, seed=0, epochs=1), small.train.epochs(5, seed=0, epochs=1)
        )


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-60])


class TestDamage:
    def test_seen_before_training_is_what_it_is_in_memory(self, folder, streamed):
        cut_short(folder / "a" / "00.jpg")
        cut_short(folder / "b" / "01.png")
        (folder / "a" / "02.jpg").write_bytes(b"no image")
        Image.new("RGB", (60_000, 1)).save(folder / "b" / "05.png")
        Image.new("RGB", (1, 60_000)).save(folder / "b" / "06.jpg")
        (folder / "b" / "photo.heic").write_bytes(b"")
        loads = []
        for read in (streamed, held):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                loads.append((read(folder), [str(warning.message) for warning in caught]))
        (stream, said), (memory, expected) = loads
        assert stream.info == memory.info
        assert said == expected and len(said) == 2
        assert said[0].startswith("Left out 5 image files")
        assert_same(
            stream.train.epochs(5, seed=0, epochs=1), memory.train.epochs(5, seed=0, epochs=1)
        )

    @pytest.mark.parametrize("damaged", [["a/00.jpg"], ["b/*"]])
    def test_is_the_same_error_as_in_memory(self, folder, streamed, damaged):
        for file in (file for pattern in damaged for file in folder.glob(pattern)):
            cut_short(file)
        messages = []
        for read in (streamed, held):
            with pytest.raises(ValueError, match=r"Cannot read image '.*photos/[ab]/00") as error:
                read(folder, strict_data="*" not in damaged[0])
            messages.append(str(error.value))
        assert messages[0] == messages[1] and "\n" not in messages[0]

    def test_warns_whoever_called(self, folder, streamed, monkeypatch):
        cut_short(folder / "a" / "00.jpg")
        monkeypatch.setattr(loading, "MEMORY_LIMIT", 0)
        with pytest.warns(UserWarning, match="Left out 1 image files") as warned:
            load(str(folder), image_size=SIZE)
        assert warned[0].filename == __file__

    @pytest.mark.parametrize("kind", ["jpg", "png"])
    @pytest.mark.parametrize("augmentation", ["crop", "photograph"])
    def test_seen_while_training_is_named(self, folder, streamed, kind, augmentation, capfd):
        data = streamed(folder, augmentation=augmentation)
        paths = (os.path.relpath(path, folder) for path in data.train._stream._paths)
        name = next(path for path in paths if path.endswith(kind))
        # An end as it should be, and nothing before it.
        file = folder / name
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 3] + content[-8:])
        message = (
            rf"^Cannot read data set '.*photos' in '.*': Cannot read image '.*{name}': [^\n]*$"
        )
        with pytest.raises(DamagedDataError, match=message), reading(data.info):
            list(data.train.epochs(5, seed=0, epochs=1))
        assert "Traceback" not in capfd.readouterr().err

    def test_is_not_taken_for_one_that_was_left_out(self, folder, streamed):
        cut_short(folder / "a" / "00.jpg")
        (folder / "b" / "aside").mkdir()
        (folder / "b" / "aside" / "note.jpg").write_bytes(b"no image")
        with pytest.warns(UserWarning, match="Left out"):
            data = streamed(folder)
        plain = data.train._stream._paths[data.train._stream._plain]
        for path in plain[1:3]:
            with open(path, "r+b") as file:
                file.truncate(200)
        message = rf"^[^\n]*Cannot read image '{plain[1]}': [^\n]*$"
        with pytest.raises(DamagedDataError, match=message), reading(data.info):
            list(data.train.epochs(5, seed=0, epochs=1))

    def test_too_little_memory_is_none(self, folder, streamed, monkeypatch):
        data = streamed(folder)

        def lacks(image):
            raise MemoryError

        monkeypatch.setattr(picture, "upright", lacks)
        message = r"^Image '.*\.png' cannot be read$"
        with pytest.raises(MemoryError, match=message), reading(data.info):
            list(data.train.epochs(5, seed=0, epochs=1))

    def test_seen_while_colours_are_measured_is_named(self, folder, streamed):
        for file in folder.glob("a/*.png"):
            content = file.read_bytes()
            file.write_bytes(content[: len(content) // 3] + content[-8:])
        with pytest.raises(DamagedDataError, match=r"'.*photos': Cannot read image '.*a/\d+\.png'"):
            streamed(folder)

    def test_a_strip_that_would_grow_beyond_memory(self, folder, streamed):
        data = streamed(folder)
        strip = next(path for path in data.test._stream._paths if path.endswith("png"))
        Image.new("RGB", (60_000, 1)).save(strip, "PNG")
        with pytest.raises(DamagedDataError, match=r"scaled to cover"), reading(data.info):
            list(data.test.batches(5))


def test_fingerprint_is_that_of_what_is_seen(folder, streamed, tmp_path):
    prints = [getattr(streamed(folder), name).fingerprint() for name in SPLITS]
    assert len(set(prints)) == 3
    folder.rename(tmp_path / "elsewhere")
    moved = streamed(tmp_path / "elsewhere")
    assert [getattr(moved, name).fingerprint() for name in SPLITS] == prints
    moved.train.augmentation = PhotographAugmentation()
    assert moved.train.fingerprint() != prints[0]
    data = streamed(tmp_path / "elsewhere")
    with open(data.train._stream._paths[3], "ab") as file:
        file.write(b"longer")
    assert data.train.fingerprint() != prints[0]


def test_nothing_is_tuned_while_it_runs(folder, streamed):
    # See `kdtoolkit.data.parallel`.
    for batches in (
        streamed(folder).train.epochs(4, seed=0, epochs=1),
        streamed(folder).test.batches(4),
    ):
        assert batches.options().autotune.enabled is False
