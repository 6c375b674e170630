"""What each part of a network costs alone, worked out by hand and in NumPy."""

import json
from xml.etree import ElementTree

import keras
import numpy as np
import pytest
from keras import layers

from kdtoolkit import models, report
from kdtoolkit.compression import (
    channel_groups,
    prune_channels,
    select_channels,
    sensitivity,
    sensitivity_files,
    shrink,
)
from kdtoolkit.compression.sensitivity_analysis import Sensitivity, SensitivityRow
from tests.compression.test_channels import randomised

# Grey levels by class, and how many images of each; whoever does not look says class 0.
LEVELS, COUNTS = (0.2, 0.8), (12, 20)
CHANCE = 12 / 32


@pytest.fixture(scope="module")
def network():
    """Class 1 where the first channel is above 0.5, which one vital filter of four alone sees.

    It has the smallest weights, and the logits read it by a small weight beside a large one, of a
    filter that is always 0. The logits read nothing of `dead`.
    """
    image = keras.Input((2, 2, 2))
    vital = layers.Conv2D(4, 1, activation="relu", name="vital")(image)
    dead = layers.Conv2D(4, 1, activation="relu", name="dead")(image)
    x = layers.GlobalAveragePooling2D()(layers.Concatenate()([vital, dead]))
    network = keras.Model(image, layers.Dense(2, name="logits")(x), name="net")
    filters = np.array([[0.1, 1, 2, -5], [0, 1, 2, -5]])
    network.get_layer("vital").set_weights([filters[None, None], np.zeros(4)])
    network.get_layer("dead").set_weights([filters[None, None] + 3, np.zeros(4)])
    read = np.zeros((8, 2))
    read[0, 1], read[3, 1] = 0.003, 1
    network.get_layer("logits").set_weights([read, np.array([0.003 * 0.1 * 0.5, 0])])
    return network


@pytest.fixture(scope="module")
def images():
    labels = np.repeat([0, 1], COUNTS)
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (len(labels), 2, 2, 2))
    return np.float32(np.take(LEVELS, labels)[:, None, None, None] + noise), labels


def accuracy(images, labels):
    return lambda network: np.mean(np.argmax(network(images), axis=-1) == labels)


def test_dead_and_vital(network, images):
    before = network.get_weights()
    found = sensitivity(network, channel_groups(network), accuracy(*images), shares=(0.2, 0.5, 0.9))
    assert found.accuracy == 1
    chance, whole = (CHANCE, 1 - CHANCE), (1.0, 0.0)
    assert found.rows == (
        SensitivityRow("pruned", ("vital",), 0.2, 0, *whole),  # less than one of four
        SensitivityRow("pruned", ("vital",), 0.5, 2, *chance),
        SensitivityRow("pruned", ("vital",), 0.9, 3, *chance),
        SensitivityRow("pruned", ("dead",), 0.2, 0, *whole),
        SensitivityRow("pruned", ("dead",), 0.5, 2, *whole),
        SensitivityRow("pruned", ("dead",), 0.9, 3, *whole),
        # 0.003 is less than half a step of 1 / 127; a filter has a grid of its own.
        SensitivityRow("int8", ("vital",), None, 0, *whole),
        SensitivityRow("int8", ("dead",), None, 0, *whole),
        SensitivityRow("int8", ("logits",), None, 0, *chance),
    )
    assert all(np.array_equal(a, b) for a, b in zip(before, network.get_weights(), strict=True))


def test_limits_are_for_pruning(network, images):
    found = sensitivity(network, channel_groups(network), accuracy(*images))
    assert found.limits(0.02) == {"vital": 0.0, "dead": 0.75}
    assert found.limits(1 - CHANCE) == {"vital": 0.75, "dead": 0.75}
    for options in ({"fraction": 0.75}, {"target": "parameters=0.9"}):
        pruned = prune_channels(network, **options, limit=found.limits(0.02))
        assert pruned.get_layer("vital").filters == 4 > pruned.get_layer("dead").filters
        assert accuracy(*images)(pruned) == 1
    with pytest.raises(ValueError, match=r"`target` must be what can be reached.* 1.000 of the"):
        prune_channels(network, target="parameters=0.9", limit={"vital": 0, "dead": 0})
    with pytest.raises(ValueError, match=r"`limit` must name layers .*'daed'. Near matches: dead"):
        prune_channels(network, 0.5, limit={"daed": 0.5})
    with pytest.raises(ValueError, match=r"`limit` must be in \[0, 1\]. Received: limit=2"):
        prune_channels(network, 0.5, limit={"dead": 2})


def test_limits_end_where_more_is_lost():
    """Tied layers lose as much; what costs less again, further on, does not count."""
    drops = {0.25: 0.0, 0.5: 0.3, 0.75: 0.0}
    rows = [SensitivityRow("pruned", ("a", "b"), s, 1, 1 - d, d) for s, d in drops.items()]
    rows.append(SensitivityRow("int8", ("a",), None, 0, 0.0, 1.0))
    assert Sensitivity(1.0, tuple(rows)).limits(0.1) == {"a": 0.25, "b": 0.25}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_limits_of_a_layer_are_those_of_its_most_sensitive_group(order):
    """Whichever of its groups was pruned first."""
    groups = [(("a",), (0.0, 0.0)), (("a", "b"), (0.0, 0.3)), (("c",), (0.05, 0.05))]
    rows = [
        SensitivityRow("pruned", groups[place][0], share, 1, 1 - drop, drop)
        for place in order
        for share, drop in zip((0.25, 0.5), groups[place][1], strict=True)
    ]
    assert Sensitivity(1.0, tuple(rows)).limits(0.1) == {"a": 0.25, "b": 0.25, "c": 0.5}


