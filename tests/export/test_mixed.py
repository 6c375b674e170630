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
    spoilt = [layer.mean_difference for layer in found.operations]
    assert spoilt == sorted(spoilt, reverse=True)
    written = types(path)
    for layer in found.operations:
        if layer.operator == "SOFTMAX":  # the file's result: of floats, from integers
            continue
        assert written[layer.name] is (np.float32 if layer.floating else np.int8)


def test_what_an_operation_spoils_is_that_of_a_file_that_rounds_it_alone(spread, truth, tmp_path):
    """The depthwise layer, rounded in NumPy: a scale a channel for weights, one for all results."""
    found = to_mixed(spread, tmp_path / "x.tflite", None, IMAGES[:50], IMAGES, truth, 0.9)
    (ours,) = [each for each in found.operations if each.operator == "DEPTHWISE_CONV_2D"]

    images = IMAGES[:50].astype("float32")
    layer = spread.get_layer("spread")
    before = keras.Model(spread.input, layer.input)
    after = keras.Model(layer.output, spread.output)

    def on_grid(values, steps):
        return np.round(values / steps) * steps

    given = before.predict(images, verbose=0)
    kernel, bias = layer.get_weights()
    windows = np.lib.stride_tricks.sliding_window_view(
        on_grid(given, given.max() / 255), (3, 3), (1, 2)
    )
    rounded = on_grid(kernel[..., 0], np.abs(kernel).max((0, 1)).T / 127)
    result = np.maximum(np.einsum("nhwcij,ijc->nhwc", windows, rounded) + bias, 0)
    result = on_grid(result, result.max() / 255)

    def probabilities(logits):
        return keras.ops.convert_to_numpy(keras.ops.softmax(logits))

    alone = probabilities(after.predict(result, verbose=0))
    whole = probabilities(spread.predict(images, verbose=0))
    expected = np.mean(np.max(np.abs(alone - whole), axis=-1))
    assert ours.mean_difference == pytest.approx(expected, rel=0.05)
    for other in found.operations:
        if other != ours:
            assert other.mean_difference != pytest.approx(expected, rel=0.05)


def test_nothing_stays_in_float_where_int8_is_good_enough(spread, truth, tmp_path):
    """The file is the int8 file then: the same decisions of every image."""
    found = to_mixed(spread, tmp_path / "mixed.tflite", None, IMAGES[:50], IMAGES, truth, 0.9)
    assert found.floats == ()
    whole = to_litert(spread, tmp_path / "int8.tflite", None, "int8", IMAGES[:50])
    expected = parity.probabilities(whole.path, "litert", IMAGES)
    np.testing.assert_array_equal(
        parity.probabilities(found.exported.path, "litert", IMAGES), expected
    )
    assert found.accuracy == found.int8_accuracy == np.mean(expected.argmax(-1) == truth)


def residual():
    x = image = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, activation="relu", padding="same")(x)
    y = keras.layers.Conv2D(4, 3, padding="same")(x)
    x = keras.layers.ReLU()(keras.layers.Add()([x, y]))
    return keras.Model(image, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x)))


def in_parts():
    """Whose one operation of two results TensorFlow rounds, whatever it is told."""
    x = image = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, activation="relu")(x)
    left, right = keras.ops.split(x, 2, axis=-1)
    x = keras.layers.Concatenate()([right, 100 * left])
    return keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(x)))


@pytest.mark.parametrize("build", [residual, in_parts])
def test_nothing_is_rounded_where_nothing_else_is_good_enough(build, tmp_path):
    """One image of 200 is more than may be lost: the file is that in float32."""
    keras.utils.set_random_seed(0)
    network = build()
    truth = network.predict(IMAGES.astype("float32"), verbose=0).argmax(-1)
    found = to_mixed(network, tmp_path / "mixed.tflite", None, IMAGES[:50], IMAGES, truth, 0.0)
    whole = to_litert(network, tmp_path / "whole.tflite")
    same = found.floats == found.operations
    assert same or found.accuracy == 1
    if same:
        expected = parity.probabilities(whole.path, "litert", IMAGES)
        ours = parity.probabilities(found.exported.path, "litert", IMAGES)
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
        kinds = {np.dtype(kind) for kind in types(found.exported.path).values()}
        assert np.dtype("int8") not in kinds


def test_as_many_images_may_be_lost_as_are_said(tmp_path):
    """One of 100 at 0.01, which in binary is a little less than the difference of 0.13 and 0.12."""
    network = residual()
    images = IMAGES[:100]
    truth = network.predict(images.astype("float32"), verbose=0).argmax(-1)
    integers = to_litert(network, tmp_path / "int8.tflite", None, "int8", images[:50])
    decided = parity.decisions(integers.path, "litert", images)
    # Right on 13 images in floats, one of which int8 decides otherwise, and on 12 in integers.
    lost = np.flatnonzero(decided != truth)[:1]
    kept = np.flatnonzero(decided == truth)[: 13 - len(lost)]
    classes = (truth + 1) % 10
    classes = np.where(classes == decided, (truth + 2) % 10, classes)
    for place in (*lost, *kept):
        classes[place] = truth[place]
    found = to_mixed(network, tmp_path / "m.tflite", None, images[:50], images, classes, 0.01)
    assert found.float32_accuracy == 0.13 and found.int8_accuracy == (13 - len(lost)) / 100
    assert found.floats == ()


@pytest.mark.parametrize(
    ("needed", "expected"),
    [("", ""), ("a", "a"), ("bd", "bd"), ("e", "e"), ("abcde", "abcde"), ("x", "abcde")],
)
def test_of_those_that_are_needed_none_is_left_out_and_no_other_stays(needed, expected):
    floats = mixed._floats(tuple("abcde"), lambda names: set(needed) <= set(names))
    assert "".join(floats) == expected


def test_errors_name_the_argument(spread, truth, tmp_path):
    path = tmp_path / "mixed.tflite"
    with pytest.raises(ValueError, match=r"`truth` must be 200 integers from 0 to 9.*\(199,\)"):
        to_mixed(spread, path, None, IMAGES[:5], IMAGES, truth[1:])
    with pytest.raises(ValueError, match=r"`truth` must be .*from 100 to 10\d"):
        to_mixed(spread, path, None, IMAGES[:5], IMAGES, truth + 100)
    with pytest.raises(ValueError, match=r"`images` must be uint8 images.*none"):
        to_mixed(spread, path, None, IMAGES[:5])
    with pytest.raises(ValueError, match=r"`max_accuracy_drop` must be .*-0\.1"):
        to_mixed(spread, path, None, IMAGES[:5], IMAGES, truth, -0.1)
    rounded = quantization_aware(spread, IMAGES[:5].astype("float32"))
    with pytest.raises(ValueError, match="`network` must be not quantisation-aware"):
        to_mixed(rounded, path, None, IMAGES[:5], IMAGES, truth)
    x = keras.layers.LSTM(4)(keras.layers.Reshape((8, 8))(image := keras.Input((8, 8, 1))))
    recurrent = keras.Model(image, keras.layers.Dense(10)(x))
    with pytest.raises(ValueError, match=r"`network` must be without a loop"):
        to_mixed(recurrent, path, None, IMAGES[:5], IMAGES, truth)
    assert not path.exists()
