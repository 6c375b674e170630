"""Channel pruning: networks that are smaller and faster because whole filters are gone."""

import math
from collections.abc import Mapping

import keras
import numpy as np

from kdtoolkit import _keras
from kdtoolkit._checks import ArgumentError, Words, near
from kdtoolkit._types import Network
from kdtoolkit.compression.channel_graph import ChannelGraph, analyse, narrowed
from kdtoolkit.models.copies import copied
from kdtoolkit.models.cost import macs_of
from kdtoolkit.models.weights import put_weights


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
        ValueError: a name or a shape is wrong, a channel cannot be removed, or not without others
            that are kept, or a layer cannot be copied.
    """
    analysis = analyse(network)
    return _rebuild(analysis, _zeroing(_alive(analysis, keep)))


def masked_weights(
    analysis: ChannelGraph, keep: Mapping[str, np.ndarray]
) -> dict[str, list[np.ndarray]]:
    """Returns the weights of the network of `mask_channels`: name of a layer -> its arrays.

    Args:
        analysis: of the network.
        keep: as for `mask_channels`.
    """
    return dict(_weights(analysis, _zeroing(_alive(analysis, keep))))


def _zeroing(alive):
    def zeroed(value, axis, channels):
        shape = [1] * value.ndim
        shape[axis] = len(channels)
        return value * alive[channels].reshape(shape).astype(value.dtype)

    return zeroed


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
    return shrunk(analyse(network), keep).network


def shrunk(analysis: ChannelGraph, keep: Mapping[str, np.ndarray]) -> ChannelGraph:
    """Returns the network of `shrink`, with what depends on each other in it as it did before.

    Args:
        analysis: of the network.
        keep: as for `shrink`.
    """
    alive = _alive(analysis, keep)

    def taken(value, axis, channels):
        return value.compress(alive[channels], axis)

    smaller = _rebuild(analysis, taken, lambda channels: int(alive[channels].sum()))
    return narrowed(analysis, smaller, alive)


def remaining(analysis: ChannelGraph, keep: Mapping[str, np.ndarray], cost: str) -> int:
    """Returns what the network of `shrink` costs, which is not built for that.

    Args:
        analysis: of the network.
        keep: as for `mask_channels`.
        cost: `"macs"` or `"parameters"`.
    """
    alive = _alive(analysis, keep)
    shapes: dict[int, list[int]] = {}
    for effect in analysis.effects.values():
        for variable, axis, channels in effect.slices:
            shapes.setdefault(id(variable), [*variable.shape])[axis] = int(alive[channels].sum())

    def size(variable):
        return math.prod(shapes.get(id(variable), variable.shape))

    if cost == "macs":
        return macs_of(analysis.network.outputs, size)
    return sum(map(size, _keras.trained_variables(analysis.network)))


def _array(variable):
    return keras.ops.convert_to_numpy(variable)


def _alive(analysis, keep):
    """Whether a channel stays: bool array, by its number."""
    layers = {name: e.outputs for name, e in analysis.effects.items() if e.filters}
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
    alive = analysis.alive & ~removed[analysis.roots]
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
        effect = effects.get(operation.name)
        changes = effect.config(count) if count and effect and effect.config else {}
        return copied(operation, **changes)

    # By default, inputs that were not given a name would get another one.
    inputs = keras.tree.map_structure(
        lambda tensor: copy(_keras.operation_of(tensor)).output, network.input
    )
    model = keras.models.clone_model(network, inputs, clone_function=copy)
    for name, values in _weights(analysis, change):
        put_weights(model.get_layer(name), values)
    return model


def _weights(analysis, change):
    """Pairs of a layer's name and its weights, changed along the axes on which channels lie."""
    for layer in analysis.network.layers:
        effect = analysis.effects.get(layer.name)
        values = []
        for variable in layer.weights:
            value = _array(variable)
            for sliced, axis, channels in effect.slices if effect else ():
                if sliced is variable:
                    value = change(value, axis, channels)
            values.append(value)
        yield layer.name, values
