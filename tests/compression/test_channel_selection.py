"""Which channels go: over all groups, within limits, down to a target."""

import math

import keras
import numpy as np
import pytest
from keras import layers

from kdtoolkit import export, models
from kdtoolkit.compression import (
    channel_groups,
    importance,
    mask_channels,
    prune_channels,
    select_channels,
    shrink,
)
from kdtoolkit.compression.channel_graph import analyse
from kdtoolkit.compression.channel_selection import channel_count, selection
from kdtoolkit.compression.channels import remaining, shrunk
from kdtoolkit.compression.options import Options
from kdtoolkit.compression.rounds import Rounds
from kdtoolkit.compression.target import Target
from tests.compression.test_channels import (
    SHAPE,
    classified,
    densenet,
    mobilenet,
    randomised,
    resnext,
    squeeze_and_excitation,
    vgg,
)

# Absolute sums of the filters of two layers. Over their means, 4 and 40: .25 .5 1 2.25 and
# .25 .25 .75 2.75.
SUMS = {"first": [4.0, 1.0, 2.0, 9.0], "second": [110.0, 10.0, 30.0, 10.0]}


@pytest.fixture
def network():
    image = keras.Input(SHAPE)
    x = layers.Conv2D(4, 1, activation="relu", name="first")(image)
    network = classified(image, layers.Conv2D(4, 1, activation="relu", name="second")(x))
    for name, sums in SUMS.items():
        kernel = network.get_layer(name).kernel
        weights = np.zeros(kernel.shape)
        weights[0, 0, 0] = sums
        kernel.assign(weights)
    return network


def trained(network):
    return [np.asarray(variable) for variable in network.trainable_variables]


def removed(keep):
    return {name: list(np.flatnonzero(~kept)) for name, kept in keep.items()}


@pytest.mark.parametrize(
    ("fraction", "options", "expected"),
    [
        (0.375, {}, {"first": [1], "second": [1, 3]}),  # three of eight
        (0.5, {}, {"first": [1, 2], "second": [1, 3]}),
        (0.25, {}, {}),  # three are equal: of them none, or it would be more than two of eight
        (0.625, {}, {"first": [1, 2], "second": [1, 2, 3]}),
        (0.75, {}, {"first": [0, 1, 2], "second": [1, 2, 3]}),
        (0.9, {}, {"first": [0, 1, 2], "second": [1, 2, 3]}),  # one stays
        (0.625, {"limit": 0.5}, {"first": [1, 2], "second": [1, 3]}),
        (0.375, {"multiple": 2}, {"second": [1, 3]}),
        (0.5, {"layers": "second"}, {"second": [1, 3]}),
    ],
)
def test_global(network, fraction, options, expected):
    keep = select_channels(network, fraction, threshold="global", **options)
    assert removed(keep) == expected


def test_comparable_scores_are_compared_as_they_are(network):
    """Squares 1 4 16 81 over what is as large: 1/102, 4/101, 16/97, 1; 100 100 900 12100 / 9."""
    keep = select_channels(network, 0.25, "lamp", threshold="global")
    # 100/13200 and 100/13100 come before 1/102.
    assert removed(keep) == {"second": [1, 3]}


def test_limit_of_each_group(network):
    keep = select_channels(network, 0.9, limit=0.5)
    assert removed(keep) == {"first": [1, 2], "second": [1, 3]}


class Given(importance.Importance):
    name = "given"

    def scores(self, network, groups):
        return [np.arange(group.size) if "first" in group.layers else None for group in groups]


def test_an_importance_of_ones_own(network):
    """A group that it says nothing of stays as it is."""
    assert removed(select_channels(network, 0.5, Given())) == {"first": [0, 1]}


@pytest.mark.parametrize("threshold", ["layer", "global"])
@pytest.mark.parametrize(("cost", "share"), [("macs", 0.5), ("macs", 0.9), ("parameters", 0.33)])
def test_target(cost, share, threshold):
    """It is met, and one channel more, of those that go last, would miss it."""
    network = randomised(models.build("resnet8", SHAPE, 5))

    def measured(net):
        return models.macs(net) if cost == "macs" else sum(w.size for w in trained(net))

    pruned = prune_channels(network, target=f"{cost}={share}", threshold=threshold)
    assert measured(pruned) <= share * measured(network)
    sizes = {layer.name: layer.filters for layer in network.layers if hasattr(layer, "filters")}
    count = sum(sizes.values()) - sum(pruned.get_layer(name).filters for name in sizes)
    # A little less of the same: the largest fraction that removes fewer channels.
    for fraction in np.arange(0.98, 0, -0.01):
        keep = select_channels(network, fraction, threshold=threshold)
        if sum(int((~kept).sum()) for kept in keep.values()) < count:
            break
    more = prune_channels(network, fraction, threshold=threshold)
    assert measured(more) > share * measured(network)


