"""Every network that the registry lists: size, exits, gradients, saving, LiteRT."""

import functools
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from kdtoolkit import models
from kdtoolkit.data import Preprocessing
from kdtoolkit.export import check, to_litert

# Trainable parameters for 100 classes and images of 32x32x3.
PARAMETERS = {
    "resnet8": 83_892,
    "resnet14": 181_108,
    "resnet20": 278_324,
    "resnet32": 472_756,
    "resnet44": 667_188,
    "resnet56": 861_620,
    "resnet74": 1_153_268,
    "resnet92": 1_444_916,
    "resnet110": 1_736_564,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
    "resnet18": 11_220_132,
    "resnet18-w16": 713_076,
    "resnet34": 21_328_292,
    "resnet50": 23_705_252,
    "resnet101": 42_697_380,
    "resnet152": 58_341_028,
    # A 7x7 stem in place of a 3x3 one: 40 * 3 * 64 more.
    "imagenet-resnet18": 11_227_812,
    "imagenet-resnet34": 21_335_972,
    "imagenet-resnet50": 23_712_932,
    "imagenet-resnet101": 42_705_060,
    "imagenet-resnet152": 58_348_708,
    "densenet-bc-100-12": 800_032,
    "densenet-bc-190-40": 25_821_620,
    "wrn-16-2": 703_284,
    "wrn-40-1": 569_780,
    "wrn-40-2": 2_255_156,
    "wrn-20-8": 17_204_276,
    "wrn-44-8": 41_991_220,
    "wrn-28-10": 36_536_884,
    "wrn-28-12": 52_587_060,
    "resnext29-8x64d": 34_518_948,
    "pyramidnet-101-240": 13_688_174,
    "vgg8": 3_965_028,
    "vgg13": 9_462_180,
    "vgg19": 20_086_692,
    "shufflenetv1": 949_258,
    "shufflenetv2": 1_355_528,
    "mobilenetv2-0.5": 812_836,
}
VARIANTS = [
    ("resnet20", {"shortcut": "identity"}, 275_572),
    ("wrn-20-8", {"blocks": 2}, 11_007_540),
    ("wrn-44-8", {"blocks": 6}, 35_794_484),
    ("vgg19", {"hidden": 4096}, 39_327_652),
    ("resnet18", {"stem": "imagenet"}, 11_227_812),
]

# One small network of each builder, and where its exits are.
SMALL = {
    "resnet14": ({}, ["stage1", "stage2", "stage3_block1"]),
    "resnet8x4": ({}, ["stage1", "stage2"]),
    "resnet18-w4": ({"stem": "imagenet"}, ["stage1", "stage2", "stage3"]),
    "resnet50-w2": ({"padding": "torch"}, ["stage1", "stage2", "stage3"]),
    "densenet-bc-22-4": ({}, ["stage1", "stage2", "stage3_block1"]),
    "wrn-16-1": ({}, ["stage1", "stage2", "stage3_block1"]),
    "resnext20-2x4d": ({}, ["stage1", "stage2", "stage3_block1"]),
    "pyramidnet-20-8": ({}, ["stage1", "stage2", "stage3_block1"]),
    "vgg8": ({"width": 4, "hidden": 8}, ["stage1", "stage2", "stage3"]),
    "vgg19": ({"width": 4}, ["stage1", "stage2", "stage3"]),
    "shufflenetv1-w36": ({}, ["stage1", "stage2", "stage3_block2"]),
    "shufflenetv2-w8": ({"padding": "torch"}, ["stage1", "stage2", "stage3_block2"]),
    "mobilenetv2-0.2": ({}, ["stage1", "stage2", "stage3"]),
    "keras:MobileNetV2": ({}, ["block_2_add", "block_5_add", "block_12_add"]),
}
SHAPE = (32, 32, 3)
ALL = os.environ.get("KDTOOLKIT_TEST") == "all"
# A second or so each to build, of blocks that others have too: with KDTOOLKIT_TEST=all.
DEEPEST = (
    *("resnet101", "resnet152", "imagenet-resnet101", "imagenet-resnet152"),
    *("densenet-bc-190-40", "wrn-28-12", "wrn-44-8"),
)
COUNTED = [*((name, {}, size) for name, size in PARAMETERS.items()), *VARIANTS]
# They have no layer, and their files no operation, that the others lack: with KDTOOLKIT_TEST=all.
LIKE_OTHERS = (
    *("resnet14", "resnet8x4", "resnet50-w2", "wrn-16-1", "vgg8", "mobilenetv2-0.2"),
    "shufflenetv1-w36",  # groups as of ResNeXt, a shuffle as of ShuffleNetV2
)
TRIED = [name for name in SMALL if ALL or name not in LIKE_OTHERS]


def parameters(network):
    return sum(int(np.prod(variable.shape)) for variable in network.trainable_variables)


