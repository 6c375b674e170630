"""Fake quantisation against NumPy in float64, and against the integer file that it announces."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers
from sklearn.datasets import load_digits

from kdtoolkit import export, models
from kdtoolkit.compression.quantization import quantization_aware
from kdtoolkit.data import Preprocessing
from kdtoolkit.methods import KD
from kdtoolkit.models.quantized_layers import (
    FakeQuantize,
    QuantizedConv2D,
    QuantizedDense,
    QuantizedDepthwiseConv2D,
    fake_quantize_kernel,
)
from kdtoolkit.training import Patriarch, SelfDistillation, Student
from kdtoolkit.training.fused import fused
from tests.models.test_copies import Times

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(16, 8, 10, 3)).astype("float32")
PIXELS = RNG.integers(0, 256, (40, 8, 10, 3)).astype("uint8")
PREPROCESSING = Preprocessing((8, 10, 3), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


def rounded(x, lowest, highest, bits):
    """The nearest of 2^bits points between two ends, moved so that one of them is zero."""
    x = np.asarray(x, np.float64)
    scale = (highest - lowest) / (2**bits - 1)
    first = -np.floor(-lowest / scale + 0.5) * scale
    last = first + (2**bits - 1) * scale
    return first + np.floor((np.clip(x, first, last) - first) / scale + 0.5) * scale, first, last


def rounded_kernel(kernel, bits):
    kernel = np.asarray(kernel, np.float64)
    largest = np.abs(kernel).reshape(-1, kernel.shape[-1]).max(0)
    scale = np.maximum(largest, largest.max() / 4096) / (2 ** (bits - 1) - 1)
    return np.floor(kernel / scale + 0.5) * scale


# Fake quantisation.


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_kernel(bits):
    kernel = RNG.normal(size=(3, 3, 4, 6)) * [1, 0.01, 30, 1e-3, 2, 5]
    found = fake_quantize_kernel(kernel.astype("float32"), bits)
    np.testing.assert_allclose(found, rounded_kernel(kernel, bits), rtol=1e-5, atol=1e-7)
    levels = [len(np.unique(found[..., channel])) for channel in range(6)]
    assert max(levels) <= 2**bits - 1


def test_every_weight_of_a_kernel_receives_its_gradient():
    """The largest of each channel too, which lies on the edge of its range."""
    kernel = tf.constant(RNG.normal(size=(20, 2000)), tf.float32)
    weights = RNG.normal(size=kernel.shape)
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        loss = tf.reduce_sum(fake_quantize_kernel(kernel) * weights)
    np.testing.assert_allclose(tape.gradient(loss, kernel), weights, rtol=1e-6)


def test_channels_of_next_to_nothing():
    """Hardly any weights, none at all: the grid is as fine as 1/4096 of the largest channel's."""
    kernel = RNG.normal(size=(30, 3)) * [1, 1e-6, 0]
    kernel[0, 0] = 8
    found = fake_quantize_kernel(kernel.astype("float32")).numpy()
    np.testing.assert_allclose(found[:, 1:], 0)  # half a step is 8 / 4096 / 127 / 2 = 7.7e-6
    np.testing.assert_array_equal(fake_quantize_kernel(np.zeros((5, 3), "float32")), 0)


