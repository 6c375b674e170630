"""What a quantisation-aware network rounds, its file rounds too: layer by layer."""

import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers, ops
from sklearn.datasets import load_digits

from kdtoolkit.compression import quantization_aware
from kdtoolkit.export import litert
from kdtoolkit.export.quiet import quiet
from kdtoolkit.models.saved import load_network

SHAPE = (6, 4, 3)
IMAGES = np.random.default_rng(0).normal(0, 2, (48, *SHAPE)).astype("float32")
CONSTANT = np.random.default_rng(1).normal(size=SHAPE).astype("float32")


def converted(network, images=IMAGES):
    """The file's outputs, and of each operation the name and whether it has to do with floats."""

    @tf.function(autograph=False)
    def run(image):
        return {"y": network(image, training=False)}

    function = run.get_concrete_function(tf.TensorSpec((1, *images.shape[1:]), name="image"))
    with quiet():
        content = litert.convert({"serving_default": function}, "int8")
        interpreter = Interpreter(model_content=content, num_threads=1)
        runner = interpreter.get_signature_runner()
        outputs = np.concatenate([runner(image=image[None])["y"] for image in images])
    types = {t["index"]: t["dtype"] for t in interpreter.get_tensor_details()}
    kinds = []
    for operation in interpreter._get_ops_details():
        used = {types.get(index) for index in (*operation["inputs"], *operation["outputs"])}
        if operation["op_name"] not in ("QUANTIZE", "DEQUANTIZE", "DELEGATE"):
            kinds.append((operation["op_name"], np.float32 in used))
    return outputs, kinds


def random(layer, seed=0):
    """The layer with weights that are not those it begins with."""

    def call(x):
        y = layer(x)
        rng = np.random.default_rng(seed)
        layer.set_weights([rng.uniform(0.2, 0.8, w.shape) for w in layer.get_weights()])
        return y

    return call


def vector(x):
    return layers.GlobalAveragePooling2D()(x)


def words(x):
    return layers.Reshape((12, 6))(x)


def gate(x):
    return layers.Activation("sigmoid")(x)


def parts(x):
    first, *others = x
    return layers.Concatenate()([ops.tanh(first), *others])


def sloped():
    layer = layers.PReLU()
    layer.build((1, 4, 2, 5))
    return layer


