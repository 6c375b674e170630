import re

import keras
import numpy as np
import pytest

from kdtoolkit import data, generations

# A hundred different images, as no two have the same first pixels; each fourth is of one class.
X = np.random.default_rng(0).integers(0, 256, (100, 6, 5, 3), dtype=np.uint8)
X[:, 0, 0, 0] = np.arange(100)
Y = np.arange(100) % 4


def numbers(split):
    """Which of `X` a split holds, in its order."""
    return split.images[:, 0, 0, 0].tolist()


def test_cuts():
    made = data.from_arrays(X, Y, class_names=["a", "b", "c", "d"])
    parts = [numbers(split) for split in (made.train, made.validation, made.test)]
    # A fifth of 100 tests, a tenth of the other 80 validates.
    assert [len(part) for part in parts] == [72, 8, 20]
    assert sorted(parts[0] + parts[1] + parts[2]) == list(range(100))
    for split, of_each in ((made.train, 18), (made.validation, 2), (made.test, 5)):
        np.testing.assert_array_equal(split.labels, Y[numbers(split)])
        assert split.labels.dtype == np.int32
        assert np.bincount(split.labels).tolist() == [of_each] * 4
    info = made.info
    assert (info.image_shape, info.classes, info.labels) == ((6, 5, 3), 4, ("a", "b", "c", "d"))
    assert (info.train_size, info.validation_size, info.test_size) == (80, None, 20)
    trained = made.train.images / 255
    np.testing.assert_allclose(made.preprocessing.mean, trained.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(made.preprocessing.std, trained.std(axis=(0, 1, 2)))


def test_cuts_are_those_of_an_archive(tmp_path):
    np.savez(tmp_path / "stored.npz", images=X, labels=Y)
    stored, made = data.load(str(tmp_path / "stored.npz")), data.from_arrays(X, Y)
    for name in ("train", "validation", "test"):
        assert getattr(made, name).fingerprint() == getattr(stored, name).fingerprint()


def test_given_splits():
    made = data.from_arrays(
        *(X[:60], Y[:60, None]),
        validation_data=(X[60:70], Y[60:70]),
        test_data=(X[70:], Y[70:]),
        augmentation=data.Augmentation(pad=1, flip=False),
        name="mine",
    )
    assert sorted(numbers(made.train)) == list(range(60))
    assert numbers(made.validation) == list(range(60, 70))
    assert numbers(made.test) == list(range(70, 100))
    info = made.info
    assert (info.train_size, info.validation_size, info.test_size) == (60, 10, 30)
    assert (info.name, info.classes, info.labels) == ("mine", 4, ("0", "1", "2", "3"))
    assert made.train.augmentation.pad == 1


def test_grey_images_need_no_channels():
    made = data.from_arrays(X[..., 0], Y, validation_fraction=0)
    assert made.train.images.shape == (80, 6, 5, 1)
    assert len(made.validation) == 0


def test_class_without_training_images():
    with pytest.warns(UserWarning, match=r"1 of 5 classes of 'arrays' .* images: e") as caught:
        data.from_arrays(X, Y, class_names="abcde")
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (X / 255, Y, {}, "Argument `x` must be uint8 of shape"),
        (X[0, 0], Y, {}, "Argument `x` must be uint8 of shape"),
        (np.moveaxis(X, 3, 1), Y, {}, "with 1 or 3 channels. Received: uint8 of shape (100, 3, 6,"),
        (X[:0], Y[:0], {}, "Argument `x` must be uint8 of shape"),
        (X, Y[:99], {}, "Argument `y` must be 100 class indices"),
        (X, Y - 1, {}, "Argument `y` must be 100 class indices"),
        (X, Y + 2**32, {}, "Received: int64 of shape (100,), from 4294967296 to 4294967299"),
        (X, Y, {"test_data": (X, Y + 2**31)}, "integers from 0 to 2147483647"),
        (X, np.eye(4)[Y], {}, "Argument `y` must be 100 class indices"),
        (X, Y, {"class_names": ["a"]}, "Argument `class_names` must be one for each class"),
        (X, Y, {"class_names": [1, 2, 3, 4]}, "`class_names` must be names of one line of UTF-8"),
        (X, Y, {"class_names": ["a", "b", "c", ""]}, "UTF-8 text. Received: ''"),
        (X, Y, {"class_names": ["a", "b\nc", "d", "e"]}, r"UTF-8 text. Received: 'b\nc'"),
        (X, Y, {"validation_fraction": 1}, "Argument `validation_fraction` must be in [0, 1)"),
        (X, Y, {"test_data": X}, "Argument `test_data` must be a pair of arrays"),
        (X, Y, {"test_data": (X / 255, Y)}, "Argument `test_data` must be uint8 of shape"),
        (X, Y, {"validation_data": (X[:, 1:], Y)}, "Argument `validation_data` must be of images"),
    ],
)
def test_arguments(x, y, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        data.from_arrays(x, y, **options)


def test_training_in_generations(tmp_path):
    def build():
        image = keras.Input((6, 5, 3))
        return keras.Model(image, keras.layers.Dense(4)(keras.layers.Flatten()(image)))

    made = data.from_arrays(X, Y)
    (patriarch,) = generations.train_generations(
        build, made, tmp_path, generations=0, top_k=3, epochs=1, show_progress=False
    )
    assert patriarch.network.output_shape == (None, 4)
    assert 0 <= patriarch.results["test_accuracy"] <= 1
