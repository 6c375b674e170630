"""Mixed files: what stays in float brings back what int8 loses, and nothing else stays in float."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from kdtoolkit.compression import quantization_aware
from kdtoolkit.export import mixed, parity, to_litert, to_mixed

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (200, 8, 8, 1), np.uint8)


@pytest.fixture(scope="module")
def spread():
    """Channels of one depthwise result are up to 3,000 times as large as others.

    The layer after it divides by as much: in floats nothing has changed. One scale for all channels
    leaves the small ones no step.
    """
    keras.utils.set_random_seed(0)
    x = image = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(8, 3, activation="relu", name="first")(x)
    depthwise = keras.layers.DepthwiseConv2D(3, activation="relu", name="spread")
    after = keras.layers.Conv2D(8, 1, activation="relu", name="gathered")
    x = after(depthwise(x))
    x = keras.layers.Conv2D(8, 3, activation="relu", name="last")(x)
    logits = keras.layers.Dense(10, name="logits")(keras.layers.Flatten()(x))
    network = keras.Model(image, logits)
    factors = np.geomspace(1, 3000, 8)
    kernel, bias = depthwise.get_weights()
    depthwise.set_weights([kernel * factors[:, None], bias * factors])
    kernel, bias = after.get_weights()
    after.set_weights([kernel / factors[:, None], bias])
    return network


@pytest.fixture(scope="module")
def truth(spread):
    return spread.predict(IMAGES.astype("float32"), verbose=0).argmax(-1)


def types(path):
    """Name of a tensor -> its type, of an int8 file's results."""
    interpreter = Interpreter(str(path))
    return {each["name"]: each["dtype"] for each in interpreter.get_tensor_details()}


def test_fewest_layers_bring_back_what_rounding_loses(spread, truth, tmp_path):
    path = tmp_path / "mixed.tflite"
    found = to_mixed(
        spread, path, None, IMAGES[:50], IMAGES, truth, 0.02, labels=list("abcdefghij")
    )
    assert found.float32_accuracy == 1 and found.images == 200
    assert found.int8_accuracy < 0.8
    decisions = parity.decisions(path, "litert", IMAGES)
    assert found.accuracy == np.mean(decisions == truth) >= 0.98

    # What returns the spread channels, and what reads them.
    assert {layer.short_name.split("/")[-2].rpartition("_")[0] for layer in found.floats} == {
        "spread",
        "gathered",
    }
    assert [layer.operator for layer in sorted(found.floats, key=lambda one: one.operator)] == [
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
    ]
    spoilt = [layer.mean_difference for layer in found.layers]
    assert spoilt == sorted(spoilt, reverse=True)
    written = types(path)
    for layer in found.layers:
        if layer.operator == "SOFTMAX":  # the file's result: of floats, from integers
            continue
        assert written[layer.name] is (np.float32 if layer.floating else np.int8)


def test_what_a_layer_spoils_is_that_of_a_file_that_rounds_it_alone(spread, truth, tmp_path):
    """The first layer's kernel and result, rounded in NumPy: a scale a channel, and one of all."""
    found = to_mixed(spread, tmp_path / "x.tflite", None, IMAGES[:50], IMAGES, truth, 1.0)
    first = next(layer for layer in found.layers if "first" in layer.name)

    images = IMAGES[:50].astype("float32")
    layer = spread.get_layer("first")
    kernel, bias = layer.get_weights()
    steps = np.abs(kernel).max((0, 1, 2)) / 127
    rounded = keras.models.clone_model(spread)
    rounded.set_weights(spread.get_weights())
    rounded.get_layer("first").set_weights([np.round(kernel / steps) * steps, bias])
    head = keras.Model(rounded.input, rounded.get_layer("first").output)
    result = head.predict(images, verbose=0)
    step = result.max() / 255
    tail = keras.Model(rounded.get_layer("first").output, rounded.output)

    def probabilities(logits):
        return keras.ops.convert_to_numpy(keras.ops.softmax(logits))

    alone = probabilities(tail.predict(np.round(result / step) * step, verbose=0))
    whole = probabilities(spread.predict(images, verbose=0))
    expected = np.mean(np.max(np.abs(alone - whole), axis=-1))
    assert first.mean_difference == pytest.approx(expected, rel=0.25)


def test_nothing_stays_in_float_where_int8_is_good_enough(spread, truth, tmp_path):
    """The file is the int8 file then: the same decisions of every image."""
    found = to_mixed(spread, tmp_path / "mixed.tflite", None, IMAGES[:50], IMAGES, truth, 1.0)
    assert found.floats == ()
    whole = to_litert(spread, tmp_path / "int8.tflite", None, "int8", IMAGES[:50])
    expected = parity.probabilities(whole.path, "litert", IMAGES)
    np.testing.assert_array_equal(
        parity.probabilities(found.exported.path, "litert", IMAGES), expected
    )
    assert found.accuracy == found.int8_accuracy == np.mean(expected.argmax(-1) == truth)


def test_the_file_is_that_in_float32_where_nothing_else_is_good_enough(spread, truth, tmp_path):
    found = to_mixed(spread, tmp_path / "mixed.tflite", None, IMAGES[:50], IMAGES, truth, 0.0)
    assert found.floats == found.layers and found.accuracy == 1
    assert {np.dtype(kind) for kind in types(found.exported.path).values()}.isdisjoint(
        {np.dtype("int8")}
    )


@pytest.mark.parametrize(
    ("needed", "expected"),
    [("", ""), ("a", "a"), ("bd", "bd"), ("e", "e"), ("abcde", "abcde")],
)
def test_no_layer_can_be_spared(needed, expected):
    floats = mixed._fewest(list("abcde"), lambda names: set(needed) <= set(names))
    assert "".join(floats) == expected


def test_errors_name_the_argument(spread, truth, tmp_path):
    path = tmp_path / "mixed.tflite"
    with pytest.raises(ValueError, match=r"`truth` must be 200 classes.*\(199,\)"):
        to_mixed(spread, path, None, IMAGES[:5], IMAGES, truth[1:])
    with pytest.raises(ValueError, match=r"`images` must be uint8 images.*none"):
        to_mixed(spread, path, None, IMAGES[:5])
    with pytest.raises(ValueError, match=r"`max_drop` must be .*-0\.1"):
        to_mixed(spread, path, None, IMAGES[:5], IMAGES, truth, -0.1)
    rounded = quantization_aware(spread, IMAGES[:5].astype("float32"))
    with pytest.raises(ValueError, match="`network` must be not quantisation-aware"):
        to_mixed(rounded, path, None, IMAGES[:5], IMAGES, truth)
    assert not path.exists()
