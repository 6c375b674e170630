"""Exported graphs on uint8 images, against Keras and NumPy in float64."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from kdtoolkit import export, models
from kdtoolkit.compression.options import Options
from kdtoolkit.compression.quantization import quantization_aware
from kdtoolkit.data import Preprocessing
from tests import processes

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 8, 10, 3)).astype("uint8")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
PREPROCESSING = Preprocessing((8, 10, 3), MEAN, STD)


def resnet8(seed=0):
    """A network whose batch normalisations are not the identity, with decided answers."""
    keras.utils.set_random_seed(seed)
    network = models.build("resnet8", (8, 10, 3), 5)
    rng = np.random.default_rng(seed)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(rng.normal(0, 0.3, layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, layer.moving_variance.shape))
            layer.beta.assign(rng.normal(0, 0.3, layer.beta.shape))
    network.get_layer("logits").kernel.assign(rng.normal(0, 1, (64, 5)))
    return network


def softmax(z):
    z = np.asarray(z, np.float64)
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def normalised(images):
    return (images / 255.0 - np.array(MEAN)) / np.array(STD)


def run_saved_model(path, images):
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    assert signature.structured_input_signature[1] == {
        "image": tf.TensorSpec((None, 8, 10, 3), tf.uint8, name="image")
    }
    return signature(image=tf.constant(images))["probabilities"].numpy()


def run_litert(path, images):
    interpreter = Interpreter(str(path), num_threads=1)
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["image"], "outputs": ["probabilities"]}
    }
    (details,) = interpreter.get_input_details()
    assert details["dtype"] == np.uint8 and details["shape"].tolist() == [1, 8, 10, 3]
    runner = interpreter.get_signature_runner()
    return np.concatenate([runner(image=image[None])["probabilities"] for image in images])


FORMATS = {
    "saved_model": (export.to_saved_model, run_saved_model),
    "litert": (export.to_litert, run_litert),
}


@pytest.mark.parametrize("format", FORMATS)
def test_linear_network_in_numpy(tmp_path, format):
    """A dense layer on the mean colour: everything is worked out in NumPy."""
    write, run = FORMATS[format]
    image = keras.Input((8, 10, 3))
    x = keras.layers.GlobalAveragePooling2D()(image)
    network = keras.Model(image, keras.layers.Dense(5)(x))
    kernel, bias = RNG.normal(size=(3, 5)), RNG.normal(size=5)
    network.set_weights([kernel, bias])

    write(network, tmp_path / "normalised", PREPROCESSING)
    expected = softmax(normalised(IMAGES).mean((1, 2)) @ kernel + bias)
    np.testing.assert_allclose(run(tmp_path / "normalised", IMAGES), expected, atol=1e-6)

    network.set_weights([kernel / 100, bias])
    write(network, tmp_path / "pixels")
    expected = softmax(IMAGES.mean((1, 2), dtype=np.float64) @ (kernel / 100) + bias)
    np.testing.assert_allclose(run(tmp_path / "pixels", IMAGES), expected, atol=1e-6)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("ensemble", [False, True])
def test_equals_keras(tmp_path, format, ensemble):
    write, run = FORMATS[format]
    members = [resnet8(seed) for seed in range(2 if ensemble else 1)]
    network = models.Ensemble(members) if ensemble else members[0]
    exported = write(network, tmp_path / "exported", PREPROCESSING)
    inputs = normalised(IMAGES).astype("float32")
    expected = np.mean([softmax(m.predict(inputs, verbose=0)) for m in members], axis=0)
    assert np.ptp(expected, axis=0).max() > 0.1  # the images are told apart
    np.testing.assert_allclose(run(tmp_path / "exported", IMAGES), expected, atol=1e-5)
    assert (exported.format, exported.quantization) == (format, "float32")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A network and its file in float32."""
    network = resnet8()
    path = tmp_path_factory.mktemp("whole") / "whole.tflite"
    return network, export.to_litert(network, path, PREPROCESSING)


# The float32 file holds 4 bytes a weight; what is not a weight is some 20 kB.
@pytest.mark.parametrize(
    "quantization, fraction, atol",
    [("float16", 0.5, 2e-3), ("dynamic_range", 0.25, 8e-2), ("int8", 0.25, 8e-2)],
)
def test_quantised_weights(tmp_path, whole, quantization, fraction, atol):
    network, whole = whole
    small = export.to_litert(
        network, tmp_path / "small.tflite", PREPROCESSING, quantization, calibration=IMAGES
    )
    assert small.quantization == quantization
    assert fraction * whole.bytes < small.bytes < fraction * whole.bytes + 20_000
    expected = softmax(network.predict(normalised(IMAGES).astype("float32"), verbose=0))
    np.testing.assert_allclose(run_litert(small.path, IMAGES), expected, atol=atol)


