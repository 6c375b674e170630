"""Which channels of a network can be removed, and which of them only together."""

import collections
import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit._types import Network
from kdtoolkit.compression.channel_graph import ChannelGraph, analyse, weight_number


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of layers that are tied to each other.

    Attributes:
        channels: name of a layer -> int array `(size, n)`, the numbers of its output channels (n is
            1, or the groups of a grouped convolution). Row i of a layer can only be removed
            together with row i of the others.
        scales: the same for the batch normalisations with a scale that these channels pass.
        slices: name of a layer, number of one of its weights and an axis -> int array `(size, n)`:
            the places on that axis that go with row i. All that a channel takes with it, what
            reads it too.
        key: what the channels of the group alone have in common. It is the same in the `narrowed`
            graph of a network with fewer channels.
    """

    channels: Mapping[str, np.ndarray]
    scales: Mapping[str, np.ndarray]
    slices: Mapping[tuple[str, int, int], np.ndarray]
    key: Hashable

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in the order in which they run."""
        return tuple(self.channels)

    @property
    def size(self) -> int:
        """How many channels each layer has in the group."""
        return len(next(iter(self.channels.values())))

    def removable(self, share: float) -> int:
        """How many channels are a share of the group, in [0, 1]; one always stays."""
        # Rounded first: 0.29 * 100 is just below 29.
        return min(self.size - 1, math.floor(np.round(share * self.size, 9)))


def without(
    analysis: ChannelGraph, removed: Iterable[tuple[ChannelGroup, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Returns which channels stay: name of each layer of these groups -> bool `(channels,)`.

    Args:
        analysis: of the network.
        removed: groups, and the rows of each that go.
    """
    keep: dict[str, np.ndarray] = {}
    for group, rows in removed:
        for name, channels in group.channels.items():
            width = len(analysis.effects[name].outputs)
            keep.setdefault(name, np.ones(width, bool))[channels[rows]] = False
    return keep


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
        read them, as often; each part of a split is another one.

    Raises:
        ValueError: the network is not functional, or there is no such channel.
    """
    return groups_of(analyse(network))


def groups_of(analysis):
    """Likewise, of the `ChannelGraph` of a network."""
    members = collections.defaultdict(lambda: collections.defaultdict(list))
    slices = collections.defaultdict(lambda: collections.defaultdict(list))
    parts = collections.defaultdict(set)
    for name, effect in analysis.effects.items():
        for variable, axis, channels in effect.slices:
            number = weight_number(analysis.network.get_layer(name), variable)
            place = (name, number, axis % len(variable.shape))
            for position, root in enumerate(analysis.roots[channels]):
                slices[root][place].append(position)
        for place, channels in enumerate(effect.parts):
            for root in np.unique(analysis.roots[channels]):
                parts[root].add((name, place))
        if effect.filters or effect.scale:
            for position, root in enumerate(analysis.roots[effect.outputs]):
                members[root][name].append(position)
    groups = collections.defaultdict(list)
    for root, positions in members.items():
        produced = any(analysis.effects[name].filters for name in positions)
        if produced and not analysis.fixed[root]:
            tied, read = (
                tuple((place, len(found)) for place, found in each.items())
                for each in (positions, slices[root])
            )
            groups[tied, read, frozenset(parts[root])].append(root)
    if not groups:
        by = f", all tied to {', '.join(analysis.unknown[:3])}" if analysis.unknown else ""
        raise ArgumentError(
            "network",
            "channels that can be removed, which inputs, outputs and unknown layers keep",
            Words(f"{analysis.network.name!r}{by}"),
            must="have",
        )
    return tuple(_group(analysis, members, slices, *found) for found in groups.items())


def _group(analysis, members, slices, key, roots):
    found = _rows([members[root] for root in roots])
    producers = {name for name in found if analysis.effects[name].filters}
    return ChannelGroup(
        channels={name: rows for name, rows in found.items() if name in producers},
        scales={name: rows for name, rows in found.items() if name not in producers},
        slices=_rows([slices[root] for root in roots]),
        key=key,
    )


def _rows(positions):
    return {place: np.array([row[place] for row in positions]) for place in positions[0]}