INTEGERS = {
    **{
        f"convolution, {name}": lambda x, name=name: layers.Conv2D(5, 3, activation=name)(x)
        for name in ("silu", "sigmoid", "tanh", "gelu", "hard_silu", "hard_sigmoid", "leaky_relu")
    },
    **{
        name: lambda x, name=name: layers.Activation(name)(x)
        for name in ("hard_swish", "hard_tanh", "swish", "softmax", "exponential", "relu6")
    },
    **{
        f"ops.{name}": lambda x, name=name: getattr(ops, name)(x)
        for name in (
            *("relu", "relu6", "silu", "sigmoid", "tanh", "gelu", "hard_silu", "hard_sigmoid"),
            *("hard_tanh", "leaky_relu", "exp", "softmax"),
        )
    },
    "convolution, a layer": lambda x: layers.Conv2D(
        5, 3, activation=layers.LeakyReLU(0.1, name="leaky")
    )(x),
    "convolution, a ReLU": lambda x: layers.Conv2D(5, 3, activation=layers.ReLU())(x),
    "convolution, a layer of an activation": lambda x: layers.Conv2D(
        5, 3, activation=layers.Activation("silu")
    )(x),
    "convolution, a layer with weights": lambda x: random(layers.Conv2D(5, 3, activation=sloped()))(
        x
    ),
    "separable, a layer with weights": lambda x: random(
        layers.SeparableConv2D(5, 3, activation=sloped())
    )(x),
    "convolution, a layer that has not run": lambda x: layers.Conv2D(
        5, 3, activation=layers.PReLU(alpha_initializer="ones")
    )(x),
    "a layer within a layer": lambda x: layers.Activation(layers.LeakyReLU(0.1))(x),
    "dense, softmax": lambda x: layers.Dense(5, activation="softmax")(layers.Flatten()(x)),
    "depthwise, silu": lambda x: layers.DepthwiseConv2D(3, activation="silu")(x),
    "Softmax": lambda x: layers.Softmax()(x),
    "LeakyReLU": lambda x: layers.LeakyReLU(negative_slope=0.1)(x),
    "ReLU with a slope": lambda x: layers.ReLU(negative_slope=0.1)(x),
    "ReLU up to 2": lambda x: layers.ReLU(2.0)(layers.Conv2D(5, 3)(x)),
    "PReLU": random(layers.PReLU()),
    "PReLU, a slope for a channel": random(layers.PReLU(shared_axes=[1, 2])),
    "Rescaling": lambda x: layers.ReLU()(layers.Rescaling(0.3, [-0.4, 0, 0.5])(x)),
    "Normalization": lambda x: layers.Normalization(mean=[1.0, 0, -2], variance=[1, 2, 4.0])(x),
    "normalised vector": lambda x: random(layers.BatchNormalization())(vector(x)),
    "normalised words": lambda x: random(layers.BatchNormalization())(words(x)),
    "normalised dense": lambda x: random(layers.BatchNormalization())(
        layers.Dense(4, activation="relu")(vector(x))
    ),
    "SeparableConv2D": lambda x: layers.SeparableConv2D(
        5, 3, 2, depth_multiplier=2, padding="same", activation="relu"
    )(x),
    "SeparableConv2D, normalised": lambda x: random(layers.BatchNormalization())(
        layers.SeparableConv2D(5, 3, use_bias=False)(x)
    ),
    "Conv2DTranspose": lambda x: layers.ReLU()(
        random(layers.BatchNormalization())(layers.Conv2DTranspose(5, 3, 2, padding="same")(x))
    ),
    "Conv2DTranspose, padded": lambda x: layers.Conv2DTranspose(
        4, 3, 2, output_padding=1, activation="silu"
    )(x),
    "grouped": lambda x: layers.Conv2D(6, 3, groups=3)(x),
    "GlobalMaxPooling2D": lambda x: gate(layers.GlobalMaxPooling2D()(x)),
    "GlobalMaxPooling2D, kept": lambda x: gate(layers.GlobalMaxPooling2D(keepdims=True)(x)),
    "GlobalAveragePooling2D, kept": lambda x: layers.GlobalAveragePooling2D(keepdims=True)(x),
    "GlobalAveragePooling1D": lambda x: layers.GlobalAveragePooling1D()(words(x)),
    "pooled words": lambda x: gate(layers.AveragePooling1D(2)(layers.MaxPooling1D(2)(words(x)))),
    "padded words": lambda x: gate(
        layers.UpSampling1D(2)(layers.Cropping1D(1)(layers.ZeroPadding1D((0, 2))(words(x))))
    ),
    "moved": lambda x: gate(layers.Permute((2, 1, 3))(layers.CenterCrop(3, 3)(x))),
    "resized": lambda x: gate(layers.Resizing(5, 3)(layers.UpSampling2D()(x))),
    "augmented": lambda x: gate(
        layers.RandomContrast(0.1)(layers.RandomRotation(0.1)(layers.RandomFlip()(x)))
    ),
    "noisy": lambda x: gate(layers.GaussianNoise(0.1)(layers.GaussianDropout(0.1)(x))),
    "Subtract": lambda x: layers.Subtract()([x, gate(x)]),
    "Maximum": lambda x: layers.Minimum()([layers.Maximum()([x, gate(x)]), ops.tanh(x)]),
    "sum of three": lambda x: layers.ReLU()(layers.Add()([x, gate(x), ops.tanh(x)])),
    "product of three": lambda x: layers.Multiply()([x, gate(x), ops.tanh(x)]),
    "concatenated curves": lambda x: layers.Concatenate()([x, gate(x), ops.tanh(x)]),
    "arithmetic": lambda x: (ops.relu6(x + 3.0) * (1 / 6.0) - 0.5) / 2.0,
    "constants": lambda x: 1.0 - x * CONSTANT,
    "operations": lambda x: ops.mean(ops.transpose(x, (0, 2, 1, 3))[:, 1:], axis=(1, 2)),
    "more operations": lambda x: gate(
        ops.squeeze(
            ops.repeat(
                ops.max(ops.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0))), (1, 2), True), 2, axis=3
            ),
            1,
        )
    ),
    "halves": lambda x: ops.maximum(*ops.split(layers.Conv2D(8, 3)(x), 2, axis=-1)),
    "parts": lambda x: parts(ops.split(layers.Conv2D(8, 3)(x), [2, 5], axis=-1)),
    "parts of nearly one size": lambda x: parts(
        ops.array_split(layers.Conv2D(8, 3)(x), 3, axis=-1)
    ),
    "rows": lambda x: ops.minimum(*ops.unstack(layers.Conv2D(8, (5, 1))(x), axis=1)),
    "products of words": lambda x: ops.matmul(words(x), layers.Permute((2, 1))(words(x))),
}