NETWORKS = {
    "residual": lambda: models.build("resnet8", SHAPE, 5),
    "separable": lambda: models.build("mobilenetv2-0.1", (32, 32, 3), 5),
    "concatenated": lambda: models.build("densenet-bc-10-4", (32, 32, 3), 5),
    "in groups": lambda: models.build("resnext11-2x4d", (32, 32, 3), 5),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_left_is_counted_without_being_built(name):
    """As many operations and parameters as of the networks that are."""
    network = NETWORKS[name]()
    analysis = analyse(network)
    for fraction in (0.3, 0.7):
        keep = select_channels(network, fraction)
        built = shrink(network, keep)
        assert remaining(analysis, keep, "macs") == models.macs(built) < models.macs(network)
        assert remaining(analysis, keep, "parameters") == sum(w.size for w in trained(built))


def test_target_that_nothing_reaches(network):
    """One channel in each layer: 64 (3 + 1) + 5 products of 64 (12 + 16) + 20."""
    with pytest.raises(ValueError, match=r"`target` must be what can be reached.*macs=0.1.* 0.144"):
        select_channels(network, target="macs=0.1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "`fraction` must be given, or else `target`"),
        ({"fraction": 0.5, "target": "macs=0.5"}, "`fraction` must be given, or else `target`"),
        ({"target": "macs"}, r"`target` must be a share .* of macs, parameters, .*'macs'"),
        ({"target": "flops=0.5"}, r"`target` must be a share .* of macs, .*flops=0.5"),
        ({"target": "bytes=0"}, r"`target` must be a share in \(0, 1\).*bytes=0"),
        ({"target": "bytes=20kB"}, r"`target` must be .* such as .*bytes=200k.*20kB"),
        ({"target": "ms=3.5"}, r"`target` must be .*ms=3.5ms. Received: target='ms=3.5'"),
        ({"target": "ms=nan"}, "`target` must be a share.*ms=nan"),
        ({"target": "ms=infms"}, "`target` must be a share.*ms=infms"),
        ({"fraction": 0.5, "measure": len}, "`measure` must be left out where there is no target"),
        ({"fraction": 0.5, "limit": 0}, r"`limit` must be in \(0, 1\]. Received: .*0"),
        ({"fraction": 0.5, "threshold": "group"}, "`threshold` must be one of layer, global"),
    ],
)
def test_one_line_errors(network, options, message):
    with pytest.raises(ValueError, match=message) as error:
        select_channels(network, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("parameters=0.25", Target("parameters", 0.25)),
        ("macs=30M", Target("macs", amount=30e6)),
        ("macs=1.5G", Target("macs", amount=1.5e9)),
        ("bytes=200k", Target("bytes", amount=200_000)),
        ("bytes=12345", Target("bytes", amount=12_345)),
        ("ms=0.5", Target("ms", 0.5)),
        ("ms=0.5ms", Target("ms", amount=0.5)),
        ("ms=12ms", Target("ms", amount=12)),
    ],
)
def test_targets(text, target):
    assert Target.parse(text) == Target.parse(str(target)) == target


@pytest.mark.parametrize("values", [(None, None), (0.5, 3)])
def test_a_target_is_a_share_or_an_amount(values):
    with pytest.raises(ValueError, match="`target` must be a share or an amount"):
        Target("bytes", *values)


# What goes with each larger bound of the scores over their means: .25, .5, .75 and 1.
PREFIXES = [
    {},
    {"first": [1], "second": [1, 3]},
    {"first": [1, 2], "second": [1, 3]},
    {"first": [1, 2], "second": [1, 2, 3]},
    {"first": [0, 1, 2], "second": [1, 2, 3]},
]


@pytest.mark.parametrize("amount", [99, 36, 30, 24, 22, 18, 15, 11.5])
def test_amount_of_a_given_cost(network, amount):
    """The first of all that can go in this order whose cost, 5 a + b + 4, is no more."""
    measured = []

    def milliseconds(net):
        measured.append(net)
        return 5 * net.get_layer("first").filters + net.get_layer("second").filters + 4

    costs = [5 * (4 - len(p.get("first", []))) + 4 - len(p.get("second", [])) + 4 for p in PREFIXES]
    assert costs == [28, 21, 16, 15, 10]
    expected = next(i for i, cost in enumerate(costs) if cost <= amount)
    found = selection(
        analyse(network), target=f"ms={amount}ms", measure=milliseconds, threshold="global"
    )
    assert removed(found.keep) == PREFIXES[expected]
    assert (found.whole, found.most, found.found) == (28, amount, costs[expected])
    assert found.measured == len(measured) <= (4 if expected else 1)
    if expected:
        share = select_channels(
            network, target=f"ms={amount / 28}", measure=milliseconds, threshold="global"
        )
        assert removed(share) == PREFIXES[expected]


