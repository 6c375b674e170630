"""Keras' files of weights: two formats, with a classifier and without, whole and not."""

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from kdtoolkit.models import keras_weights


def network(width=4, depth=2, classes=None):
    x = image = keras.Input((8, 8, 3))
    x = layers.Normalization()(x)
    for index in range(depth):
        x = layers.Conv2D(width, 3, name=f"conv_{index}")(x)
        x = layers.BatchNormalization(name=f"norm_{index}")(x)
    if classes is not None:
        x = layers.Dense(classes)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, x, name="small")
    random = np.random.default_rng(0)
    for variable in model.weights:
        if variable.dtype == "float32":
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
    model.get_layer(index=1).finalize_state()
    return model


def by_order(model, path):
    """As Keras 2 wrote weights: layers by name, in their order, and long lists in parts."""
    with h5py.File(path, "w") as file:
        names = [layer.name.encode() for layer in model.layers]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:3], names[3:]
        for layer in model.layers:
            group = file.create_group(layer.name)
            weights = [*layer.trainable_weights, *layer.non_trainable_weights]
            group.attrs["weight_names"] = [v.path.encode() for v in weights]
            for variable in weights:
                group[variable.path] = np.asarray(variable)


def by_structure(model, path):
    model.save_weights(path)


FORMATS = {"old.h5": by_order, "new.weights.h5": by_structure}
each_format = pytest.mark.parametrize("name", FORMATS)


@each_format
@pytest.mark.parametrize("classes", [None, 7])
def test_all_is_loaded_and_a_classifier_left_out(name, classes, tmp_path):
    original = network(classes=classes)
    FORMATS[name](original, tmp_path / name)
    loaded = network()
    for variable in loaded.weights:
        variable.assign(np.zeros(variable.shape))
    keras_weights.load(loaded, tmp_path / name)
    for expected, found in zip(original.weights, loaded.weights, strict=False):
        np.testing.assert_array_equal(found, expected)
    x = np.random.default_rng(1).normal(size=(2, 8, 8, 3))
    ends = keras.Model(original.input, original.get_layer("norm_1").output)
    np.testing.assert_array_equal(loaded(x, training=False), ends(x, training=False))
    assert keras_weights.count(tmp_path / name) == 5 + (classes is not None)


def test_older_whole_model(tmp_path):
    model = network(classes=3)
    model.save(tmp_path / "model.h5")
    loaded = network()
    keras_weights.load(loaded, tmp_path / "model.h5")
    np.testing.assert_array_equal(loaded.weights[-1], model.get_layer("norm_1").moving_variance)


@each_format
def test_layer_of_another_shape_is_named(name, tmp_path):
    FORMATS[name](network(width=5), tmp_path / name)
    with pytest.raises(
        ValueError, match=r"small. .*'conv_0' takes \(3, 3, 3, 4\).*\(3, 3, 3, 5\)"
    ) as error:
        keras_weights.load(network(), tmp_path / name)
    assert "\n" not in str(error.value)


@each_format
def test_layer_that_is_missing_is_named(name, tmp_path):
    FORMATS[name](network(), tmp_path / name)
    with pytest.raises(ValueError, match="conv_2"):
        keras_weights.load(network(depth=3), tmp_path / name)


def test_what_keras_leaves_out_in_silence_is_named(tmp_path, monkeypatch):
    by_structure(network(), tmp_path / "some.weights.h5")
    loaded = network()
    monkeypatch.setattr(loaded, "load_weights", lambda path: None)
    with pytest.raises(ValueError, match=r"no finite ones, for '.*mean'"):
        keras_weights.load(loaded, tmp_path / "some.weights.h5")


@pytest.mark.parametrize("kept", [0, 100, 2000])
@each_format
def test_damaged_file(name, kept, tmp_path):
    FORMATS[name](network(), tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:kept])
    with pytest.raises(ValueError, match="`weights` must be those of small"):
        keras_weights.load(network(), tmp_path / name)


def test_name_decides_how_keras_reads(tmp_path):
    by_structure(network(), tmp_path / "some.weights.h5")
    (tmp_path / "some.weights.h5").rename(tmp_path / "some.h5")
    with pytest.raises(ValueError, match=r"where it is named .weights.h5"):
        keras_weights.load(network(), tmp_path / "some.h5")


def test_arrays_in_other_files_are_not_followed(tmp_path):
    by_structure(network(), tmp_path / "other.weights.h5")
    for number, make in enumerate((linked, stored_outside)):
        path = tmp_path / f"{number}.h5"
        with h5py.File(path, "w") as file:
            make(file, tmp_path / "other.weights.h5")
        with pytest.raises(ValueError, match="'a' is in another file"):
            keras_weights.load(network(), path)


def linked(file, other):
    file["a"] = h5py.ExternalLink(str(other), "/layers")


def stored_outside(file, other):
    file.create_dataset("a", (4,), "f4", external=[(str(other), 0, 16)])


def test_arrays_that_expand_out_of_all_proportion(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", (2**40,), "f4", chunks=(2**20,), compression="gzip")
    with pytest.raises(ValueError, match="bytes expand to 4,398,046,511,104"):
        keras_weights.load(network(), tmp_path / "a.h5")