# Where integers are averaged on the grid of what they average, or summed in another order.
TWO_STEPS = ("pooled words", "resized", "Conv2DTranspose")


@pytest.mark.parametrize("name", INTEGERS)
def test_in_integers(name):
    keras.utils.set_random_seed(0)
    image = keras.Input(SHAPE)
    network = keras.Model(image, INTEGERS[name](image))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        aware = quantization_aware(network, IMAGES)
    outputs, kinds = converted(aware)
    assert not [kind for kind, floats in kinds if floats]
    expected = aware(IMAGES, training=False).numpy()
    steps = np.diff(np.unique(expected))
    step = steps[steps > 1e-5 * np.ptp(expected)].min()
    np.testing.assert_allclose(outputs, expected, atol=(1.01 + (name in TWO_STEPS)) * step)
    whole = network(IMAGES, training=False).numpy()
    np.testing.assert_allclose(expected, whole, atol=0.04 * np.ptp(whole))


class Own(layers.Layer):
    """Averages, which the converter takes for an operation of integers."""

    def call(self, x):
        return x - ops.mean(x, axis=-1, keepdims=True)


def between(*body):
    """Between a convolution and another one."""

    def build(x):
        x = layers.Conv2D(6, 1, name="before")(x)
        for layer in body:
            x = layer()(x)
        return layers.Conv2D(4, 1, name="after")(x)

    return build


def beside(joined):
    """An operation of floats and one of integers, joined on one grid, between convolutions."""

    def build(x):
        x = layers.Conv2D(6, 1, name="before")(x)
        return layers.Conv2D(4, 1, name="after")(joined([layers.ELU(name="elu")(x), x]))

    return build


def attended(x):
    x = layers.Reshape((24, 6))(layers.Conv2D(6, 1)(x))
    return layers.Dense(4)(layers.MultiHeadAttention(2, 3, name="attention")(x, x))


# What is built, and the names of what the warning says.
FLOATS = {
    "LayerNormalization": (between(lambda: layers.LayerNormalization(name="norm")), ["norm"]),
    "GroupNormalization": (between(lambda: layers.GroupNormalization(3, name="norm")), ["norm"]),
    "UnitNormalization": (between(lambda: layers.UnitNormalization(name="norm")), ["norm"]),
    "elu": (between(lambda: layers.ELU(name="elu")), ["elu"]),
    "fused mish": (between(lambda: layers.Conv2D(5, 1, activation="mish", name="c")), ["c_mish"]),
    "one's own": (between(lambda: Own(name="own")), ["own"]),
    "normalised rows": (between(lambda: layers.BatchNormalization(1, name="rows")), ["rows"]),
    "fused softplus": (
        between(lambda: layers.Dense(5, activation="softplus", name="d")),
        ["d_softplus"],
    ),
    "softmax of rows": (between(lambda: layers.Softmax(axis=1, name="softmax")), ["softmax"]),
    "attention": (attended, ["attention"]),
    "concatenated with integers": (beside(layers.Concatenate()), ["elu"]),
    "maximum with integers": (beside(layers.Maximum()), ["elu"]),
    "minimum with integers": (beside(lambda x: ops.minimum(*x)), ["elu"]),
    "at the beginning": (lambda x: layers.Conv2D(4, 1)(Own(name="own")(x)), ["own"]),
    "at the end": (lambda x: Own(name="own")(layers.Conv2D(4, 1)(x)), ["own"]),
    "several": (
        between(
            lambda: layers.ELU(name="elu"),
            lambda: layers.Reshape((3, 8, 6), name="reshape"),
            lambda: layers.LayerNormalization(name="norm"),
        ),
        ["elu", "norm"],
    ),
}


OF_INTEGERS = {"CONCATENATION", "CONV_2D", "MAXIMUM", "MINIMUM", "RESHAPE", "TRANSPOSE"}