@pytest.mark.parametrize("bits", [3, 8])
@pytest.mark.parametrize("lowest, highest", [(-1.3, 2.1), (0, 6), (-0.7, 1e-4)])
def test_activations(lowest, highest, bits):
    layer = FakeQuantize(bits)
    layer.build((None, 50))
    layer.minimum.assign(lowest)
    layer.maximum.assign(highest)
    x = tf.constant(RNG.uniform(-3, 7, (40, 50)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        found = layer(x)
    expected, first, last = rounded(x, lowest, highest, bits)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    inside = (x > first) & (x < last)
    np.testing.assert_array_equal(tape.gradient(found, x), np.float32(inside))


def test_ranges_are_moving_averages():
    layer = FakeQuantize(momentum=0.75)
    layer.build((None, 2))
    layer.minimum.assign(-4.0)
    layer.maximum.assign(8.0)
    for batch in ([[-8.0, 4.0]], [[1.0, 12.0]], [[-2.0, -3.0]]):
        layer(tf.constant(batch), training=True)
    # -4, then -4 * 3/4 - 8/4 = -5, then -5 * 3/4 + 0 = -3.75, then -3.75 * 3/4 - 3/4 = -3.5625.
    assert float(layer.minimum) == -3.5625
    # 8, then 8 * 3/4 + 4/4 = 7, then 7 * 3/4 + 12/4 = 8.25, then 8.25 * 3/4 + 0.0001/4.
    assert float(layer.maximum) == pytest.approx(6.1875 + 0.000025, abs=1e-6)
    layer(tf.constant([[-100.0, 100.0]]), training=False)
    assert float(layer.minimum) == -3.5625
    # The batch that moves the range is rounded to the new one: 8.25 * 3/4 + 20/4, zero included.
    layer.maximum.assign(8.25)
    layer.minimum.assign(0.0)
    assert float(layer(tf.constant([20.0]), training=True)[0]) == pytest.approx(11.1875)


@pytest.mark.parametrize(
    "quantized, plain, arguments, shape",
    [
        (QuantizedConv2D, layers.Conv2D, {"filters": 5, "kernel_size": 3, "strides": 2}, (9, 9, 3)),
        (QuantizedDepthwiseConv2D, layers.DepthwiseConv2D, {"kernel_size": 3}, (9, 9, 3)),
        (
            QuantizedDepthwiseConv2D,
            layers.DepthwiseConv2D,
            {"kernel_size": 2, "depth_multiplier": 2, "padding": "same"},
            (6, 5, 3),
        ),
        (QuantizedDense, layers.Dense, {"units": 5}, (7,)),
        (QuantizedDense, layers.Dense, {"units": 5}, (6, 7)),
    ],
)
def test_layers_are_those_of_keras_with_rounded_weights(quantized, plain, arguments, shape):
    x = RNG.normal(size=(4, *shape)).astype("float32")
    layer, reference = quantized(**arguments, activation="relu"), plain(**arguments)
    layer.build((None, *shape))
    reference.build((None, *shape))
    kernel, bias = RNG.normal(size=layer.kernel.shape), RNG.normal(size=layer.bias.shape)
    layer.kernel.assign(kernel)
    layer.bias.assign(bias)
    channels = kernel.reshape(*kernel.shape[:2], -1) if plain is layers.DepthwiseConv2D else kernel
    reference.set_weights([rounded_kernel(channels, 8).reshape(kernel.shape), bias])
    expected = np.maximum(reference(x), 0)
    layer.output_range.maximum.assign(3.0)
    np.testing.assert_allclose(layer(x), rounded(expected, 0, 3, 8)[0], atol=0.003)  # 3 / 255 / 4
    layer = quantized(**{**layer.get_config(), "quantize_output": False})
    layer.build((None, *shape))
    layer.set_weights([kernel, bias])
    np.testing.assert_allclose(layer(x), expected, atol=1e-4)


# Networks.


def normalised(network, seed=0):
    """The network with normalisations that are not the identity, and decided answers."""
    rng = np.random.default_rng(seed)
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_mean.assign(rng.normal(0, 0.3, layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, layer.moving_variance.shape))
            for weight in (layer.gamma, layer.beta):
                if weight is not None:
                    weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    return network


def assorted():
    """A network with every kind of layer that can be quantised."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 10, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv")(image)
    x = layers.BatchNormalization(scale=False, name="norm")(x)
    x = stem = layers.ReLU(6.0, name="relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise")(x)
    x = layers.BatchNormalization(center=False, name="depthwise_norm")(x)
    x = layers.Activation("relu", name="depthwise_relu")(x)
    x = layers.Conv2D(8, 1, name="project")(x)
    x = layers.Activation("silu", name="silu")(x)
    x = layers.Add(name="add")([x, stem])  # without a ReLU, and taken twice
    y = layers.BatchNormalization(name="before")(x)  # of no convolution
    y = layers.ReLU(name="before_relu")(y)
    y = layers.Conv2D(8, 3, 2, padding="same", activation="relu", name="mask")(y)
    y = layers.UpSampling2D(interpolation="bilinear", name="up")(y)
    y = layers.Activation("sigmoid", name="sigmoid")(y)
    x = layers.Multiply(name="gate")([x, y])
    x = keras.ops.pad(x, ((0, 0), (0, 0), (0, 0), (2, 2)))
    x = layers.Concatenate(name="concatenate")([x, layers.Activation("tanh", name="tanh")(stem)])
    x = layers.ReLU(name="concatenate_relu")(x)
    x = layers.Dropout(0.5, name="dropout")(layers.ZeroPadding2D(1, name="zeros")(x))
    x = layers.AveragePooling2D(2, name="average")(layers.MaxPooling2D(2, name="max")(x))
    x = layers.Flatten(name="flatten")(layers.Cropping2D(((0, 1), 0), name="crop")(x))
    x = layers.ReLU(name="dense_relu")(
        layers.BatchNormalization(name="dense_norm")(layers.Dense(12, name="dense")(x))
    )
    return normalised(keras.Model(image, layers.Dense(5, name="logits")(x), name="assorted"))


def resnet8():
    keras.utils.set_random_seed(0)
    return normalised(models.build("resnet8", (8, 10, 3), 5))


def all_layers(network):
    return {layer.name: layer for layer in network.layers}


@pytest.mark.parametrize("build", [resnet8, assorted])
def test_fine_grids_give_the_network_with_its_normalisation_folded(build):
    network = build()
    before = network.get_weights()
    fine = quantization_aware(network, IMAGES, bits=16)
    expected = network.predict(IMAGES, verbose=0)
    # Every rounding is by at most 1 / 2^17 of a range; one of 8 bits is 256 times coarser.
    np.testing.assert_allclose(
        fine.predict(IMAGES, verbose=0), expected, atol=1e-3 * np.ptp(expected)
    )
    coarse = quantization_aware(network, IMAGES).predict(IMAGES, verbose=0)
    assert np.abs(coarse - expected).max() > 1e-3 * np.ptp(expected)
    for a, b in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert fine.name == network.name and fine.input.name == network.input.name


def test_layers_of_a_resnet():
    """No normalisation, and a range for each tensor that the file stores: none before a ReLU."""
    network = quantization_aware(resnet8(), IMAGES)
    own = {layer.name for layer in resnet8().layers if "bn" not in layer.name}
    found = all_layers(network)
    ranges = {name for name, layer in found.items() if isinstance(layer, FakeQuantize)}
    assert found.keys() - ranges == own
    relus = {name for name in own if isinstance(found[name], layers.ReLU)}
    assert ranges == {f"{name}_range" for name in (*relus, "image", "features")}
    ranged = {name for name in own if getattr(found[name], "output_range", None)}
    assert ranged == {name for name in own if name.endswith(("conv2", "shortcut_conv", "logits"))}


def test_folding_by_hand():
    image = keras.Input((4, 4, 1))
    x = layers.Conv2D(2, 1, name="conv")(image)
    x = layers.BatchNormalization(epsilon=0.25, name="norm")(x)
    network = keras.Model(image, layers.GlobalAveragePooling2D()(x))
    network.get_layer("conv").set_weights(
        [np.reshape([1.0, -2.0], (1, 1, 1, 2)), np.array([0.5, 1.0])]
    )
    # gamma, beta, mean, variance: gains 3 / sqrt(2 + 1/4) = 2 and 1 / sqrt(3/4 + 1/4) = 1.
    network.get_layer("norm").set_weights(np.array([[3, 1], [1, 0], [0.25, 2], [2, 0.75]]))
    conv = quantization_aware(network, np.ones((2, 4, 4, 1))).get_layer("conv")
    np.testing.assert_allclose(conv.kernel.numpy().ravel(), [2, -2])
    np.testing.assert_allclose(conv.bias, [(0.5 - 0.25) * 2 + 1, 1 - 2])


def test_ranges_start_with_the_extremes_of_the_images():
    network = resnet8()
    found = all_layers(quantization_aware(network, IMAGES, bits=16))
    assert float(found["image_range"].minimum) == IMAGES.min()
    assert float(found["image_range"].maximum) == IMAGES.max()
    stage = keras.Model(network.input, network.get_layer("stage2").output)
    assert float(found["stage2_range"].minimum) == 0
    largest = stage.predict(IMAGES, verbose=0).max()
    assert float(found["stage2_range"].maximum) == pytest.approx(largest, rel=1e-3)


def test_save_and_load(tmp_path):
    network = quantization_aware(assorted(), IMAGES, momentum=0.5)
    Patriarch(network, "plain")(IMAGES, training=True)  # moves the ranges
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    expected = network.predict(IMAGES, verbose=0)
    np.testing.assert_array_equal(loaded.predict(IMAGES, verbose=0), expected)
    for before, after in zip(network.layers, loaded.layers, strict=True):
        assert after.get_config() == before.get_config()


def test_mixed_precision_network_is_quantised_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = resnet8()
        found = quantization_aware(mixed, IMAGES)
    finally:
        keras.config.set_dtype_policy("float32")
    computing = found.layers[1:]  # all but the input
    assert {layer.compute_dtype for layer in computing} == {"float32"}
    expected = quantization_aware(resnet8(), IMAGES).predict(IMAGES, verbose=0)
    np.testing.assert_array_equal(found.predict(IMAGES, verbose=0), expected)


def test_an_adapted_normalization_that_stays_in_float():
    """One of each pixel of its own, which no 1x1 convolution computes."""
    normalization = layers.Normalization(axis=(1, 2, 3), name="norm")
    normalization.adapt(IMAGES)
    with pytest.warns(UserWarning, match="stay in float: Normalization 'norm'"):
        found = quantization_aware(network_of(normalization), IMAGES, bits=16)
    images = IMAGES.astype("float64")
    expected = (images - images.mean(0)) / images.std(0)
    np.testing.assert_allclose(found(IMAGES), expected, atol=1e-3)


def network_of(*body):
    return keras.Sequential([keras.Input((8, 10, 3)), *body], name="net")


class Unknown(layers.Layer):
    """Its config does not say what it is made of."""

    def __init__(self, of=None, **options):
        super().__init__(**options)
        self.of = object() if of is None else of

    def call(self, x):
        return x

    def get_config(self):
        raise NotImplementedError("no config\nof this")


@pytest.mark.parametrize(
    "body, message",
    [
        (
            [layers.MaxPooling2D(2, data_format="channels_first", name="pool")],
            "MaxPooling2D 'pool', channels first$",
        ),
        (
            [FakeQuantize(name="range")],
            "FakeQuantize 'range', of a network that is quant.* already$",
        ),
        ([Unknown(name="own")], "Unknown 'own', which cannot be made anew from its config: .*$"),
    ],
)
def test_layers_that_cannot_be_quantised(body, message):
    with pytest.raises(ValueError, match=f"^Argument `network` must be made of .* {message}"):
        quantization_aware(network_of(*body), IMAGES)


@pytest.mark.filterwarnings("ignore:.* LiteRT has no integers for these layers")
def test_layers_that_are_called_as_new_ones_would_be():
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, activation="sigmoid", name="image_range")(image)
    x = layers.Conv2D(4, 3, name="elu_floats")(layers.ELU(name="elu")(x))
    x = layers.Concatenate(name="elu_range")([layers.ELU(name="other")(x), x])
    network = keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    images = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")
    with pytest.warns(UserWarning, match="stay in float"):
        rounded = quantization_aware(network, images, bits=16)
    np.testing.assert_allclose(rounded(images), network(images), atol=1e-3)
    assert rounded.get_layer("elu_range").__class__ is layers.Concatenate


def test_layers_of_ones_own_keep_their_names():
    found = quantization_aware(network_of(Times(2.0, name="own")), IMAGES)
    assert isinstance(found.get_layer("own"), Times)


def test_layers_of_nested_models_are_quantised():
    network, image = resnet8(), keras.Input((8, 10, 3))
    nested = keras.Sequential([image, keras.Model(image, network(image, training=False))])
    found, expected = (quantization_aware(model, IMAGES) for model in (nested, network))
    np.testing.assert_array_equal(found(IMAGES), expected(IMAGES))
    assert all_layers(expected).keys() - all_layers(found).keys() <= {"image", "image_range"}


def test_layers_that_are_called_with_their_input_by_name():
    image = keras.Input((8, 8, 3))
    x = layers.SeparableConv2D(4, 3, activation="silu")(inputs=image)
    x = layers.BatchNormalization()(inputs=layers.Conv2D(4, 3, name="conv")(inputs=x))
    x = layers.Add()(inputs=[x, x, layers.Activation("sigmoid")(inputs=x)])
    network = keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    images = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")
    rounded = quantization_aware(network, images, bits=16)
    np.testing.assert_allclose(rounded(images), network(images), atol=1e-3)


def test_a_layer_that_is_called_twice():
    image = keras.Input((8, 10, 3))
    layer = layers.Conv2D(3, 3, padding="same", name="shared")
    network = keras.Model(image, layer(layer(image)))
    with pytest.raises(
        ValueError, match=r"called once, channels last\. Received: Conv2D 'shared', called"
    ):
        quantization_aware(network, IMAGES)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"bits": 17}, "`bits` must be an integer from 2 to 16. Received: bits=17"),
        ({"momentum": 1.0}, r"`momentum` must be in \[0, 1\). Received: momentum=1.0"),
        ({"images": IMAGES[:0]}, r"`images` must be .* Received: shape \(0, 8, 10, 3\)"),
        ({"images": IMAGES[:, 1:]}, r"`images` must be a batch for 'resnet8', of shape \(n, 8, 10"),
        ({"network": models.Ensemble([resnet8()])}, "`network` must be a functional .*'ensemble'"),
    ],
)
def test_wrong_arguments(changes, message):
    arguments = {"network": resnet8(), "images": IMAGES} | changes
    with pytest.raises(ValueError, match=f"^Argument {message}"):
        quantization_aware(**arguments)


# Training.


LABELS = RNG.integers(0, 5, len(IMAGES))
METHODS = {
    "patriarch": lambda: Patriarch(quantization_aware(resnet8(), IMAGES), "plain"),
    "student": lambda: Student(quantization_aware(resnet8(), IMAGES), resnet8(), "kd"),
    "self_distillation": lambda: SelfDistillation(
        quantization_aware(models.add_exits(resnet8(), mid=4), IMAGES)
    ),
}


@pytest.mark.parametrize("method", METHODS)
def test_every_trainer_trains_it(method):
    trainer = METHODS[method]()
    network = trainer.network
    own = {id(variable) for variable in network.variables}
    assert {id(variable) for variable in fused(network).variables} == own
    before = {variable.path: variable.numpy() for variable in network.variables}
    trainer.compile(keras.optimizers.SGD(0.001))
    history = trainer.fit(IMAGES, LABELS, batch_size=8, epochs=2, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    after = {variable.path: variable.numpy() for variable in network.variables}
    still = {path for path in before if np.array_equal(before[path], after[path])}
    # Zero stays the minimum behind a ReLU and an average of what is not negative.
    assert all(path.endswith("minimum") for path in still)


def test_replicas_store_the_mean_of_their_ranges(two_replicas):
    with two_replicas.scope():
        image = keras.Input((2,))
        network = keras.Model(image, layers.Dense(3)(image))
        aware = quantization_aware(network, np.float32([[-1, 2], [1, 0]]), momentum=0.75)
        trainer = Patriarch(aware, "plain")
        trainer.compile(keras.optimizers.SGD(0.0))
    x = np.float32([[5, -3], [0, 1], [9, -2], [-7, 0]])  # two images for each replica
    trainer.fit(x, np.array([0, 1, 2, 0]), batch_size=4, shuffle=False, verbose=0)
    layer = aware.layers[1]
    values = [
        two_replicas.experimental_local_results(v.value) for v in (layer.minimum, layer.maximum)
    ]
    # (-3 - 7) / 2 = -5 and (5 + 9) / 2 = 7: -1 * 3/4 - 5/4 and 2 * 3/4 + 7/4.
    for found, expected in zip(values, (-2.0, 3.25), strict=True):
        np.testing.assert_allclose([float(value) for value in found], [expected] * 2, rtol=1e-6)


# Files.


def run(path, pixels):
    interpreter = Interpreter(str(path), num_threads=1)
    runner = interpreter.get_signature_runner()
    outputs = np.concatenate([runner(image=image[None])["probabilities"] for image in pixels])
    return outputs, interpreter.get_tensor_details()


def softmax(z):
    e = np.exp(np.float64(z) - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_file_of_every_kind_of_layer(tmp_path):
    network = quantization_aware(assorted(), np.array(PREPROCESSING(PIXELS)))
    file = export.to_litert(network, tmp_path / "a.tflite", PREPROCESSING, "int8")
    probabilities, tensors = run(file.path, PIXELS)
    expected = softmax(network.predict(np.array(PREPROCESSING(PIXELS)), verbose=0))
    np.testing.assert_allclose(probabilities, expected, atol=0.05)
    # Floats are the normalisation of pixels, of their shape, and the probabilities.
    floats = [tuple(tensor["shape"]) for tensor in tensors if tensor["dtype"] == np.float32]
    assert set(floats) <= {(1, 8, 10, 3), (10, 3), (1, 5)}


@pytest.fixture(scope="module")
def digits():
    """A trained resnet8, the same after training with rounding by its float self, and data."""
    images, labels = load_digits(return_X_y=True)
    images = np.minimum(images * 16, 255).astype("uint8").reshape(-1, 8, 8, 1)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], labels[order]
    preprocessing = Preprocessing.measure([images[:1200]])
    x, y = np.array(preprocessing(images[:1200])), labels[:1200]
    keras.utils.set_random_seed(0)
    network = models.build("resnet8", (8, 8, 1), 10)
    trainer = Patriarch(network, "plain")
    trainer.compile(keras.optimizers.SGD(0.05, momentum=0.9))
    trainer.fit(x, y, batch_size=64, epochs=4, verbose=0)
    aware = quantization_aware(network, x[:200])
    trainer = Student(aware, network, KD(0.6, 1.0))
    trainer.compile(keras.optimizers.SGD(0.005, momentum=0.9))
    trainer.fit(x, y, batch_size=64, epochs=2, verbose=0)
    return network, aware, preprocessing, images, labels


@pytest.fixture(scope="module", params=["int8", "uint8"])
def aware_file(request, digits, tmp_path_factory):
    """The file of the trained network: with no images to calibrate, and with some."""
    _, aware, preprocessing, images, _ = digits
    calibration = images[:100] if request.param == "uint8" else None
    path = tmp_path_factory.mktemp("digits") / "aware.tflite"
    return export.to_litert(aware, path, preprocessing, request.param, calibration=calibration)


def test_file_decides_as_the_network(digits, aware_file):
    _, aware, preprocessing, images, _ = digits
    decisions = run(aware_file.path, images[1200:])[0].argmax(-1)
    logits = aware.predict(np.array(preprocessing(images[1200:])), verbose=0)
    assert np.mean(decisions == logits.argmax(-1)) >= 0.995


def test_file_has_the_grids_of_the_network(digits, aware_file):
    _, aware, _, images, _ = digits
    tensors = run(aware_file.path, images[:1])[1]
    integers = [tensor for tensor in tensors if tensor["dtype"] == np.int8]
    grids = [tensor["quantization"] for tensor in integers]
    for layer in aware._flatten_layers():
        if isinstance(layer, FakeQuantize):
            lowest, highest = float(layer.minimum), float(layer.maximum)
            scale = (highest - lowest) / 255
            zero_point = round(-lowest / scale) - 128
            assert any(np.isclose(s, scale, rtol=1e-5) and z == zero_point for s, z in grids)
    scales = [tensor["quantization_parameters"]["scales"] for tensor in integers]
    for name in ("stem_conv", "stage3_block1_conv1", "logits"):
        kernel = aware.get_layer(name).kernel.numpy()
        expected = np.abs(kernel).reshape(-1, kernel.shape[-1]).max(0) / 127
        assert any(s.shape == expected.shape and np.allclose(s, expected, 1e-5) for s in scales)


def test_the_ways_to_int8(digits, aware_file, tmp_path):
    """Rounding after training, and in training, where the float network teaches."""
    network, _, preprocessing, images, labels = digits
    test, expected = images[1200:], labels[1200:]
    ptq = tmp_path / "ptq.tflite"
    export.to_litert(network, ptq, preprocessing, aware_file.quantization, calibration=images[:200])
    whole = network.predict(np.array(preprocessing(test)), verbose=0)
    accuracy = [
        np.mean(outputs.argmax(-1) == expected)
        for outputs in (whole, run(ptq, test)[0], run(aware_file.path, test)[0])
    ]
    assert min(accuracy) > 0.97
    assert max(accuracy) - min(accuracy) < 0.015
