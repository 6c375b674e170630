"""Classifiers from files: ours, anybody's, and what is none."""

import io
import json
import math
import os
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from kdtoolkit import models
from kdtoolkit.data import Preprocessing
from kdtoolkit.models import saved
from kdtoolkit.models.saved import from_input_range, load_classifier
from tests.losses.reference import softmax

IMAGES = np.random.default_rng(0).random((4, 8, 8, 1)).astype("float32")


def stranger(ending, classes=3):
    """A Sequential model, as most people write one, that ends with probabilities."""
    dense = keras.layers.Dense(
        classes, activation="softmax" if ending in ("activation", "nested") else None
    )
    network = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), dense])
    if ending == "softmax":
        network.add(keras.layers.Softmax())
    if ending == "activation layer":
        network.add(keras.layers.Activation("softmax"))
    if ending in ("operation", "nested"):
        image = keras.Input((8, 8, 1))
        outputs = network(image) if ending == "nested" else keras.ops.softmax(network(image))
        network = keras.Model(image, outputs)
    return network


@pytest.mark.parametrize(
    "ending", ["logits", "activation", "softmax", "activation layer", "operation", "nested"]
)
def test_last_softmax_is_left_out(ending, tmp_path):
    network = stranger(ending)
    network.save(tmp_path / "network.keras")
    loaded = load_classifier(tmp_path / "network.keras", (8, 8, 1), 3)
    kernel, bias = network.get_weights()
    logits = IMAGES.reshape(4, 64) @ kernel + bias
    np.testing.assert_allclose(loaded.predict(IMAGES, verbose=0), logits, rtol=1e-5, atol=1e-6)
    if ending != "logits":
        expected = network.predict(IMAGES, verbose=0)
        np.testing.assert_allclose(softmax(logits), expected, rtol=1e-5)


def test_layers_of_a_nested_network_are_the_networks_own(tmp_path):
    network = stranger("nested")
    network.save(tmp_path / "nested.keras")
    loaded = saved.load_network(tmp_path / "nested.keras")
    (inner,) = [layer for layer in network.layers if isinstance(layer, keras.Model)]
    names = [layer.name for layer in loaded.layers if layer.weights]
    assert names == [layer.name for layer in inner.layers if layer.weights]
    np.testing.assert_array_equal(loaded(IMAGES), network(IMAGES))


def test_multi_exit_network_gives_its_deepest_exit(tmp_path):
    network = models.add_exits(models.build("resnet8", (8, 8, 1), 3), mid=4)
    network.save(tmp_path / "network.keras")
    loaded = load_classifier(tmp_path / "network.keras")
    logits = network.predict(IMAGES, verbose=0)
    deepest = logits[models.exit_names(network)[-1]]
    np.testing.assert_allclose(loaded.predict(IMAGES, verbose=0), deepest, rtol=1e-6)
    shallow = load_classifier(tmp_path / "network.keras", exit="exit_1")
    np.testing.assert_allclose(shallow.predict(IMAGES, verbose=0), logits["exit_1"], rtol=1e-6)
    assert shallow.count_params() < loaded.count_params()
    with pytest.raises(ValueError, match=r"`exit`.*exit_1.*exit_7"):
        load_classifier(tmp_path / "network.keras", exit="exit_7")


@pytest.mark.parametrize(
    ("input_range", "top"), [("normalized", None), ("unit", 1), ("bytes", 255)]
)
def test_network_of_other_pixel_values(input_range, top):
    network = models.build("resnet8", (8, 8, 1), 3)
    adapted = from_input_range(network, Preprocessing((8, 8, 1), (0.4,), (0.2,)), input_range)
    own = IMAGES if top is None else (IMAGES * top).astype("float32")
    ours = IMAGES if top is None else (IMAGES - 0.4) / 0.2
    expected = network.predict(own, verbose=0)
    np.testing.assert_allclose(adapted.predict(ours, verbose=0), expected, rtol=1e-4, atol=1e-5)
    adapted.get_layer("stage2")


@pytest.mark.parametrize("ending", ["activation", "operation", "nested"])
@pytest.mark.parametrize(("input_range", "top"), [("unit", 1), ("bytes", 255)])
def test_strangers_of_other_pixel_values(ending, input_range, top, tmp_path):
    network = stranger(ending)
    network.save(tmp_path / "network.keras")
    loaded = load_classifier(tmp_path / "network.keras", (8, 8, 1), 3)
    adapted = from_input_range(loaded, Preprocessing((8, 8, 1), (0.4,), (0.2,)), input_range)
    logits = adapted.predict((IMAGES - 0.4) / 0.2, verbose=0)
    expected = network.predict(IMAGES * top, verbose=0)
    np.testing.assert_allclose(softmax(logits), expected, rtol=1e-4, atol=1e-6)


