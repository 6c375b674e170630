"""Networks of keras.applications: pixel values, weights, head."""

import keras
import numpy as np
import pytest

from kdtoolkit import models
from kdtoolkit.data.preprocessing import Preprocessing
from tests.models.reference import images

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def backbone(network):
    """From the images to what is pooled."""
    return keras.Model(network.input, network.get_layer("features").input)


def test_head_and_name():
    network = models.build("keras:mobilenetv2", (32, 32, 1), 7)
    assert network.name == "keras-mobilenetv2"
    assert network.get_layer("features").output.shape == (None, 1280)
    # 2,223,872 of the published network without its top, 32 kernels of 3x3 for two channels less.
    trainable = sum(int(np.prod(v.shape)) for v in network.trainable_variables)
    assert trainable == 2_223_872 - 2 * 9 * 32 + 1281 * 7


@pytest.mark.parametrize("application", ["EfficientNetB0", "EfficientNetV2B0", "MobileNetV3Small"])
def test_normalised_images_are_not_scaled_again(application):
    """What has a scaling of its own must not divide what is normalised already by 255."""
    network = models.build(f"keras:{application}", (32, 32, 3), 5)
    first = next(layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D))
    x = images(32, 32, 3)
    seen = np.array(keras.Model(network.input, first.input)(x, training=False))
    if seen.shape[1] > 32:  # zeros around the images
        seen = seen[:, :32, :32] if (seen[:, 0] != 0).any() else seen[:, -33:-1, -33:-1]
    np.testing.assert_allclose(seen, x, rtol=1e-5)


# Three ways to prepare pixels: -1 to 1, blue first and centred, none.
@pytest.mark.parametrize(
    "application, prepare",
    [
        ("MobileNetV2", lambda pixels: pixels / 127.5 - 1),
        ("VGG16", lambda pixels: pixels[..., ::-1] - [103.939, 116.779, 123.68]),
        ("MobileNetV3Small", lambda pixels: pixels),
    ],
)
def test_weights_of_a_file(application, prepare, tmp_path):
    build = getattr(keras.applications, application)
    original = build(weights=None, include_top=False, input_shape=(32, 32, 3))
    original.save_weights(tmp_path / "application.weights.h5")
    network = models.build(
        f"keras:{application}", (32, 32, 3), 5, weights=str(tmp_path / "application.weights.h5")
    )
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3))
    expected = np.array(original(prepare(pixels.astype(np.float64)), training=False))
    normalised = ((pixels / 255 - MEAN) / STD).astype(np.float32)
    found = backbone(network)(normalised, training=False)
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_pixels_are_those_before_the_data_sets_own_normalisation(tmp_path):
    original = keras.applications.MobileNet(
        weights=None, include_top=False, input_shape=(32, 32, 3), alpha=1.0
    )
    original.save_weights(tmp_path / "application.weights.h5")
    own = Preprocessing((32, 32, 3), (0.1, 0.2, 0.9), (0.3, 0.05, 0.2))
    network = models.build(
        "keras:MobileNet",
        (32, 32, 3),
        5,
        weights=tmp_path / "application.weights.h5",
        preprocessing=own,
    )
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    expected = np.array(original(pixels / 127.5 - 1, training=False))
    found = backbone(network)(own(pixels), training=False)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_file_of_efficientnet_is_divided_as_keras_divides_what_it_downloads(tmp_path, monkeypatch):
    """Only for `weights="imagenet"` has Keras a layer that divides by the deviation again."""
    path = tmp_path / "imagenet.h5"
    original = keras.applications.EfficientNetB0(
        weights=None, include_top=False, input_shape=(32, 32, 3)
    )
    norm = next(x for x in original.layers if isinstance(x, keras.layers.Normalization))
    norm.adapt_mean.assign(MEAN)
    norm.adapt_variance.assign(STD**2)
    original.save(path)
    module = "keras.src.applications.efficientnet.file_utils.get_file"
    monkeypatch.setattr(module, lambda *args, **kwargs: str(path))
    networks = [
        models.build("keras:EfficientNetB0", (32, 32, 3), 5, weights=weights)
        for weights in ("imagenet", path)
    ]
    x = images(32, 32, 3)
    expected, found = (np.array(backbone(each)(x, training=False)) for each in networks)
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    # One that never saw ImageNet has no such layer.
    norm.adapt_mean.assign(np.zeros(3))
    original.save(path)
    own = models.build("keras:EfficientNetB0", (32, 32, 3), 5, weights=path)
    layer = next(x for x in own.layers if isinstance(x, keras.layers.Normalization))
    np.testing.assert_array_equal(layer.adapt_variance, (STD**2).astype(np.float32))


def test_download_that_fails_is_an_error_of_the_argument(monkeypatch):
    def fail(*args, **kwargs):
        raise Exception("URL fetch failure on https://x/y.h5: None -- [Errno -2]\nName unknown")

    monkeypatch.setattr("keras.src.applications.mobilenet_v2.file_utils.get_file", fail)
    with pytest.raises(ValueError, match=r"downloaded. Received: imagenet: URL .* Name unknown$"):
        models.build("keras:MobileNetV2", (32, 32, 3), 5, weights="imagenet")


def test_wrong_weights():
    with pytest.raises(ValueError, match=r"imagenet, or a file of weights, .* weights='none'"):
        models.build("keras:MobileNetV2", (32, 32, 3), 5, weights="none")
    with pytest.raises(
        ValueError, match=r"`weights` must be None for images .* Received: weights="
    ):
        models.build("keras:MobileNetV2", (32, 32, 1), 5, weights="imagenet")


def test_statistics_follow_training_as_those_of_all_networks_do():
    """Keras' own MobileNetV2 takes a thousand batches to forget one."""
    momenta = [
        {layer.momentum for layer in models.build(name, (32, 32, 3), 2).layers if is_norm(layer)}
        for name in ("keras:MobileNetV2", "mobilenetv2-0.1")
    ]
    assert momenta[0] == momenta[1] == {0.9}


def is_norm(layer):
    return isinstance(layer, keras.layers.BatchNormalization)