@pytest.mark.parametrize("name", FLOATS)
def test_in_floats(name):
    build, stay = FLOATS[name]
    keras.utils.set_random_seed(0)
    image = keras.Input(SHAPE)
    network = keras.Model(image, build(image))
    with pytest.warns(UserWarning, match="stay in float: ") as found:
        aware = quantization_aware(network, IMAGES)
    (message,) = [str(warning.message) for warning in found if warning.category is UserWarning]
    assert re.findall("'(.*?)'", message.partition("stay in float: ")[2]) == stay
    outputs, kinds = converted(aware)
    assert {kind for kind, floats in kinds if not floats} <= OF_INTEGERS
    assert [kind for kind, floats in kinds if floats]
    assert ("CONV_2D", True) not in kinds
    expected = aware(IMAGES, training=False).numpy()
    np.testing.assert_allclose(outputs, expected, atol=0.01 * np.ptp(expected))
    # As in a network of fine grids: what is inside is not rounded, and has the same weights.
    with pytest.warns(UserWarning):
        fine = quantization_aware(network, IMAGES, bits=16)(IMAGES, training=False).numpy()
    np.testing.assert_allclose(fine, network(IMAGES, training=False), atol=2e-3 * np.ptp(fine))


def test_ranges_lie_at_the_borders_of_an_island():
    keras.utils.set_random_seed(0)
    image = keras.Input(SHAPE, name="image")
    network = keras.Model(image, FLOATS["several"][0](image))
    with pytest.warns(UserWarning):
        aware = quantization_aware(network, IMAGES)
    names = [layer.name for layer in aware.layers]
    order = ["image", "image_range", "before", "before_dequantized", "elu", "reshape"]
    assert names == [*order, "norm", "norm_range", "after"]


def test_saved_and_loaded(tmp_path):
    """Layers of every class, and an island of mixed precision, which is made one of float32."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        image = keras.Input(SHAPE)
        x = layers.Rescaling(0.5, -1)(image)
        x = layers.Conv2DTranspose(4, 3, activation="hard_sigmoid")(x)
        x = layers.LayerNormalization(name="norm")(layers.Dense(4, activation="silu")(x))
        network = keras.Model(image, layers.DepthwiseConv2D(3)(x))
    finally:
        keras.config.set_dtype_policy("float32")
    with pytest.warns(UserWarning):
        aware = quantization_aware(network, IMAGES)
    assert {layer.compute_dtype for layer in aware.layers} == {"float32"}
    aware.save(tmp_path / "aware.keras")
    loaded = load_network(tmp_path / "aware.keras")
    for before, after in zip(aware.layers, loaded.layers, strict=True):
        assert after.get_config() == before.get_config()
    np.testing.assert_array_equal(loaded(IMAGES), aware(IMAGES))


def test_weights_of_scalings_are_not_trained():
    image = keras.Input(SHAPE)
    x = layers.Normalization(mean=[1.0, 0, -2], variance=[1, 4, 16.0], name="norm")(
        layers.Rescaling(0.5, -1, name="half")(image)
    )
    aware = quantization_aware(keras.Model(image, x), IMAGES)
    assert not aware.trainable_variables
    half, norm = aware.get_layer("half"), aware.get_layer("norm")
    np.testing.assert_array_equal(half.kernel, np.full((1, 1, 3), 0.5))
    np.testing.assert_array_equal(half.bias, [-1, -1, -1])
    np.testing.assert_allclose(norm.kernel, [[[1, 0.5, 0.25]]])
    np.testing.assert_allclose(norm.bias, [-1, 0, 0.5])


def test_decisions_of_a_network_with_silu():
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32").reshape(-1, 8, 8, 1)
    keras.utils.set_random_seed(0)
    image = x = keras.Input((8, 8, 1))
    for width in (8, 16):
        x = layers.Conv2D(width, 3, 2, padding="same", use_bias=False)(x)
        x = layers.Activation("silu")(layers.BatchNormalization(momentum=0.9)(x))
    network = keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))
    aware = None
    for rate, epochs in ((0.01, 4), (0.001, 1)):
        trained = network if aware is None else aware
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        trained.compile(keras.optimizers.Adam(rate), loss)
        trained.fit(images[:1200], labels[:1200], batch_size=32, epochs=epochs, verbose=0)
        aware = aware or quantization_aware(network, images[:200])
    outputs, kinds = converted(aware, images[1200:])
    assert not [kind for kind, floats in kinds if floats]
    expected = aware(images[1200:], training=False).numpy()
    assert np.mean(outputs.argmax(-1) == expected.argmax(-1)) >= 0.995
    assert np.mean(outputs.argmax(-1) == labels[1200:]) > 0.8
