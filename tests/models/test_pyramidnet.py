"""PyramidNet against its definition in NumPy."""

import numpy as np
import pytest

from kdtoolkit import models
from kdtoolkit.models.pyramidnet import pyramidnet
from tests.models.reference import Reference, halves, images


@pytest.mark.parametrize("padding", ["same", "torch"])
def test_forward_in_numpy(padding):
    network = models.build("pyramidnet-20-10", (8, 8, 3), 5, padding=padding)
    reference, x = Reference(network, padding), images(8, 8, 3)
    expected = reference.bn(reference.conv(x, "stem_conv"), "stem")
    # 16 + 10/6, 16 + 20/6, ... to the nearest.
    for index, width in enumerate((18, 19, 21, 23, 24, 26)):
        stage, block = index // 2 + 1, index % 2 + 1
        prefix = f"stage{stage}_block{block}"
        stride = 2 if stage > 1 and block == 1 else 1
        y = reference.conv(reference.bn(expected, f"{prefix}_bn1"), f"{prefix}_conv1")
        assert y.shape[-1] == width
        y = reference.conv(reference.bn_relu(y, f"{prefix}_2_bn"), f"{prefix}_conv2", stride)
        y = reference.conv(reference.bn_relu(y, f"{prefix}_3_bn"), f"{prefix}_conv3")
        y = reference.bn(y, f"{prefix}_bn4")
        assert y.shape[-1] == 4 * width
        if stride == 2:
            expected = halves(expected).mean(3)
        y[..., : expected.shape[-1]] += expected
        expected = y
    reference.check(reference.logits(reference.bn_relu(expected, "last_bn")), x)


def test_sizes_that_do_not_divide():
    network = models.build("pyramidnet-11-12", (9, 11, 1), 3)
    shapes = [network.get_layer(f"stage{k}").output.shape[1:3] for k in (1, 2, 3)]
    assert shapes == [(9, 11), (5, 6), (3, 3)]
    assert np.isfinite(network.predict(images(9, 11, 1), verbose=0)).all()


def test_depth():
    with pytest.raises(ValueError, match=r"`depth` must be 9n \+ 2, n >= 1. Received: depth=2"):
        pyramidnet((8, 8, 3), 5, "pyramidnet", depth=2, alpha=12)
