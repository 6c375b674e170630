"""CIFAR ResNets: what shortcuts and pooling compute."""

import keras
import numpy as np
import pytest

from kdtoolkit import models


def parameters(network):
    return sum(int(np.prod(variable.shape)) for variable in network.trainable_variables)


def test_smallest_depths():
    # Six 3x3 convolutions of a further block a stage, with their two batch normalisations.
    block = sum(2 * (9 * width * width + 2 * width) for width in (16, 32, 64))
    sizes = [parameters(models.build(f"resnet{d}", (32, 32, 3), 100)) for d in (8, 14, 20)]
    assert np.diff(sizes).tolist() == [block, block]


@pytest.mark.parametrize("downsample", ["stride", "pool"])
@pytest.mark.parametrize("shortcut", ["conv", "identity"])
def test_stages_and_layers(downsample, shortcut):
    network = models.build("resnet14", (9, 8, 1), 10, downsample=downsample, shortcut=shortcut)
    assert network.name == "resnet14"
    assert network.output_shape == (None, 10)
    shapes = [network.get_layer(f"stage{k}").output.shape for k in (1, 2, 3)]
    assert shapes == [(None, 9, 8, 16), (None, 5, 4, 32), (None, 3, 2, 64)]
    assert network.get_layer("stage2_block1").output.shape == (None, 5, 4, 32)
    assert network.get_layer("features").output.shape == (None, 64)
    convs = [x for x in network.layers if isinstance(x, keras.layers.Conv2D)]
    assert len([c for c in convs if c.kernel_size == (3, 3)]) == 13  # and the dense layer: 14
    assert len([c for c in convs if c.kernel_size == (1, 1)]) == (2 if shortcut == "conv" else 0)
    assert not any(c.use_bias for c in convs)
    norms = [x for x in network.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert len(norms) == len(convs)
    assert {(n.momentum, n.epsilon) for n in norms} == {(0.9, 1e-5)}


def test_initial_weights_are_he_normal_of_the_fan_out():
    keras.utils.set_random_seed(0)
    kernel = models.build("resnet8", (8, 8, 1), 10).get_layer("stage3_block1_conv2").kernel
    values = np.ravel(kernel)
    assert np.std(values) == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.02)
    # A truncated normal ends at two standard deviations of its parent; a normal of 36,864 values
    # does not.
    assert np.max(np.abs(values)) > 3.5 * np.std(values)


@pytest.mark.parametrize("downsample", ["stride", "pool"])
def test_parameter_free_shortcut(downsample):
    """With residual branches of zero a stage is its shortcut: subsampled or pooled, then padded."""
    network = models.build("resnet8", (8, 8, 1), 10, shortcut="identity", downsample=downsample)
    network.get_layer("stage2_block1_bn2").gamma.assign(np.zeros(32))
    probe = keras.Model(network.input, [network.get_layer(f"stage{k}").output for k in (1, 2)])
    before, after = probe.predict(np.random.default_rng(0).normal(size=(2, 8, 8, 1)), verbose=0)
    if downsample == "stride":
        small = before[:, ::2, ::2]
    else:
        small = before.reshape(2, 4, 2, 4, 2, 16).mean((2, 4))
    expected = np.zeros((2, 4, 4, 32))
    expected[..., 8:24] = small
    np.testing.assert_allclose(after, expected, atol=1e-6)


def test_head_stays_in_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = models.build("resnet8", (8, 8, 1), 10)
    finally:
        keras.config.set_dtype_policy("float32")
    assert network.get_layer("stage3").compute_dtype == "bfloat16"
    assert network.output.dtype == "float32"


@pytest.mark.parametrize("shortcut", ["conv", "identity"])
def test_saved_and_loaded(tmp_path, shortcut):
    network = models.build("resnet8", (8, 8, 3), 10, shortcut=shortcut)
    network.save(tmp_path / "network.keras")
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3))
    loaded = keras.models.load_model(tmp_path / "network.keras")
    np.testing.assert_array_equal(
        loaded.predict(images, verbose=0), network.predict(images, verbose=0)
    )


@pytest.mark.parametrize("option", ["shortcut", "downsample"])
def test_wrong_options(option):
    with pytest.raises(ValueError, match=rf"`{option}` must be .* Received: {option}='none'"):
        models.build("resnet8", (8, 8, 1), 10, **{option: "none"})
