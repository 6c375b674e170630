"""What the check of an export measures, and that it fails on wrong exports."""

import dataclasses

import keras
import numpy as np
import pytest

from kdtoolkit import export
from kdtoolkit.data import Preprocessing
from kdtoolkit.export import parity as parity_module
from tests.export.test_export import (
    IMAGES,
    PREPROCESSING,
    normalised,
    resnet8,
    run_litert,
    softmax,
)

WRITERS = [export.to_saved_model, export.to_litert]


@pytest.mark.parametrize("write", WRITERS)
def test_right_export(tmp_path, write):
    network = resnet8()
    exported = write(network, tmp_path / "exported", PREPROCESSING)
    predicted = network.predict(normalised(IMAGES).astype("float32"), verbose=0).argmax(-1)
    labels = predicted.copy()
    labels[:2] = (labels[:2] + 1) % 5  # 4 of 6 are right
    parity = export.check(exported, network, PREPROCESSING, IMAGES, labels)
    assert parity.max_difference < 1e-5
    assert parity.test_accuracy == pytest.approx(4 / 6)
    assert 0 < parity.milliseconds_per_image < 1e3
    column = export.check(exported, network, PREPROCESSING, IMAGES, labels[:, None])
    assert column.test_accuracy == parity.test_accuracy
    with pytest.raises(ValueError, match=r"`labels` must be 6 integers from 0 to 4.*int64 \(1,\)"):
        export.check(exported, network, PREPROCESSING, IMAGES, labels[:1])
    assert export.check(exported, network, PREPROCESSING, IMAGES).test_accuracy is None


@pytest.mark.parametrize("write", WRITERS)
def test_wrong_exports(tmp_path, write):
    network = resnet8()
    exported = write(network, tmp_path / "exported", PREPROCESSING)
    with pytest.raises(export.ParityError, match="differs from network 'resnet8' by"):
        export.check(exported, resnet8(1), PREPROCESSING, IMAGES)
    other = Preprocessing((8, 10, 3), PREPROCESSING.mean[::-1], PREPROCESSING.std)
    with pytest.raises(export.ParityError):
        export.check(exported, network, other, IMAGES)
    network.get_layer("logits").bias.assign(np.full(5, np.nan))
    broken = write(network, tmp_path / "broken", PREPROCESSING)
    with pytest.raises(export.ParityError, match="by nan"):
        export.check(broken, resnet8(), PREPROCESSING, IMAGES)


def test_largest_difference_is_over_all_images_and_classes(tmp_path):
    network, other = resnet8(), resnet8()
    other.get_layer("logits").bias.assign_add([0.5, 0, 0, 0, -0.1])
    exported = export.to_litert(other, tmp_path / "other.tflite", PREPROCESSING)
    inputs = normalised(IMAGES).astype("float32")
    expected = [softmax(n.predict(inputs, verbose=0)) for n in (network, other)]
    parity = export.measure(exported, network, PREPROCESSING, IMAGES)
    differences = np.abs(expected[0] - expected[1]).max(-1)
    assert parity.max_difference == pytest.approx(differences.max(), abs=1e-5)
    assert parity.mean_difference == pytest.approx(differences.mean(), abs=1e-5)
    alike = expected[0].argmax(-1) == expected[1].argmax(-1)
    assert parity.agreement == pytest.approx(alike.mean())
    assert parity.failure.startswith("differs from network 'resnet8' by ")


@pytest.mark.parametrize("quantization", ["dynamic_range", "int8", "uint8"])
def test_tolerances_of_eight_bits(quantization):
    """One image that is decided otherwise fails, and so does a little of all of them."""
    tolerance = parity_module.TOLERANCES[quantization]
    many = np.full(1000, 0.01)

    def excess(differences):
        return tolerance.excess(differences, np.zeros(len(differences)))

    assert excess(many) is None
    assert excess(np.append(many, 0.3)) is None
    one = excess(np.append(many, 0.71))
    assert one == "by 0.71 in a probability; the tolerance is 0.5"
    assert excess(many + 0.1) == "by 0.11 in the mean over images; the tolerance is 0.05"
    assert excess(np.append(many, np.nan)).startswith("by nan")


