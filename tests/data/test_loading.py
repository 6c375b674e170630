import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from kdtoolkit.data import (
    DamagedDataError,
    Split,
    StreamingSplit,
    load,
    loading,
    reading,
    scaling,
)
from tests.data.conftest import TEST, TRAIN, grey


def digit_indices(split):
    """Indices of the images in scikit-learn's set; no two of its images are equal."""
    stored = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    index = {image.tobytes(): i for i, image in enumerate(stored)}
    assert len(index) == 1797
    return [index[image.tobytes()] for image in split.images]


def test_digits():
    data = load("digits")
    train, validation, test = map(digit_indices, (data.train, data.validation, data.test))
    assert (len(train), len(validation), len(test)) == (1294, 144, 359)  # 1,438 = 1,294 + 144
    assert sorted(train + validation + test) == list(range(1797))
    target = load_digits().target
    for indices, split in ((train, data.train), (test, data.test)):
        np.testing.assert_array_equal(split.labels, target[indices])
    assert (data.train.images.dtype, data.train.labels.dtype) == (np.uint8, np.int32)
    # Stratified: 177.8 test images less or more than one for each class, and so for validation.
    sizes = np.bincount(target)
    assert np.all(np.abs(np.bincount(data.test.labels) - sizes * 359 / 1797) < 1)
    left = sizes - np.bincount(data.test.labels)
    assert np.all(np.abs(np.bincount(data.validation.labels) - left * 144 / 1438) < 1)
    assert data.train.augmentation.pad == 1


def test_preprocessing_is_of_the_training_images_alone():
    data = load("digits", validation_fraction=0.5)
    np.testing.assert_allclose(data.preprocessing.mean, np.mean(data.train.images / 255))
    np.testing.assert_allclose(data.preprocessing.std, np.std(data.train.images / 255))
    assert data.train.preprocessing is data.test.preprocessing is data.preprocessing


def test_cuts_are_the_same_in_every_run():
    np.random.seed(1)
    tf.random.set_seed(1)
    first = load("digits")
    np.random.seed(2)
    tf.random.set_seed(2)
    second = load("digits", train_examples=100)
    for split in ("validation", "test"):
        one, two = getattr(first, split), getattr(second, split)
        np.testing.assert_array_equal(one.images, two.images)
    assert set(digit_indices(second.train)) <= set(digit_indices(first.train))
    # A hundred of ten classes of nearly equal size: ten of each, one less or more.
    assert len(second.train) == 100
    assert set(np.bincount(second.train.labels)) <= {9, 10, 11}


def test_no_validation():
    data = load("digits", validation_fraction=0)
    assert (len(data.train), len(data.validation)) == (1438, 0)


def test_image_size():
    data = load("digits", image_size=(4, 4), validation_fraction=0)
    assert data.info.image_shape == data.preprocessing.image_shape == (4, 4, 1)
    assert data.test.images.shape == (359, 4, 4, 1)
    # Halved by the antialiased bilinear (triangle) filter: taps 1, 3, 3, 1 over 8, in each
    # direction; at the edges, where a tap is missing, the others over 7.
    taps = np.array(
        [[3, 3, 1, 0, 0, 0, 0, 0], [0, 1, 3, 3, 1, 0, 0, 0],
         [0, 0, 0, 1, 3, 3, 1, 0], [0, 0, 0, 0, 0, 1, 3, 3]]
    )  # fmt: skip
    taps = taps / taps.sum(axis=1, keepdims=True)
    stored = load("digits", validation_fraction=0).test.images[..., 0]
    expected = taps @ stored.astype(np.float64) @ taps.T
    assert np.abs(data.test.images[..., 0] - expected).max() < 0.5 + 1e-3


def test_cover_keeps_proportions_and_cuts_the_middle():
    image = np.zeros((4, 12, 1), np.uint8)
    image[:, 4:8] = 200  # the middle third
    np.testing.assert_array_equal(scaling.cover(image, (4, 4)), np.full((4, 4, 1), 200))
    assert scaling.cover(image, (8, 6)).shape == (8, 6, 1)


def test_folder(write_images):
    def colours(name, count):
        value = {"ant": 10, "bee": 20}[name.partition("/")[2]]
        return {f"{name}/{i}.png": np.full((6, 6, 3), value) for i in range(count)}

    path = write_images(
        {**colours("train/ant", 4), **colours("train/bee", 3)}
        | {**colours("test/ant", 1), **colours("test/bee", 2)}
    )
    data = load(path, validation_fraction=0)
    assert data.info.class_names == ("ant", "bee")
    np.testing.assert_array_equal(data.test.labels, [0, 1, 1])
    np.testing.assert_array_equal(data.train.labels, [0, 0, 0, 0, 1, 1, 1])
    for split in (data.train, data.test):
        np.testing.assert_array_equal(split.images[:, 0, 0, 0], 10 + 10 * split.labels)
    assert load(path, image_size=3).test.images.shape == (3, 3, 3, 3)


