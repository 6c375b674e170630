"""VGG against its definition in NumPy."""

import keras
import pytest

from kdtoolkit import models
from tests.models.reference import Reference, halves, images, relu


def forward(reference, x, convolutions, pooled):
    for stage, count in enumerate(convolutions):
        name = f"stage{stage}" if stage else "stem"
        if stage in pooled:
            x = halves(x).max(3)
        for block in range(1, count + 1):
            x = reference.conv(x, f"{name}_block{block}_conv")
            x = reference.bn_relu(x, f"{name}_block{block}_bn")
    return x


@pytest.mark.parametrize(
    "name, size, convolutions, pooled",
    [
        ("vgg8", 16, (1, 1, 1, 1, 1), (1, 2, 3)),
        ("vgg13", 16, (2, 2, 2, 2, 2), (1, 2, 3)),
        ("vgg13", 64, (2, 2, 2, 2, 2), (1, 2, 3, 4)),
        ("vgg19", 16, (2, 2, 4, 4, 4), (1, 2, 3, 4)),
    ],
)
def test_forward_in_numpy(name, size, convolutions, pooled):
    network = models.build(name, (size, size, 3), 5, width=2)
    reference, x = Reference(network), images(size, size, 3)
    expected = forward(reference, x, convolutions, pooled)
    assert expected.shape[1] == size >> len(pooled)
    reference.check(reference.logits(expected), x)


def test_hidden_layers():
    network = models.build("vgg8", (16, 16, 3), 5, width=2, hidden=7)
    reference, x = Reference(network), images(16, 16, 3)
    features = forward(reference, x, (1, 1, 1, 1, 1), (1, 2, 3)).mean((1, 2))
    hidden = relu(reference.dense(relu(reference.dense(features, "hidden1")), "hidden2"))
    reference.check(reference.dense(hidden, "logits"), x)


def test_widths():
    with keras.StatelessScope():
        network = models.build("vgg13", (32, 32, 3), 10)
    names = ("stem", "stage1", "stage2_block1", "stage3", "stage4")
    widths = [network.get_layer(name).output.shape[-1] for name in names]
    assert widths == [64, 128, 256, 512, 512]


def test_wrong_hidden():
    with pytest.raises(
        ValueError, match=r"`hidden` must be an integer of at least 0. Received: hidden=-1"
    ):
        models.build("vgg8", (16, 16, 3), 5, hidden=-1)