def test_bytes_are_those_of_the_file(tmp_path):
    """Every network that there can be, exported: the largest whose file is small enough."""
    image = keras.Input(SHAPE)
    x = layers.Conv2D(24, 3, activation="relu", name="first")(image)
    network = randomised(classified(image, layers.Conv2D(24, 3, name="second")(x)))
    sizes = {}
    for width in (24, 16, 8):
        fewer = prune_channels(network, 1 - width / 24)
        exported = export.to_litert(fewer, tmp_path / "file.tflite")
        sizes[width] = exported.path.stat().st_size
    assert sizes[24] > sizes[16] > sizes[8]
    for most, expected in ((sizes[24], 24), (sizes[24] - 1, 16), (sizes[16], 16), (sizes[8], 8)):
        found = prune_channels(network, multiple=8, target=f"bytes={most}")
        assert [found.get_layer(name).filters for name in ("first", "second")] == [expected] * 2
    least = f"be what can be reached.*bytes={sizes[8] - 1}, and .* give is {sizes[8]:,d} bytes, 0."
    with pytest.raises(ValueError, match=f"`target` must {least}") as error:
        prune_channels(network, multiple=8, target=f"bytes={sizes[8] - 1}")
    assert "\n" not in str(error.value)


def test_milliseconds_are_measured(network):
    """However long: a file is written, and run."""
    found = selection(analyse(network), target="ms=1000000ms")
    assert (found.keep, found.measured) == ({}, 1)
    assert 0 < found.found < 1e6