def test_sure_networks_may_move_further_in_eight_bits():
    """Logits of 20, each off by 2: the difference of two goes from -2 to 2."""
    tolerance = parity_module.TOLERANCES["int8"]
    moved = 1 / (1 + np.exp(-2)) - 1 / (1 + np.exp(2)) - 1e-6
    several = np.append(np.full(99, 0.01), 0)
    logits = np.append(np.full(99, 3.0), 20.0)
    for found, failure in (
        (moved, None),
        (0.77, "by 0.77 in a probability; the tolerance is 0.762"),
    ):
        several[-1] = found
        assert tolerance.excess(several, logits) == failure
    assert tolerance.excess(several, logits[::-1]).endswith("the tolerance is 0.5")


def test_tolerance_of_float32_grows_with_the_logits():
    """A logit of 2^12 is a multiple of 2^-11: eight steps are 2^-8, and a quarter is 2^-10."""
    tolerance = parity_module.TOLERANCES["float32"]
    differences = np.array([9e-5, 0.9 * 2**-10])
    assert tolerance.excess(differences, np.array([1, 2**12])) is None
    assert tolerance.excess(differences, np.array([2**12, 1])).startswith("by 0.000879 in a prob")
    assert tolerance.excess(np.array([0.5]), np.array([1e38])).endswith("the tolerance is 0.0101")
    assert tolerance.excess(np.array([0.0]), np.array([np.nan])).startswith("by 0 in a prob")


def test_tolerance_depends_on_the_quantization(tmp_path):
    network = resnet8()
    exported = export.to_litert(network, tmp_path / "x.tflite", PREPROCESSING, "dynamic_range")
    assert export.check(exported, network, PREPROCESSING, IMAGES).max_difference > 1e-4
    exact = dataclasses.replace(exported, quantization="float32")
    with pytest.raises(export.ParityError, match=r"tolerance is 0\.0001"):
        export.check(exact, network, PREPROCESSING, IMAGES)


def test_large_logits(tmp_path):
    """Two logits near 40,000, which float32 knows to 0.004, and equal: rounding alone decides."""
    network, images = resnet8(), IMAGES[:1]
    head = network.get_layer("logits")
    inputs = normalised(images).astype("float32")
    features = keras.Model(network.input, head.input).predict(inputs, verbose=0)[0]
    kernel = np.zeros(head.kernel.shape)
    kernel[:, 0] = 1000 * np.abs(head.kernel[:, 0])
    kernel[:, 1] = np.roll(kernel[:, 0], 7)
    logits = features.astype("float64") @ kernel
    head.kernel.assign(kernel)
    head.bias.assign([0, logits[0] - logits[1], 0, 0, 0])
    exported = export.to_litert(network, tmp_path / "x.tflite", PREPROCESSING)
    assert logits[0] > 10_000
    export.check(exported, network, PREPROCESSING, images)
    head.bias.assign_add([0, 0.5, 0, 0, 0])
    with pytest.raises(export.ParityError):
        export.check(exported, network, PREPROCESSING, images)


@pytest.mark.parametrize("quantization", ["int8", "uint8"])
def test_integers(tmp_path, quantization):
    """Probabilities are compared as such, not as the integers that stand for them."""
    network = resnet8()
    exported = export.to_litert(
        network, tmp_path / "x.tflite", PREPROCESSING, quantization, calibration=IMAGES
    )
    expected = softmax(network.predict(normalised(IMAGES).astype("float32"), verbose=0))
    parity = export.check(exported, network, PREPROCESSING, IMAGES, expected.argmax(-1))
    outputs = run_litert(exported.path, IMAGES)
    probabilities = outputs / 256 if quantization == "uint8" else outputs
    largest = np.abs(probabilities - expected).max()
    assert parity.max_difference == pytest.approx(largest, abs=1e-5)
    assert parity.test_accuracy == 1
    with pytest.raises(export.ParityError, match=r"tolerance is 0\.5"):
        export.check(exported, resnet8(1), PREPROCESSING, IMAGES)


@pytest.mark.parametrize("images", [IMAGES.astype("float32"), IMAGES[0], IMAGES[:0]])
def test_wrong_images(tmp_path, images):
    network = keras.Sequential(
        [keras.Input((8, 10, 3)), keras.layers.Flatten(), keras.layers.Dense(5)]
    )
    exported = export.to_litert(network, tmp_path / "x.tflite", PREPROCESSING)
    with pytest.raises(ValueError, match="`images` must be uint8 images"):
        export.check(exported, network, PREPROCESSING, images)
