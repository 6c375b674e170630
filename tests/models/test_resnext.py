"""ResNeXt against its definition in NumPy."""

import numpy as np
import pytest

from kdtoolkit import models
from kdtoolkit.models.resnext import resnext
from tests.models.reference import Reference, images, relu


@pytest.mark.parametrize("groups, padding", [(1, "same"), (2, "same"), (3, "torch")])
def test_forward_in_numpy(groups, padding):
    network = models.build(f"resnext11-{groups}x2d", (8, 8, 3), 5, padding=padding)
    reference, x = Reference(network, padding), images(8, 8, 3)
    expected = reference.bn_relu(reference.conv(x, "stem_conv"), "stem_bn")
    for stage in (1, 2, 3):
        prefix = f"stage{stage}_block1"
        stride = 1 if stage == 1 else 2
        y = reference.bn_relu(reference.conv(expected, f"{prefix}_conv1"), f"{prefix}_1_bn")
        assert y.shape[-1] == groups * 2**stage
        y = np.concatenate(
            [
                reference.conv(part, f"{prefix}_conv2_group{group}", stride)
                for group, part in enumerate(np.split(y, groups, axis=-1), start=1)
            ],
            axis=-1,
        )
        y = reference.conv(reference.bn_relu(y, f"{prefix}_2_bn"), f"{prefix}_conv3")
        y = reference.bn(y, f"{prefix}_bn3")
        shortcut = reference.conv(expected, f"{prefix}_shortcut_conv", stride)
        expected = relu(y + reference.bn(shortcut, f"{prefix}_shortcut_bn"))
        assert expected.shape[-1] == 128 * 2**stage
    reference.check(reference.logits(expected), x)


def test_initial_weights_are_those_of_a_group():
    """Normal of variance 2 / (9 * width): a group's outputs see, and are seen by, its own alone."""
    network = models.build("resnext11-2x16d", (8, 8, 3), 5)
    kernel = np.ravel(network.get_layer("stage3_block1_conv2_group2").kernel)
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.02)


def test_depth():
    with pytest.raises(ValueError, match=r"`depth` must be 9n \+ 2, n >= 1. Received: depth=12"):
        resnext((8, 8, 3), 5, "resnext", depth=12, cardinality=2, width=4)