@pytest.mark.parametrize("importance", ["l1", "group_norm"])
def test_channels_are_ranked_anew(importance):
    """Twice, of what the first time left: a quarter of 100 MACs is a half of a half."""
    network = randomised(models.build("resnet8", SHAPE, 5))
    options = {"importance": importance, "threshold": "global"}
    half = prune_channels(network, target="macs=0.5", **options)
    most = models.macs(network) // 4
    expected = prune_channels(
        half, target=Target("macs", amount=models.macs(network) / 4), **options
    )
    found = prune_channels(network, target="macs=0.25", rankings=2, **options)
    assert models.macs(found) == models.macs(expected) <= most
    for ours, theirs in zip(found.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    once = prune_channels(network, target="macs=0.25", **options)
    assert [w.shape for w in once.weights] != [w.shape for w in found.weights]


def half_normalised():
    """Of two layers of ten channels one alone has a scale."""
    image = keras.Input(SHAPE)
    x = layers.BatchNormalization()(layers.Conv2D(10, 1, name="first")(image))
    return randomised(classified(image, layers.Conv2D(10, 1, name="second")(x)))


@pytest.mark.parametrize("rankings", [1, 2, 5])
@pytest.mark.parametrize(
    "options",
    [
        {"importance": "bn_scale"},
        {"importance": "bn_scale", "threshold": "global"},
        {"limit": {"second": 0.0}},
    ],
)
def test_no_group_pays_for_one_that_stays(options, rankings):
    keep = select_channels(half_normalised(), 0.5, rankings=rankings, **options)
    assert {name: kept.sum() for name, kept in keep.items()} == {"first": 5}


def widths_after_rounds(network, options, tmp_path):
    rounds = Rounds(options, None, None, None, tmp_path / "channels.json", {})
    graph, widths = analyse(network), []
    rounds.select(graph, 0)
    for number in range(1, options.rounds + 1):
        graph = shrunk(graph, rounds.select(graph, number).keep)
        widths.append(filters(graph.network))
    return widths


def filters(network):
    return tuple(layer.filters for layer in network.layers if hasattr(layer, "filters"))


@pytest.mark.parametrize("rounds", [1, 3])
def test_no_group_pays_for_one_that_stays_in_rounds(rounds, tmp_path):
    original = half_normalised()
    options = Options(
        *("channels", 0.5), importance="bn_scale", rounds=rounds, rankings=2, quantize=()
    )
    widths = widths_after_rounds(original, options, tmp_path)
    # 10 * 0.5^(1/3) = 7.9 and 10 * 0.5^(2/3) = 6.3 channels are to stay at least.
    assert widths == ([(5, 10)] if rounds == 1 else [(8, 10), (7, 10), (5, 10)])


def in_groups():
    """Two channels in each of four groups; with one they would be those of a depthwise one."""
    image = keras.Input(SHAPE)
    x = layers.Conv2D(8, 1)(image)
    x = layers.ReLU()(layers.Conv2D(8, 1, groups=4)(x))
    return randomised(classified(image, layers.Conv2D(16, 1)(x)))


def one_gate():
    """For two channels; beside a single one it would be tied to it."""
    image = keras.Input(SHAPE)
    x = layers.Conv2D(2, 1)(image)
    x = layers.Multiply()([x, layers.Conv2D(1, 1, activation="sigmoid")(x)])
    return randomised(classified(image, layers.Conv2D(16, 1)(x)))


# 0.25^(1/3) = 0.63 and 0.25^(2/3) = 0.397 of the channels stay at least.
@pytest.mark.parametrize(
    ("build", "widths"),
    [
        (in_groups, [(8, 8, 11), (4, 4, 7), (4, 4, 4)]),
        (one_gate, [(2, 1, 11), (1, 1, 7), (1, 1, 4)]),
    ],
)
def test_channels_depend_on_each_other_as_they_did_at_first(build, widths, tmp_path):
    network = build()
    options = Options("channels", 0.75, rounds=3, quantize=())
    assert widths_after_rounds(network, options, tmp_path) == widths
    keep = select_channels(network, 0.75, rankings=3)
    smaller = shrink(network, keep)
    assert filters(smaller) == widths[-1]
    images = np.random.default_rng(0).normal(size=(2, *SHAPE))
    np.testing.assert_allclose(smaller(images), mask_channels(network, keep)(images), rtol=1e-5)


def test_a_target_of_parameters_of_a_frozen_network(network):
    expected = removed(select_channels(network, target="parameters=0.5"))
    network.trainable = False
    assert removed(select_channels(network, target="parameters=0.5")) == expected != {}


@pytest.mark.parametrize("rankings", [1, 4])
def test_a_limit_is_of_what_a_group_was(rankings):
    """A quarter of each of both, which is less than what was asked for."""
    image = keras.Input(SHAPE)
    x = layers.Conv2D(16, 1)(layers.Conv2D(12, 1)(image))
    network = randomised(classified(image, x))
    options = {"threshold": "global", "limit": 0.25, "rankings": rankings}
    assert filters(prune_channels(network, 0.7, **options)) == (9, 12)


@pytest.mark.parametrize("build", [vgg, densenet, mobilenet, squeeze_and_excitation, resnext])
def test_each_group_loses_the_fraction_of_what_it_was(build):
    """However often channels are ranked; several groups may be of the same layers."""
    network = randomised(build())
    once, thrice = (prune_channels(network, 0.6, rankings=rankings) for rankings in (1, 3))
    assert [w.shape for w in once.weights] == [w.shape for w in thrice.weights]
    sizes = {group.key: group.size for group in channel_groups(network)}
    left = {group.key: group.size for group in channel_groups(thrice)}
    assert left == {key: size - math.floor(round(0.6 * size, 9)) for key, size in sizes.items()}


def test_a_target_is_refused_as_it_was_asked_for(network):
    """Also where a limit stops the first of three rankings, at three channels of four in both
    layers: 64 (3 * 3 + 3 * 3) + 3 * 5 of 64 (12 + 16) + 20 products."""
    with pytest.raises(ValueError, match=r"macs=0.1, and .* 1,167 MACs, 0.644 of the whole"):
        select_channels(network, target="macs=0.1", rankings=3, limit=0.25)


def test_a_fraction_of_channels_that_are_ranked_anew():
    network = randomised(models.build("resnet8", SHAPE, 5))
    counts = []
    for rankings in (1, 3):
        keep = select_channels(network, 0.5, threshold="global", rankings=rankings)
        pruned = shrink(network, keep)
        counts.append(channel_count(pruned))
    whole = channel_count(network)
    assert whole / 2 <= counts[0] <= counts[1] <= whole / 2 + 3  # a round removes whole channels


def test_each_network_is_measured_once():
    """What one ranking has left is what the next begins with."""
    network = randomised(models.build("resnet8", SHAPE, 5))
    seen = []

    def measure(model):
        seen.append(tuple(layer.filters for layer in model.layers if hasattr(layer, "filters")))
        return models.macs(model)

    found = selection(
        analyse(network), target="macs=0.25", threshold="global", measure=measure, rankings=2
    )
    assert found.measured == len(seen)
    assert seen[0] not in seen[1:]
