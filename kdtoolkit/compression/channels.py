"""Channel pruning: networks that are smaller and faster because whole filters are gone."""

import collections
import fnmatch
import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import keras
import numpy as np

from kdtoolkit import _keras
from kdtoolkit._checks import BELOW_1, ArgumentError, Integers, OneOf, Words, check, near
from kdtoolkit._types import Network
from kdtoolkit.compression.channel_graph import analyse, filters

SCORES = ("l1", "bn_scale")


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of layers that are tied to each other.

    Attributes:
        channels: name of a layer -> int array `(size, n)`, the numbers of its output channels (n is
            1, or the groups of a grouped convolution). Row i of a layer can only be removed
            together with row i of the others.
        scales: the same for the batch normalisations with a scale that these channels pass.
    """

    channels: Mapping[str, np.ndarray]
    scales: Mapping[str, np.ndarray]

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in the order in which they run."""
        return tuple(self.channels)

    @property
    def size(self) -> int:
        """How many channels each layer has in the group."""
        return len(next(iter(self.channels.values())))


def channel_groups(network: Network) -> tuple[ChannelGroup, ...]:
    """Finds the channels of a network that can be removed, and which of them go together.

    Convolutions (grouped, depthwise and separable too), dense layers, batch normalisation,
    elementwise activations and arithmetic, concatenation, splitting, pooling, padding, upsampling,
    cropping, reshaping of whole pixels and noise are understood, channels last, and so are Keras'
    operations for arithmetic, activations, concatenation, splitting, padding and reshaping. A layer
    may be called several times. The layers of models inside the network count as its own: see
    `kdtoolkit.models.flatten`. Any other operation keeps the channels that it reads and returns. So
    do the inputs and outputs of the network.

    Args:
        network: functional or sequential Keras model.

    Returns:
        A tuple of `ChannelGroup`. Each removable channel is in one of them. Two channels of a layer
        are in the same group if they are tied to channels of the same layers, and the same layers
        read them; each part of a split is another one.

    Raises:
        ValueError: the network is not functional, or there is no such channel.
    """
    return _groups(analyse(network))


def select_channels(
    network: Network,
    fraction: float,
    score: str = "l1",
    multiple: int = 1,
    layers: str | Iterable[str] = "*",
) -> dict[str, np.ndarray]:
    """Chooses, in every group, the channels with the largest scores.

    Args:
        network: functional or sequential Keras model.
        fraction: of each group's channels to remove, in [0, 1); never more than that, and one
            channel always stays.
        score: `"l1"`, the sum of the absolute weights of a filter (Li et al., ICLR 2017), or
            `"bn_scale"`, the absolute scale of the batch normalisation behind it (Liu et al., ICCV
            2017), which leaves groups without any as they are. Summed over what is tied.
        multiple: the number of channels that stay in a group is rounded up to a multiple of this.
        layers: shell pattern, or several, of layer names. A group is pruned if each of its layers
            matches one.

    Returns:
        Name of each layer that loses channels -> bool array `(channels,)`, true for those to keep.

    Raises:
        ValueError: an argument is outside its range, matches nothing (near matches are named), or
            the network has nothing to prune.
    """
    check("fraction", fraction, BELOW_1)
    check("score", score, OneOf(SCORES))
    check("multiple", multiple, Integers(1))
    analysis = analyse(network)
    groups = _matching(_groups(analysis), layers)
    if score == "bn_scale":
        groups = [group for group in groups if group.scales]
        if not groups:
            accepted = "'l1' for channels that pass no batch normalisation with a scale"
            raise ArgumentError("score", accepted, score)
    keep: dict[str, np.ndarray] = {}
    for group in groups:
        best = np.argsort(-_scores(analysis.network, group, score), kind="stable")
        removed = best[_remaining(group.size, fraction, multiple) :]
        for name, channels in group.channels.items():
            width = len(analysis.effects[name].outputs)
            keep.setdefault(name, np.ones(width, bool))[channels[removed]] = False
    return {name: kept for name, kept in keep.items() if not kept.all()}