def test_grey_folder_has_one_channel(write_images):
    path = write_images({f"{name}/{i}.png": np.full((6, 6), 7) for name in "ab" for i in range(5)})
    data = load(path, validation_fraction=0)
    assert (len(data.train), len(data.test)) == (8, 2)
    assert data.train.images.shape == (8, 6, 6, 1)
    np.testing.assert_array_equal(np.sort(data.test.labels), [0, 1])
    assert np.all(data.train.images == 7)


def test_archive_above_the_memory_limit(tmp_path, monkeypatch):
    path = str(tmp_path / "images.npz")
    np.savez(path, images=np.zeros((5, 6, 6, 3), np.uint8), labels=np.zeros(5, int))
    monkeypatch.setattr(loading, "MEMORY_LIMIT", 5 * 6 * 6 * 3 - 1)
    with pytest.raises(ValueError, match="choose a smaller `image_size`, or make it a folder"):
        load(path)


def test_prepared_data_set(tfds_dir):
    data = load("grey", tfds_dir, validation_fraction=0.2)
    assert (len(data.train), len(data.validation), len(data.test)) == (48, 12, 12)
    indices = np.concatenate([s.images[:, 0, 0, 0] for s in (data.train, data.validation)])
    np.testing.assert_array_equal(np.sort(indices), np.arange(TRAIN))
    for split, first in ((data.train, 0), (data.validation, 0), (data.test, 100)):
        indices = split.images[:, 0, 0, 0].astype(int) - first
        np.testing.assert_array_equal(split.labels, indices % 3)
        assert split.images.shape[1:] == (6, 6, 1)
    # Sixty images, twenty of each class.
    np.testing.assert_array_equal(np.bincount(data.validation.labels), [4, 4, 4])


def test_another_label_of_the_same_images(tfds_dir, monkeypatch):
    """Stored image i is of class i % 3; the third class alone is of the other coarse one."""
    for limit in (loading.MEMORY_LIMIT, 0):  # in memory, and streamed
        monkeypatch.setattr(loading, "MEMORY_LIMIT", limit)
        data = load("grey", tfds_dir, label="coarse_label", validation_fraction=0.2)
        assert (data.info.classes, data.info.labels) == (2, ("insect", "mammal"))
        for split, first in ((data.train, 0), (data.validation, 0), (data.test, 100)):
            images, labels = split.pixels()
            numbers = images[:, 0, 0, 0].astype(int) - first
            np.testing.assert_array_equal(labels, numbers % 3 == 2)
        if limit:  # stratified by the label that is learned: 8 of 40, and 4 of 20
            np.testing.assert_array_equal(np.bincount(data.validation.labels), [8, 4])
        own = load("grey", tfds_dir, validation_fraction=0.2)
        assert own.test.fingerprint() != data.test.fingerprint()


def test_prepared_data_set_of_mixed_sizes(tfds_dir):
    data = load("mixed", tfds_dir, image_size=4, validation_fraction=0)
    assert (len(data.train), len(data.test)) == (12, 3)
    numbers = [s.images[:, 2, 2, 0] for s in (data.train, data.test)]
    np.testing.assert_array_equal(np.sort(np.concatenate(numbers)), np.arange(15))


def copy_grey(tfds_dir, path, change):
    """Copies `grey` into `path`; `change` gets a file's name and bytes and returns its bytes."""
    path = path / "grey" / "1.10.0"
    path.mkdir(parents=True)
    for file in (tfds_dir / "grey" / "1.10.0").iterdir():
        (path / file.name).write_bytes(change(file.name, file.read_bytes()))


def test_labels_out_of_range(tfds_dir, tmp_path):
    copy_grey(
        tfds_dir,
        tmp_path,
        lambda name, content: content.replace(b'"numClasses": "3"', b'"numClasses": "2"'),
    )
    with pytest.raises(ValueError, match=r"^Cannot read .*labels must be from 0 to 1\..*: 2$"):
        load("grey", tmp_path)


