"""ResNets of four stages."""

import keras
import numpy as np
import pytest

from kdtoolkit import models
from tests.models.reference import Reference, images, relu


def parameters(network):
    return sum(int(np.prod(variable.shape)) for variable in network.trainable_variables)


def test_width():
    # Stem, 3x3 convolutions, 1x1 shortcuts, their normalisations, dense layer: at 16 channels.
    stem = 27 * 16 + 2 * 16
    total = stem + 128 * 10 + 10
    before = 16
    for width in (16, 32, 64, 128):
        total += 9 * before * width + 3 * 9 * width * width + 4 * 2 * width
        total += 0 if before == width else before * width + 2 * width
        before = width
    named = models.build("resnet18-w16", (32, 32, 3), 10)
    assert named.name == "resnet18-w16"
    assert parameters(named) == total
    assert parameters(models.build("resnet18", (32, 32, 3), 10, width=16)) == total


def test_stages_and_layers():
    network = models.build("resnet18-w4", (18, 16, 1), 10)
    assert [network.get_layer(f"stage{k}").output.shape[1:] for k in (1, 2, 3, 4)] == [
        (18, 16, 4),
        (9, 8, 8),
        (5, 4, 16),
        (3, 2, 32),
    ]
    assert network.get_layer("stage4_block1").output.shape == (None, 3, 2, 32)
    convs = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
    assert sum(conv.kernel_size == (3, 3) for conv in convs) == 17  # and the dense layer: 18


def test_block_is_a_residual():
    """With a residual branch of zero, a block of one width is ReLU of its input: its input."""
    network = models.build("resnet18-w4", (8, 8, 1), 10)
    network.get_layer("stage2_block2_bn2").gamma.assign(np.zeros(8))
    probe = keras.Model(
        network.input, [network.get_layer(n).output for n in ("stage2_block1", "stage2")]
    )
    before, after = probe.predict(np.random.default_rng(0).normal(size=(2, 8, 8, 1)), verbose=0)
    assert before.max() > 0
    np.testing.assert_allclose(after, before, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet18-w0", "resnet18-w", "resnet18-w016"])
def test_wrong_width(name):
    with pytest.raises(ValueError, match=f"Received: name='{name}'"):
        models.validate(name)


@pytest.mark.parametrize("padding", ["same", "torch"])
def test_bottlenecks_in_numpy(padding):
    network = models.build("resnet50-w2", (8, 8, 3), 5, padding=padding)
    reference, x = Reference(network, padding), images(8, 8, 3)
    expected = reference.bn_relu(reference.conv(x, "stem_conv"), "stem_bn")
    for stage, blocks in ((1, 3), (2, 4), (3, 6), (4, 3)):
        for block in range(1, blocks + 1):
            prefix = f"stage{stage}_block{block}"
            stride = 2 if stage > 1 and block == 1 else 1
            y = reference.bn_relu(reference.conv(expected, f"{prefix}_conv1"), f"{prefix}_bn1")
            y = reference.bn_relu(reference.conv(y, f"{prefix}_conv2", stride), f"{prefix}_bn2")
            y = reference.bn(reference.conv(y, f"{prefix}_conv3"), f"{prefix}_bn3")
            if block == 1:
                expected = reference.conv(expected, f"{prefix}_shortcut_conv", stride)
                expected = reference.bn(expected, f"{prefix}_shortcut_bn")
            expected = relu(y + expected)
    reference.check(reference.logits(expected), x)


@pytest.mark.parametrize("padding", ["same", "torch"])
def test_stem_for_imagenet(padding):
    network = models.build("resnet18-w4", (32, 32, 3), 5, stem="imagenet", padding=padding)
    reference, x = Reference(network, padding), images(32, 32, 3)
    inner = reference.bn_relu(reference.conv(x, "stem_conv", 2), "stem_bn")
    assert inner.shape == (2, 16, 16, 4)
    # 3x3 over 16 pixels: "same" pads after the last one only.
    sides = (0, 1) if padding == "same" else (1, 1)
    inner = np.pad(inner, ((0, 0), sides, sides, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(inner, (3, 3), axis=(1, 2))
    expected = windows[:, ::2, ::2].max((-1, -2))
    stem = keras.Model(network.input, network.get_layer("stem").output)
    np.testing.assert_allclose(stem(x), expected, rtol=1e-4, atol=1e-5)
    sizes = [network.get_layer(f"stage{k}").output.shape[1] for k in (1, 2, 3, 4)]
    assert sizes == [8, 4, 2, 1]


def test_wrong_stem():
    with pytest.raises(ValueError, match=r"one of cifar, imagenet. Received: stem='none'"):
        models.build("resnet18", (32, 32, 3), 10, stem="none")