def mask_channels(network: Network, keep: Mapping[str, np.ndarray]) -> Network:
    """Returns a copy of a network in which channels are zero, and do not matter where they are not.

    The filters of the removed channels and what follows them channel by channel (biases, scales and
    offsets of batch normalisation) are zero, and so are the weights that read them: after an
    activation that is not zero at zero, a channel is not zero, but nothing depends on it.

    Args:
        network: functional or sequential Keras model.
        keep: name of a layer -> bool array `(channels,)`, as from `select_channels`. Layers that
            are not named keep all.

    Returns:
        A functional `keras.Model` of the network's shapes.

    Raises:
        ValueError: a name or a shape is wrong, or a channel cannot be removed, or not without
            others that are kept.
    """
    analysis = analyse(network)
    alive = _alive(analysis, keep)

    def zeroed(value, axis, channels):
        shape = [1] * value.ndim
        shape[axis] = len(channels)
        return value * alive[channels].reshape(shape).astype(value.dtype)

    return _rebuild(analysis, zeroed)


def shrink(network: Network, keep: Mapping[str, np.ndarray]) -> Network:
    """Returns a copy of a network without the removed channels.

    It returns what the network of `mask_channels` returns, with fewer weights and operations.
    Layers keep their names.

    Args:
        network: functional or sequential Keras model.
        keep: as for `mask_channels`.

    Returns:
        A functional `keras.Model` of the same kinds of layers, with fewer channels. It is not
        compiled.

    Raises:
        ValueError: as for `mask_channels`.
    """
    analysis = analyse(network)
    alive = _alive(analysis, keep)

    def taken(value, axis, channels):
        return value.compress(alive[channels], axis)

    return _rebuild(analysis, taken, lambda channels: int(alive[channels].sum()))


def prune_channels(
    network: Network,
    fraction: float,
    score: str = "l1",
    multiple: int = 1,
    layers: str | Iterable[str] = "*",
) -> Network:
    """Returns a smaller network: `shrink` with the channels that `select_channels` chooses.

    The arguments are those of `select_channels`. The result is trained further, best as the student
    of the network that it was: `training.Student(pruned, network)`.

    Raises:
        ValueError: as for `select_channels`.
    """
    return shrink(network, select_channels(network, fraction, score, multiple, layers))


def _remaining(size, fraction, multiple):
    # Rounded first: 0.29 * 100 is just below 29.
    least = max(1, size - math.floor(round(size * fraction, 6)))
    return min(size, math.ceil(least / multiple) * multiple)


def _scores(network, group, score):
    """Scores of a group's channels: float64 `(size,)`."""
    total = np.zeros(group.size)
    members = group.channels if score == "l1" else group.scales
    for name, channels in members.items():
        layer = network.get_layer(name)
        weights = _array(filters(layer) if score == "l1" else layer.gamma).astype("float64")
        norms = np.abs(weights).sum(axis=tuple(range(weights.ndim - 1)))
        total += norms[channels].sum(axis=1)
    return total


def _array(variable):
    return keras.ops.convert_to_numpy(variable)


def _matching(groups, layers):
    patterns = [layers] if isinstance(layers, str) else list(layers)
    names = list(dict.fromkeys(itertools.chain.from_iterable(group.layers for group in groups)))
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            accepted = "names of layers with channels that can be removed"
            received, hint = Words(f"{pattern!r}, which matches none"), near(pattern, names)
            raise ArgumentError("layers", accepted, received, hint, must="match")
    chosen = {name for pattern in patterns for name in fnmatch.filter(names, pattern)}
    matching = [group for group in groups if chosen.issuperset(group.layers)]
    if not matching:
        tied = next((group.layers for group in groups if chosen & set(group.layers)), names)
        received = Words(f"{layers!r}, which does not match all of {', '.join(tied)}")
        accepted = "all layers whose channels are tied"
        raise ArgumentError("layers", accepted, received, must="match")
    return matching


