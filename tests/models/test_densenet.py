"""DenseNet-BC against its definition in NumPy."""

import numpy as np
import pytest

from kdtoolkit import models
from tests.models.reference import Reference, halves, images


def test_forward_in_numpy():
    network = models.build("densenet-bc-16-3", (8, 8, 3), 5)
    reference, x = Reference(network), images(8, 8, 3)
    expected = reference.conv(x, "stem")
    for stage in (1, 2, 3):
        if stage > 1:
            expected = reference.bn_relu(expected, f"stage{stage}_transition_bn")
            expected = reference.conv(expected, f"stage{stage}_transition_conv")
            expected = halves(expected).mean(3)
        for block in (1, 2):
            prefix = f"stage{stage}_block{block}"
            y = reference.bn_relu(expected, f"{prefix}_1_bn")
            y = reference.conv(y, f"{prefix}_conv1")
            y = reference.bn_relu(y, f"{prefix}_2_bn")
            y = reference.conv(y, f"{prefix}_conv2")
            expected = np.concatenate([expected, y], axis=-1)
    reference.check(reference.logits(reference.bn_relu(expected, "last_bn")), x)


def test_channels():
    """6 of the stem, 3 of each bottleneck, half of all (6, then 6) between stages."""
    network = models.build("densenet-bc-16-3", (8, 8, 3), 5)
    names = ("stem", "stage1_block1", "stage1", "stage2", "stage3_block1", "stage3")
    shapes = [network.get_layer(name).output.shape[1:] for name in names]
    assert [shape[-1] for shape in shapes] == [6, 9, 12, 12, 9, 12]
    assert [shape[0] for shape in shapes] == [8, 8, 8, 4, 2, 2]
    assert network.get_layer("stage2_block1_conv1").filters == 12


def test_depth():
    from kdtoolkit.models.densenet import densenet

    with pytest.raises(ValueError, match=r"`depth` must be 6n \+ 4, n >= 1. Received: depth=4"):
        densenet((8, 8, 3), 5, "densenet", depth=4, growth=3)