class TestUnlabelled:
    """TensorFlow Datasets gives images without labels a -1."""

    MESSAGE = r"^Cannot read data set 'grey' in '.*1\.10\.0': labels must be from 0 to 2\..*: -1$"

    @pytest.fixture
    def unlabel(self, tfds_dir, tmp_path):
        """Takes the labels of some test images away, by their numbers."""

        def unlabel(numbers):
            copy_grey(tfds_dir, tmp_path, lambda name, content: content)
            position = 0
            for file in sorted(tmp_path.glob("**/*-test.tfrecord-*")):
                records = list(tf.data.TFRecordDataset(str(file)).as_numpy_iterator())
                with tf.io.TFRecordWriter(str(file)) as writer:
                    for record in records:
                        example = tf.train.Example.FromString(record)
                        if position in numbers:
                            example.features.feature["label"].int64_list.value[0] = -1
                        writer.write(example.SerializeToString())
                        position += 1
            return tmp_path

        return unlabel

    @pytest.mark.parametrize("memory_limit", [loading.MEMORY_LIMIT, 0])
    def test_split_is_found_when_it_is_loaded(self, unlabel, monkeypatch, memory_limit):
        monkeypatch.setattr(loading, "MEMORY_LIMIT", memory_limit)
        with pytest.raises(DamagedDataError, match=self.MESSAGE):
            load("grey", unlabel(range(TEST)))

    def test_image_is_found_when_it_is_read(self, unlabel, monkeypatch):
        monkeypatch.setattr(loading, "MEMORY_LIMIT", 0)
        data = load("grey", unlabel({TEST - 1}))
        with pytest.raises(DamagedDataError, match=self.MESSAGE), reading(data.info):
            list(data.test.batches(8))
        _, labels = data.test.pixels(TEST - 1)
        np.testing.assert_array_equal(labels, np.arange(TEST - 1) % 3)


@pytest.mark.parametrize("memory_limit", [loading.MEMORY_LIMIT, 0])
def test_unreadable_records(tfds_dir, tmp_path, monkeypatch, memory_limit):
    monkeypatch.setattr(loading, "MEMORY_LIMIT", memory_limit)
    copy_grey(
        tfds_dir, tmp_path, lambda name, content: content[:-9] if "-train" in name else content
    )
    with pytest.raises(ValueError, match=r"Cannot read data set 'grey' in .*1\.10\.0") as error:
        load("grey", tmp_path)
    assert "\n" not in str(error.value)