def _groups(analysis):
    members = collections.defaultdict(lambda: collections.defaultdict(list))
    readers = collections.defaultdict(set)
    for name, effect in analysis.effects.items():
        read = [channels for _, _, channels in effect.slices]
        for place, channels in enumerate((*read, *effect.parts)):
            for root in np.unique(analysis.roots[channels]):
                readers[root].add((name, place))
        if effect.filters is not None or effect.scale is not None:
            for position, root in enumerate(analysis.roots[effect.outputs]):
                members[root][name].append(position)
    groups = collections.defaultdict(list)
    for root, positions in members.items():
        produced = any(analysis.effects[name].filters is not None for name in positions)
        if produced and not analysis.fixed[root]:
            key = tuple((name, len(found)) for name, found in positions.items())
            groups[key, frozenset(readers[root])].append(positions)
    if not groups:
        by = f", all tied to {', '.join(analysis.unknown[:3])}" if analysis.unknown else ""
        raise ArgumentError(
            "network",
            "channels that can be removed, which inputs, outputs and unknown layers keep",
            Words(f"{analysis.network.name!r}{by}"),
            must="have",
        )
    return tuple(_group(analysis, rows) for rows in groups.values())


def _group(analysis, rows):
    found = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    producers = {name for name in found if analysis.effects[name].filters is not None}
    return ChannelGroup(
        channels={name: rows for name, rows in found.items() if name in producers},
        scales={name: rows for name, rows in found.items() if name not in producers},
    )


def _alive(analysis, keep):
    """Whether a channel stays: bool array, by its number."""
    layers = {name: e.outputs for name, e in analysis.effects.items() if e.filters is not None}
    removed = np.zeros(len(analysis.roots), bool)
    for name, kept in keep.items():
        if name not in layers:
            accepted = f"convolutions and dense layers of {analysis.network.name!r}"
            received, hint = Words(repr(name)), near(name, layers)
            raise ArgumentError("keep", accepted, received, hint, must="name")
        kept, outputs = np.asarray(kept), layers[name]
        if kept.dtype != bool or kept.shape != outputs.shape or not kept.any():
            raise ArgumentError(
                "keep",
                f"booleans of shape {outputs.shape} for {name!r}, some of them true",
                Words(f"{kept.dtype}, shape {kept.shape}, {np.sum(kept)} true"),
            )
        roots = analysis.roots[outputs[~kept]]
        if analysis.fixed[roots].any():
            raise ArgumentError(
                "keep",
                "channels that inputs, outputs or unknown layers need, see `channel_groups`",
                Words(f"channels of {name!r} to remove"),
                must="keep",
            )
        removed[roots] = True
    for name, outputs in layers.items():
        kept = keep.get(name, np.ones(len(outputs), bool))
        if not np.array_equal(kept, ~removed[analysis.roots[outputs]]):
            accepted = "tied channels together, see `channel_groups`"
            received = Words(f"channels to remove that {name!r} keeps")
            raise ArgumentError("keep", accepted, received, must="remove")
    alive = ~removed[analysis.roots]
    for name, effect in analysis.effects.items():
        if not all(alive[part].any() for part in effect.parts):
            accepted = "a channel to each part of a split"
            received = Words(f"none to a part of {name!r}")
            raise ArgumentError("keep", accepted, received, must="leave")
    return alive


def _rebuild(analysis, change, count=None):
    """A copy of the network, its weights changed along the axes on which channels lie.

    Args:
        analysis: of the network.
        change: maps an array, an axis and the channels on it to the new array.
        count: how many of these channels stay, or None if the shapes do.
    """
    network, effects = analysis.network, analysis.effects

    def copy(operation):
        config = operation.get_config()
        effect = effects.get(operation.name)
        if count and effect and effect.config:
            config.update(effect.config(count))
        return type(operation).from_config(config)

    # By default, inputs that were not given a name would get another one.
    inputs = keras.tree.map_structure(
        lambda tensor: copy(_keras.operation_of(tensor)).output, network.input
    )
    model = keras.models.clone_model(network, inputs, clone_function=copy)
    for layer in network.layers:
        slices = effects[layer.name].slices if layer.name in effects else ()
        values = []
        for variable in layer.weights:
            value = _array(variable)
            for sliced, axis, channels in slices:
                if sliced is variable:
                    value = change(value, axis, channels)
            values.append(value)
        model.get_layer(layer.name).set_weights(values)
    return model