def test_network_for_images_of_any_size_becomes_one_for_ours(tmp_path):
    image = keras.Input((None, None, 1))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 3)(image))
    network = keras.Model(image, x)
    network.save(tmp_path / "network.keras")
    loaded = load_classifier(tmp_path / "network.keras", (8, 8, 1), 3)
    assert loaded.input_shape == (None, 8, 8, 1)
    expected = network.predict(IMAGES, verbose=0)
    np.testing.assert_allclose(loaded.predict(IMAGES, verbose=0), expected, rtol=1e-6)


def save(network, path):
    network.save(path)


def write_text(_, path):
    path.write_text("weights")


def write_zip(_, path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{")


def cut_short(network, path):
    network.save(path)
    path.write_bytes(path.read_bytes()[:-100])


def two_inputs():
    inputs = [keras.Input((4,)), keras.Input((4,))]
    return keras.Model(inputs, keras.layers.Add()(inputs))


class Unregistered(keras.layers.Layer):
    def call(self, x):
        return x


def own_layer():
    image = keras.Input((8, 8, 1))
    return keras.Model(image, keras.layers.Dense(5)(keras.layers.Flatten()(Unregistered()(image))))


def probabilities_by_hand():
    image = keras.Input((8, 8, 1))
    x = keras.ops.exp(keras.layers.Dense(5)(keras.layers.Flatten()(image)))
    return keras.Model(image, x / keras.ops.sum(x, axis=-1, keepdims=True))


def not_a_number():
    network = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    network.add(keras.layers.Dense(5, kernel_initializer=keras.initializers.Constant(np.nan)))
    return network


def segmentation():
    image = keras.Input((8, 8, 1))
    return keras.Model(image, keras.layers.Conv2D(3, 1)(image))


@pytest.mark.parametrize(
    ("make", "write", "message"),
    [
        (stranger, write_text, "is not a .keras file"),
        (stranger, write_zip, "is not a .keras file"),
        (stranger, cut_short, "is not a .keras file"),
        (stranger, lambda network, path: None, "No such file"),
        (two_inputs, save, "functional model of one image input"),
        (segmentation, save, "not a classifier.*shape"),
        (stranger, save, "must tell 5 classes apart.*for 3"),
        (own_layer, save, "not registered: Unregistered"),
        (probabilities_by_hand, save, "rows that sum to 1"),
        (not_a_number, save, "must have finite variables"),
    ],
)
def test_what_is_no_such_classifier_is_named(make, write, message, tmp_path):
    path = tmp_path / "teacher.keras"
    write(make("logits") if make is stranger else make(), path)
    with pytest.raises(ValueError, match=f"teacher.keras.*{message}|{message}.*teacher.keras"):
        load_classifier(path, (8, 8, 1), 5)


def test_images_of_another_shape(tmp_path):
    models.build("resnet8", (8, 8, 1), 3).save(tmp_path / "teacher.keras")
    with pytest.raises(ValueError, match=r"shape \(8, 8, 3\).*\(8, 8, 1\)"):
        load_classifier(tmp_path / "teacher.keras", (8, 8, 3), 3)


@pytest.mark.parametrize("inside", [True, False])
def test_weights_that_expand(inside, tmp_path):
    """Compressed by HDF5, or by the zip around it."""
    path = tmp_path / "a.keras"
    keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()]).save(path)
    stream = io.BytesIO()
    with h5py.File(stream, "w") as weights:
        zeros = np.zeros(2**26 + 1, np.uint8)
        weights.create_dataset("a", data=zeros, compression=9 if inside else None)
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", stream.getvalue())
    with pytest.raises(
        ValueError, match=r"a\.keras' is not a \.keras file: .* bytes .*expand to 6"
    ):
        saved.check_file(path)


LARGE = {
    "a layer": {"Dense": ("units", 10**9)},
    "many channels": {"Conv2D": ("filters", 10**8)},
    "together": {"Conv2D": ("filters", 300_000), "Dense": ("units", 2_000_000)},
}