@functools.cache
def small(name):
    keras.utils.set_random_seed(0)
    return models.build(name, SHAPE, 5, dropout=0.5, **SMALL[name][0])


def test_every_network_is_counted():
    assert list(PARAMETERS) == models.names()


@pytest.mark.parametrize(
    "name, options, expected", [case for case in COUNTED if ALL or case[0] not in DEEPEST]
)
def test_parameters(name, options, expected):
    with keras.StatelessScope():  # no values for variables that are only counted
        network = models.build(name, SHAPE, 100, **options)
    assert network.name == name
    assert network.input_shape == (None, *SHAPE) and network.output_shape == (None, 100)
    assert parameters(network) == expected


def test_parameters_for_imagenet():
    with keras.StatelessScope():
        network = models.build("resnet18", (224, 224, 3), 1000, stem="imagenet")
    assert parameters(network) == 11_689_512
    # Published for images of 224x224: 1.814 billion multiply-accumulates.
    assert models.macs(network) == pytest.approx(1.814e9, rel=5e-4)


@pytest.mark.parametrize("name", SMALL)
def test_default_exits(name):
    network, at = small(name), SMALL[name][1]
    expected = models.add_exits(network, at=at, mid=8)
    if name.startswith("keras:"):
        with pytest.raises(
            ValueError, match="`at` must be given: 'keras-MobileNetV2' has no layers"
        ):
            models.add_exits(network)
    else:
        found = models.add_exits(network, mid=8)
        assert models.exit_names(found) == models.exit_names(expected)
        for exit in models.exit_names(found):
            assert models.macs(models.cut(found, exit)) == models.macs(models.cut(expected, exit))
    assert len(models.stages(expected)) == len(at) + 1


@pytest.mark.parametrize("name", TRIED)
def test_every_variable_learns(name):
    network = small(name)
    x = tf.constant(np.random.default_rng(0).normal(size=(4, *SHAPE)), tf.float32)
    variables = [variable.value for variable in network.trainable_variables]
    for training in (False, True):
        with tf.GradientTape() as tape:
            logits = network(x, training=training)
            loss = tf.reduce_sum(tf.nn.log_softmax(logits)[:, 0])
        assert logits.shape == (4, 5)
        gradients = tape.gradient(loss, variables)
        for variable, gradient in zip(network.trainable_variables, gradients, strict=True):
            assert np.isfinite(gradient).all(), variable.path
            # In training a normalisation takes away again what some biases before it add.
            assert training or np.any(gradient), variable.path


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The small networks' files, and what plain Keras, without this package, makes of them."""
    directory = tmp_path_factory.mktemp("networks")
    images = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype(np.float32)
    np.save(directory / "images.npy", images)
    logits = {}
    for name in TRIED:
        network = small(name)
        network.save(directory / f"{network.name}.keras")
        logits[name] = np.array(network(images, training=False))
    code = """
import pathlib, sys
import keras
import numpy as np

directory = pathlib.Path(sys.argv[1])
images = np.load(directory / "images.npy")
for path in directory.glob("*.keras"):
    logits = keras.models.load_model(path)(images, training=False)
    np.save(path.with_suffix(".npy"), logits)
assert not any(name.startswith("kdtoolkit") for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code, str(directory)], check=True)
    return directory, logits


@pytest.mark.parametrize("name", TRIED)
def test_plain_keras_loads_it(name, saved):
    directory, logits = saved
    assert np.ptp(logits[name]) > 0
    loaded = np.load(directory / f"{name.replace(':', '-')}.npy")
    np.testing.assert_allclose(loaded, logits[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", TRIED)
def test_litert(name, tmp_path):
    network = small(name)
    preprocessing = Preprocessing(SHAPE, (0.5,) * 3, (0.25,) * 3)
    exported = to_litert(network, tmp_path / "network.tflite", preprocessing)
    images = np.random.default_rng(0).integers(0, 256, (3, *SHAPE)).astype(np.uint8)
    assert check(exported, network, preprocessing, images).max_difference < 1e-4


@pytest.mark.parametrize("name", TRIED)
def test_dropout(name):
    """Half of the features are left out in training, the others are twice as large."""
    network = small(name)
    outputs = [network.get_layer("dropout").input, network.get_layer("dropout").output]
    probe = keras.Model(network.input, outputs)
    x = np.random.default_rng(0).normal(size=(8, *SHAPE)).astype(np.float32)
    features, kept = map(np.array, probe(x, training=True))
    np.testing.assert_allclose(kept[kept != 0], 2 * features[kept != 0], rtol=1e-5)
    assert np.mean(kept[features != 0] != 0) == pytest.approx(0.5, abs=0.2)
    features, kept = probe(x, training=False)
    np.testing.assert_array_equal(kept, features)


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_wrong_dropout(dropout):
    with pytest.raises(
        ValueError, match=rf"`dropout` must be in \[0, 1\). Received: dropout={dropout}"
    ):
        models.build("resnet8", SHAPE, 5, dropout=dropout)