def test_int4_rounds_weights_to_fifteen_steps_of_each_channel(tmp_path):
    pytest.importorskip("ai_edge_quantizer")
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 10, 3))
    x = keras.layers.Conv2D(64, 3, activation="relu")(image)
    x = keras.layers.Conv2D(64, 3, activation="relu")(x)
    network = keras.Model(image, keras.layers.Dense(5)(keras.layers.Flatten()(x)))
    last = network.layers[-1].kernel
    last.assign(last * 10)  # answers that are decided
    path = tmp_path / "int4.tflite"
    file = export.to_litert(network, path, PREPROCESSING, "int4", labels=list("abcde"))
    weights = sum(layer.kernel.numpy().size for layer in network.layers if hasattr(layer, "kernel"))
    assert weights / 2 < file.bytes < weights / 2 + 12_000
    inputs = normalised(IMAGES).astype("float32")
    whole = softmax(network.predict(inputs, verbose=0))
    for layer in network.layers:
        if hasattr(layer, "kernel"):
            kernel = layer.kernel.numpy().astype(np.float64)
            step = np.abs(kernel).max(tuple(range(kernel.ndim - 1))) / 7
            layer.kernel.assign(np.round(kernel / step) * step)
    rounded = softmax(network.predict(inputs, verbose=0))
    found = run_litert(path, IMAGES)
    # Besides, activations are rounded to eight bits.
    assert np.abs(found - rounded).max() < np.abs(found - whole).max() / 5
    np.testing.assert_allclose(found, rounded, atol=0.02)