def test_data_set_that_is_not_prepared(tfds_dir, tmp_path, monkeypatch):
    class Builder:
        data_dir = str(tfds_dir / "grey" / "1.10.0")
        prepared = False

        def download_and_prepare(self):
            self.prepared = True

    builder = Builder()
    monkeypatch.setattr(tfds, "builder", lambda name, data_dir: builder)
    data = load("cifar10", tmp_path)
    assert builder.prepared
    assert (data.info.name, data.info.path, len(data.test)) == ("cifar10", builder.data_dir, 12)

    def fail(name, data_dir):
        raise OSError(f"no network\nfor {name} in {data_dir}")

    monkeypatch.setattr(tfds, "builder", fail)
    with pytest.raises(ValueError, match=r"'cifar10' is not prepared in .*: no network$"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validation_fraction": 1.0}, r"`validation_fraction` must be in \[0, 1\).*=1.0$"),
        (
            {"train_examples": 1295},
            "`train_examples` must be from 1 to 1294.* Received: train_examples=1295",
        ),
        (
            {"train_examples": 0},
            "`train_examples` must be from 1 to 1294.* Received: train_examples=0",
        ),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        load("digits", **arguments)


class TestStreaming:
    @pytest.fixture
    def data(self, tfds_dir, monkeypatch):
        monkeypatch.setattr(loading, "MEMORY_LIMIT", (TRAIN + TEST) * 36 - 1)
        return load("grey", tfds_dir, validation_fraction=0.25, train_examples=40)

    def indices(self, data, dataset):
        """Numbers of the stored images: every pixel of each is its number, before normalisation."""
        images = np.concatenate([images.numpy()[:, 3, 3, 0] for images, _ in dataset])
        numbers = (images * data.preprocessing.std[0] + data.preprocessing.mean[0]) * 255
        return np.rint(numbers).astype(int)

    def test_pixels_are_the_stored_images(self, data):
        images, labels = data.test.pixels(5)
        assert images.dtype == np.uint8
        np.testing.assert_array_equal(images, np.stack([grey(100 + i) for i in range(5)]))
        np.testing.assert_array_equal(labels, [0, 1, 2, 0, 1])
        assert len(data.test.pixels()[0]) == 12

    def test_limit(self, tfds_dir, monkeypatch):
        monkeypatch.setattr(loading, "MEMORY_LIMIT", (TRAIN + TEST) * 36)
        assert isinstance(load("grey", tfds_dir).train, Split)

    def test_cuts(self, data, tfds_dir):
        assert all(isinstance(s, StreamingSplit) for s in (data.train, data.validation, data.test))
        assert (len(data.train), len(data.validation), len(data.test)) == (40, 15, 12)
        train, validation, test = (
            self.indices(data, split.batches(7))
            for split in (data.train, data.validation, data.test)
        )
        assert len(set(train) | set(validation)) == 55
        assert set(train) | set(validation) <= set(range(60))
        np.testing.assert_array_equal(test, np.arange(100, 112))
        assert np.all(np.diff(train) > 0)  # stored order
        np.testing.assert_allclose(data.preprocessing.mean, np.mean(train) / 255)
        labels = np.concatenate([labels for _, labels in data.train.batches(7)])
        np.testing.assert_array_equal(labels, train % 3)
        assert data.train.batches(7).cardinality() == 6

    def test_equals_the_split_in_memory(self, data):
        train = self.indices(data, data.train.batches(40))
        split = Split(
            np.stack([grey(i) for i in train]),
            (train % 3).astype(np.int32),
            data.preprocessing,
        )
        for arguments in ({"epochs": 2}, {"first_epoch": 1, "epochs": 3, "augment": False}):
            streamed = list(data.train.epochs(16, seed=3, **arguments))
            held = list(split.epochs(16, seed=3, **arguments))
            assert [len(labels) for _, labels in streamed] == [16, 16, 8] * 2
            for (images, labels), (same_images, same_labels) in zip(streamed, held, strict=True):
                assert images.numpy().tobytes() == same_images.numpy().tobytes()
                assert labels.numpy().tobytes() == same_labels.numpy().tobytes()

    def test_windows_smaller_than_the_split(self, data, monkeypatch):
        monkeypatch.setattr("kdtoolkit.data.records.SORT_WINDOW", 8)
        epochs = data.train.epochs(16, seed=3, epochs=3, augment=False)
        assert epochs.cardinality() == 9
        numbers = self.indices(data, epochs).reshape(3, 40)
        train = self.indices(data, data.train.batches(40))
        for epoch in numbers:
            np.testing.assert_array_equal(np.sort(epoch), train)
        assert not np.array_equal(numbers[0], numbers[1])
        whole = list(data.train.epochs(16, seed=3, epochs=3))
        tail = list(data.train.epochs(16, seed=3, first_epoch=1, epochs=3))
        for (images, _), (same, _) in zip(whole[3:], tail, strict=True):
            assert images.numpy().tobytes() == same.numpy().tobytes()

    def test_held_out_test_images_and_mixed_sizes(self, tfds_dir, monkeypatch):
        monkeypatch.setattr(loading, "MEMORY_LIMIT", 0)
        data = load("mixed", tfds_dir, image_size=4, validation_fraction=0)
        train, test = (self.indices(data, s.batches(4)) for s in (data.train, data.test))
        assert (len(train), len(test)) == (12, 3)
        np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(15))

    @pytest.mark.parametrize(
        ("change", "cause"),
        [
            (lambda content: content[:-9], "truncated record at "),
            (lambda content: content[:-20] + bytes(20), "corrupted record at "),
            (lambda content: b"", "Input dataset was expected to contain "),
        ],
    )
    def test_damage_found_while_training(self, tfds_dir, tmp_path, monkeypatch, change, cause):
        monkeypatch.setattr(loading, "MEMORY_LIMIT", 0)
        monkeypatch.setattr(loading, "_MEASURED_IMAGES", 8)
        copy_grey(
            tfds_dir,
            tmp_path,
            lambda name, content: change(content) if "train.tfrecord-00002" in name else content,
        )
        data = load("grey", tmp_path, validation_fraction=0)
        message = rf"^Cannot read data set 'grey' in '.*1\.10\.0': {cause}[^\n]*$"
        with pytest.raises(DamagedDataError, match=message), reading(data.info):
            list(data.train.batches(8))
        network = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
        network.compile("sgd", "mse")
        epochs = data.train.epochs(8, seed=0, epochs=1)
        with pytest.raises(DamagedDataError, match=message), reading(data.info):
            network.fit(epochs.map(lambda x, y: (x, tf.one_hot(y, 3))), shuffle=False, verbose=0)

    def test_errors_of_networks_stay_what_they_are(self, data):
        with pytest.raises(tf.errors.InvalidArgumentError), reading(data.info):
            tf.reshape(tf.zeros([3]), [2])
