"""Wide ResNets against their definition in NumPy, and what their names say."""

import keras
import pytest

from kdtoolkit import models
from kdtoolkit.models.wide_resnet import wide_resnet
from tests.models.reference import Reference, images


@pytest.mark.parametrize("padding", ["same", "torch"])
def test_forward_in_numpy(padding):
    network = models.build("wrn-16-2", (8, 8, 3), 5, padding=padding)
    reference, x = Reference(network, padding), images(8, 8, 3)
    expected = reference.conv(x, "stem")
    for stage in (1, 2, 3):
        for block in (1, 2):
            prefix = f"stage{stage}_block{block}"
            stride = 2 if stage > 1 and block == 1 else 1
            y = reference.bn_relu(expected, f"{prefix}_1_bn")
            if block == 1:  # of what is normalised already
                expected = reference.conv(y, f"{prefix}_shortcut_conv", stride)
            y = reference.conv(y, f"{prefix}_conv1", stride)
            y = reference.bn_relu(y, f"{prefix}_2_bn")
            expected = expected + reference.conv(y, f"{prefix}_conv2")
    reference.check(reference.logits(reference.bn_relu(expected, "last_bn")), x)


@pytest.mark.parametrize(
    "name, options, blocks",
    [
        ("wrn-10-1", {}, 1),
        ("wrn-16-1", {}, 2),
        ("wrn-40-1", {}, 6),
        ("wrn-20-1", {}, 3),
        ("wrn-44-1", {}, 7),
        ("wrn-20-1", {"blocks": 2}, 2),
        ("wrn-44-1", {"blocks": 6}, 6),
    ],
)
def test_blocks(name, options, blocks):
    with keras.StatelessScope():
        network = models.build(name, (8, 8, 1), 2, **options)
    convs = [layer for layer in network.layers if layer.name.endswith(("_conv1", "_conv2"))]
    assert len(convs) == 6 * blocks
    # A factor of one needs no shortcut convolution in the first stage.
    assert not [layer for layer in network.layers if layer.name == "stage1_block1_shortcut_conv"]


def test_wrong_options():
    with pytest.raises(
        ValueError, match=r"`blocks` must be a positive integer. Received: blocks=0"
    ):
        models.build("wrn-10-1", (8, 8, 1), 2, blocks=0)
    with pytest.raises(ValueError, match=r"`depth` must be 6n \+ 4 or 6n \+ 2, n >= 1"):
        wide_resnet((8, 8, 1), 2, "wrn", depth=4, width=1)