def test_int4_without_what_makes_it(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for argument, ask in (
        ("quantization", lambda: export.to_litert(resnet8(), tmp_path / "x", quantization="int4")),
        ("quantize", lambda: Options(quantize=["int4"])),
    ):
        with pytest.raises(ValueError, match=rf"`{argument}` must be another kind .*\[int4"):
            ask()
    assert not list(tmp_path.iterdir())


def test_int8_computes_in_integers_between_floats(tmp_path):
    path = tmp_path / "int8.tflite"
    export.to_litert(resnet8(), path, PREPROCESSING, "int8", calibration=IMAGES)
    tensors = Interpreter(str(path)).get_tensor_details()
    floats = [tuple(t["shape"]) for t in tensors if t["dtype"] == np.float32]
    assert sorted(floats) == [(1, 5), (1, 8, 10, 3)]  # the probabilities and the pixels


def test_uint8_has_integers_only(tmp_path):
    """A pixel is its own integer, whatever the calibration images; 256 is probability 1."""
    network = resnet8()
    path = tmp_path / "uint8.tflite"
    dark = IMAGES // 2
    export.to_litert(network, path, PREPROCESSING, "uint8", calibration=dark)
    interpreter = Interpreter(str(path))
    tensors = interpreter.get_tensor_details()
    assert {t["dtype"] for t in tensors} == {np.uint8, np.int8, np.int32}
    (given,), (returned,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert given["dtype"] == returned["dtype"] == np.uint8
    assert given["quantization"] == (1.0, 0)
    assert returned["quantization"] == (1 / 256, 0)
    expected = softmax(network.predict(normalised(dark).astype("float32"), verbose=0))
    np.testing.assert_allclose(run_litert(path, dark) / 256, expected, atol=0.1)


@pytest.mark.parametrize("format", FORMATS)
def test_mixed_precision_network_is_exported_in_float32(tmp_path, format):
    write, run = FORMATS[format]
    reference = resnet8()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = resnet8()
    finally:
        keras.config.set_dtype_policy("float32")
    inputs = normalised(IMAGES).astype("float32")
    before = network.predict(inputs, verbose=0)
    exported = write(network, tmp_path / "exported", PREPROCESSING)
    expected = softmax(reference.predict(inputs, verbose=0))
    np.testing.assert_allclose(run(exported.path, IMAGES), expected, atol=1e-5)
    export.check(exported, network, PREPROCESSING, IMAGES)
    # The network itself stays as it was.
    assert network.get_layer("stage3").compute_dtype == "bfloat16"
    np.testing.assert_array_equal(network.predict(inputs, verbose=0), before)


def test_sizes(tmp_path, whole):
    network, file = resnet8(), whole[1]
    assert file.bytes == file.path.stat().st_size
    directory = export.to_saved_model(network, tmp_path / "saved_model", PREPROCESSING)
    files = [file for file in directory.path.rglob("*") if file.is_file()]
    assert directory.bytes == sum(file.stat().st_size for file in files)
    # Random weights do not compress, zeros do.
    network.set_weights([np.zeros_like(w) for w in network.get_weights()])
    zeros = export.to_litert(network, tmp_path / "zeros.tflite", PREPROCESSING)
    assert file.gzipped_bytes > 0.85 * file.bytes
    assert zeros.gzipped_bytes < 0.1 * file.gzipped_bytes


@pytest.mark.parametrize("format", FORMATS)
def test_replaces_an_older_export_and_leaves_nothing_else(tmp_path, whole, format):
    write, run = FORMATS[format]
    if format == "litert":
        shutil.copy(whole[1].path, tmp_path / "exported")
    else:
        write(resnet8(0), tmp_path / "exported", PREPROCESSING)
    network = resnet8(1)
    write(network, tmp_path / "exported", PREPROCESSING)
    expected = softmax(network.predict(normalised(IMAGES).astype("float32"), verbose=0))
    np.testing.assert_allclose(run(tmp_path / "exported", IMAGES), expected, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]


def test_a_failed_export_leaves_nothing_and_shows_what_was_held_back(tmp_path, capfd):
    def broken(images):
        return tf.numpy_function(lambda x: x.astype("float32"), [images], tf.float32)

    def preprocessing(images):
        return tf.ensure_shape(broken(images), (1, 8, 10, 3))

    with pytest.raises(Exception, match="PyFunc"):
        export.to_litert(resnet8(), tmp_path / "network.tflite", preprocessing)
    assert not list(tmp_path.iterdir())
    assert "PyFunc" in capfd.readouterr().err


def test_silent(tmp_path):
    """Nothing of the converter's and the interpreter's reports reaches the user."""
    code = (
        "import sys, numpy as np; from kdtoolkit import export, models; "
        "network = models.build('resnet8', (8, 8, 1), 3); "
        "images = np.zeros((1, 8, 8, 1), np.uint8); print('begin', file=sys.stderr, flush=True)\n"
        "for write in (export.to_saved_model, export.to_litert):\n"
        "    exported = write(network, sys.argv[1] + '/' + write.__name__)\n"
        "    export.check(exported, network, None, images)\n"
    )
    run = processes.run("-c", code, tmp_path)
    assert (run.returncode, run.stdout) == (0, ""), run.stderr
    assert run.stderr.partition("begin\n")[2] == ""


def test_memory_is_some_times_that_of_the_weights(tmp_path):
    """As constants in a graph, which is copied at each step to the file, they took 30 times it."""
    code = (
        "import resource, sys, keras; from kdtoolkit import export, models\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10\n"
        "def network(width):\n"
        "    image = keras.Input((32, 32, 1)); x = keras.layers.Flatten()(image)\n"
        "    x = keras.layers.Dense(width)(x)\n"
        "    return keras.Model(image, keras.layers.Dense(3)(x))\n"
        "export.to_litert(network(8), sys.argv[1]); wide = network(2**14); before = peak()\n"
        "export.to_litert(wide, sys.argv[1])\n"
        "print((peak() - before) / (4 * wide.count_params()))\n"
    )
    run = processes.run("-c", code, tmp_path / "wide.tflite")
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 15


@pytest.mark.parametrize("write", [export.to_saved_model, export.to_litert])
def test_errors(tmp_path, write):
    network = resnet8()
    probabilities = keras.Model(network.input, keras.layers.Softmax()(network.output))
    with pytest.raises(ValueError, match="`network` must return logits"):
        write(probabilities, tmp_path / "x", PREPROCESSING)
    image = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(image)
    free = keras.Model(image, keras.layers.Dense(5)(x), name="free")
    with pytest.raises(ValueError, match=r"fixed shape .* 'free', which takes \(None, None"):
        write(free, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_wrong_quantization(tmp_path):
    with pytest.raises(ValueError, match=r"`quantization` must be one of float32, .*'int3'"):
        export.to_litert(resnet8(), tmp_path / "x.tflite", PREPROCESSING, quantization="int3")


@pytest.mark.parametrize("quantization", ["int8", "uint8"])
@pytest.mark.parametrize(
    "calibration, received",
    [
        (None, "none"),
        (IMAGES[:0], r"uint8, shape \(0, 8, 10, 3\)"),
        (IMAGES / 255, r"float64, shape \(6, 8, 10, 3\)"),
        (IMAGES[:, 1:], r"uint8, shape \(6, 7, 10, 3\)"),
    ],
)
def test_wrong_calibration(tmp_path, quantization, calibration, received):
    message = rf"`calibration` must be uint8 images of shape \(n, 8, 10, 3\). Received: {received}$"
    with pytest.raises(ValueError, match=message):
        export.to_litert(
            resnet8(), tmp_path / "x", PREPROCESSING, quantization, calibration=calibration
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("quantization", ["float32", "float16", "dynamic_range", "int4"])
def test_quantisation_aware_networks_are_not_written_in_floats(tmp_path, quantization):
    network = quantization_aware(resnet8(), normalised(IMAGES))
    with pytest.raises(ValueError, match=f"`quantization` must be int8 or uint8 .*{quantization}"):
        export.to_litert(network, tmp_path / "x", PREPROCESSING, quantization)
    assert not list(tmp_path.iterdir())