def test_groups_of_a_residual_network_are_what_pruning_them_gives():
    network = randomised(models.build("resnet8", (8, 8, 3), 5))
    images = np.float32(np.random.default_rng(0).normal(size=(4, 8, 8, 3)))

    def evaluate(net):
        return float(np.abs(net(images)).mean())

    groups = channel_groups(network)
    found = sensitivity(network, groups[:3], evaluate, shares=[0.5], importance="l2")
    for group, row in zip(groups[:3], found.rows, strict=False):
        keep = select_channels(network, 0.5, "l2", layers=group.layers)
        assert row.layers == group.layers
        assert row.accuracy == pytest.approx(evaluate(shrink(network, keep)), rel=1e-4)
        assert row.drop == pytest.approx(evaluate(network) - row.accuracy)


def rounded(kernel, axes):
    """Each grid up to its largest weight, 127 steps either way, in float64."""
    step = np.abs(np.float64(kernel)).max(axis=axes, keepdims=True) / 127
    return np.round(kernel / step) * step


@pytest.mark.parametrize(
    ("name", "axes"),
    [("conv", (0, 1, 2)), ("depthwise", (0, 1)), ("transposed", (0, 1, 3)), ("line", (0, 2))],
)
def test_int8_rounds_the_kernel_by_output_channel(name, axes):
    image = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, name="conv")(image)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    x = layers.Conv2DTranspose(3, 2, name="transposed")(layers.Conv2D(5, 1, name="point")(x))
    x = layers.Conv1DTranspose(4, 2, name="line")(layers.Reshape((9, 3))(x))
    x = layers.GlobalAveragePooling1D()(x)
    network = randomised(keras.Model(image, layers.Dense(3, name="logits")(x)))
    kernel, seen = np.asarray(network.get_layer(name).kernel), []

    def evaluate(net):
        seen.append(np.array(net.get_layer(name).kernel))
        for variable in net.weights:  # whatever it leaves is gone by the next call
            variable.assign(variable + 1)
        return 0.0

    found = sensitivity(network, channel_groups(network)[:1], evaluate, shares=[0.5])
    ways = [(row.kind, row.layers[0]) for row in found.rows]
    names = ["conv", "depthwise", "point", "transposed", "line", "logits"]
    assert ways == [("pruned", "conv"), *(("int8", name) for name in names)]
    for way, values in zip(ways[1:], seen[2:], strict=True):
        expected = rounded(kernel, axes) if way == ("int8", name) else kernel
        np.testing.assert_allclose(values, expected, atol=1e-6)
    assert np.abs(rounded(kernel, axes) - kernel).max() > 1e-3


@pytest.mark.parametrize(
    ("shares", "message"),
    [((), "at least one"), ((0.5, 1.0), r"in \(0, 1\). Received: shares=1.0")],
)
def test_shares_that_are_refused(network, images, shares, message):
    with pytest.raises(ValueError, match=f"`shares` must be {message}"):
        sensitivity(network, channel_groups(network), accuracy(*images), shares=shares)


def test_files(tmp_path):
    """A row for each group and layer; the file is known again as long as it is whole."""
    pruned = [SensitivityRow("pruned", ("a",), s, 1, 1 - s, s) for s in (0.25, 0.5)]
    tied = SensitivityRow("pruned", ("a", "b", "c"), 0.5, 1, 0.75, 0.25)
    found = Sensitivity(1.0, (*pruned, tied, tied, SensitivityRow("int8", ("a",), None, 0, 1.0, 0)))
    assert not sensitivity_files.written(tmp_path)
    sensitivity_files.write(found, tmp_path)
    assert sensitivity_files.written(tmp_path)
    stored = json.loads((tmp_path / "sensitivity.json").read_text())
    assert [row["drop"] for row in stored["rows"]] == [0.25, 0.5, 0.25, 0.25, 0]
    picture = (tmp_path / "sensitivity.svg").read_text()
    texts = [element.text for element in ElementTree.fromstring(picture).iter() if element.text]
    for text in ("a", "a, b and 1 more", "a, b and 1 more (2)", "25% of the channels", "int8"):
        assert text in texts
    (tmp_path / "sensitivity.json").write_text("{}")
    assert not sensitivity_files.written(tmp_path)


def test_drops_are_drawn_where_they_are(tmp_path):
    """Ten points are twice as far from none as five, and parts lie in their order."""
    path = tmp_path / "drops.svg"
    report.plot_drops({"first": {"x": 0.0}, "second": {"x": 0.05}, "third": {"x": 0.1}}, path)
    uses = ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}use")
    marks = [(float(u.get("x")), float(u.get("y"))) for u in uses if "#1f77b4" in u.get("style")]
    (none, five, ten) = marks[:3]
    assert ten[0] - none[0] == pytest.approx(2 * (five[0] - none[0]), abs=0.01)
    assert none[1] < five[1] < ten[1]