@pytest.mark.parametrize("changes", LARGE.values(), ids=LARGE)
def test_layers_that_are_larger_than_their_weights(changes, tmp_path, monkeypatch):
    """Refused before a number of them is allocated."""
    path = tmp_path / "large.keras"
    image = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image))
    keras.Model(image, keras.layers.Dense(5)(x)).save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    for layer in config["config"]["layers"]:
        if layer["class_name"] in changes:
            name, value = changes[layer["class_name"]]
            layer["config"][name] = value
    members["config.json"] = json.dumps(config)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    add_weight = keras.Layer.add_weight

    def allocating(layer, *args, **kwargs):
        assert math.prod(kwargs["shape"]) < 10**7
        return add_weight(layer, *args, **kwargs)

    monkeypatch.setattr(keras.Layer, "add_weight", allocating)
    with pytest.raises(ValueError, match=r"layer '.*' and those before .* has 137$"):
        saved.load_network(path)
    assert keras.Layer.add_weight is allocating


@pytest.mark.parametrize("opening, closing", [("[", "]"), ('{"config":', "}")])
@pytest.mark.parametrize("depth", [900, 100_000])
def test_a_config_that_is_nested_deeply(opening, closing, depth, tmp_path):
    path = tmp_path / "nested.keras"
    save(stranger("logits"), path)
    with zipfile.ZipFile(path) as archive:
        weights = archive.read("model.weights.h5")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", opening * depth + "1" + closing * depth)
        archive.writestr("model.weights.h5", weights)
    with pytest.raises(ValueError, match=r"nested\.keras' (is not a|cannot be)"):
        saved.load_network(path)


def test_damaged_headers_are_named(tmp_path):
    """Every byte of the zip's directory, which says what to unpack, and how."""
    path = tmp_path / "damaged.keras"
    save(stranger("logits"), path)
    whole, config = path.read_bytes(), saved.check_file(path)
    named = 0
    for position in range(whole.index(b"PK\x01\x02"), len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            assert saved.check_file(path) == config
        except ValueError as error:
            assert "damaged.keras' is" in str(error) and "\n" not in str(error)
            named += 1
    assert named > 100


def test_a_config_that_expands(tmp_path):
    path = tmp_path / "a.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b"[" + b" " * 2**26 + b"]")
    with pytest.raises(ValueError, match=r"expand to 67,108,866, more than 400 times"):
        saved.check_file(path)


def test_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.keras")
    with pytest.raises(ValueError, match=r"is not a \.keras file: .*Not a regular file"):
        saved.check_file(tmp_path / "a.keras")


@pytest.mark.parametrize("size", [4, 16])
def test_network_for_images_of_another_size_sees_them_resized(size, tmp_path):
    """By bilinear interpolation between the middles of pixels; those made smaller are averages."""
    keras.utils.set_random_seed(0)
    x = image = keras.Input((size, size, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(x))
    x = keras.layers.Dense(5)(keras.layers.Flatten()(x))
    keras.Model(image, x).save(tmp_path / "teacher.keras")
    with pytest.raises(ValueError, match=rf"shape \(8, 8, 3\).*\({size}, {size}, 3\)"):
        load_classifier(tmp_path / "teacher.keras", (8, 8, 3), 5)
    with pytest.raises(ValueError, match=r"shape \(8, 8, 1\)"):
        load_classifier(tmp_path / "teacher.keras", (8, 8, 1), 5, resize=True)
    network = load_classifier(tmp_path / "teacher.keras", (8, 8, 3), 5, resize=True)
    assert network.input_shape == (None, 8, 8, 3)
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    places = (np.arange(size) + 0.5) * 8 / size - 0.5
    near = np.abs(np.clip(places, 0, 7)[:, None] - np.arange(8))
    weights = np.maximum(1 - near, 0) if size > 8 else (near < 1).astype(float)
    weights /= weights.sum(axis=1, keepdims=True)
    expected = np.einsum("hi,wj,bijc->bhwc", weights, weights, x)
    seen = keras.Model(network.input, network.get_layer("resized").output)(x)
    np.testing.assert_allclose(seen, expected, atol=1e-5)
    original = keras.models.load_model(tmp_path / "teacher.keras")
    found = tf.function(network, jit_compile=True)(x)  # in inference mode, where none is asked for
    np.testing.assert_allclose(found, original(expected), rtol=1e-4, atol=1e-5)


def test_network_that_fits_is_not_resized(tmp_path):
    models.build("resnet8", (8, 8, 1), 3).save(tmp_path / "teacher.keras")
    network = load_classifier(tmp_path / "teacher.keras", (8, 8, 1), 3, resize=True)
    assert not any(isinstance(layer, keras.layers.Resizing) for layer in network.layers)
