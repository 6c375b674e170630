"""Which channels go: as many of each group, or the least important of all, down to a target."""

import fnmatch
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from kdtoolkit._checks import (
    ABOVE_0_TO_1,
    BELOW_1,
    ArgumentError,
    Integers,
    OneOf,
    Words,
    check,
    near,
)
from kdtoolkit._types import Network
from kdtoolkit.compression.channel_graph import ChannelGraph, analyse
from kdtoolkit.compression.channels import shrink
from kdtoolkit.compression.coupling import ChannelGroup, groups_of
from kdtoolkit.compression.importance import Importance, as_importance
from kdtoolkit.compression.options import SCOPES
from kdtoolkit.compression.target import Target, cost_of


def select_channels(
    network: Network,
    fraction: float | None = None,
    importance: str | Importance = "l1",
    multiple: int = 1,
    layers: str | Iterable[str] = "*",
    *,
    threshold: str = "layer",
    limit: float = 1.0,
    target: str | Target | None = None,
) -> dict[str, np.ndarray]:
    """Chooses the channels to keep: those that are worth most.

    Args:
        network: functional or sequential Keras model.
        fraction: of the channels to remove, in [0, 1); never more than that.
        importance: what a channel is worth: `"l1"`, `"l2"`, `"bn_scale"`, `"fpgm"`, `"lamp"`,
            `"random"`, or an object, such as `importance.Taylor(images, labels)`. A group that it
            says nothing of stays as it is.
        multiple: the number of channels that stay in a group is rounded up to a multiple of this.
        layers: shell pattern, or several, of layer names. A group is pruned if each of its layers
            matches one.
        threshold: `"layer"`, the channels of each group are compared, and each group loses the
            fraction; or `"global"`, over all groups: the fraction is of all channels. Scores of
            different groups are divided by their group's mean before, unless they compare as
            they are.
        limit: largest share of a group that is removed, in (0, 1]; one channel always stays.
        target: instead of the fraction: as few channels are removed as bring a cost down to it,
            such as `"macs=0.5"`, half the multiply-accumulates, or `"parameters=0.3"`.

    Returns:
        Name of each layer that loses channels -> bool array `(channels,)`, true for those to keep.

    Raises:
        ValueError: an argument is outside its range, matches nothing (near matches are named), the
            network has nothing to prune, or does not come down to the target.
    """
    if (fraction is None) == (target is None):
        raise ArgumentError("fraction", "given, or else `target`", fraction)
    if fraction is not None:
        check("fraction", fraction, BELOW_1)
    check("multiple", multiple, Integers(1))
    check("threshold", threshold, OneOf(SCOPES))
    check("limit", limit, ABOVE_0_TO_1)
    analysis = analyse(network)
    groups = _matching(groups_of(analysis), layers)
    queues = _queues(analysis, groups, as_importance(importance), multiple, threshold, limit)
    if target is None:
        return _keep(analysis, queues, _bound(queues, fraction, threshold))
    return _reach(network, analysis, queues, Target.parse(target))


def prune_channels(
    network: Network,
    fraction: float | None = None,
    importance: str | Importance = "l1",
    multiple: int = 1,
    layers: str | Iterable[str] = "*",
    *,
    threshold: str = "layer",
    limit: float = 1.0,
    target: str | Target | None = None,
) -> Network:
    """Returns a smaller network: `shrink` with the channels that `select_channels` chooses.

    The arguments are those of `select_channels`. The result is trained further, best as the student
    of the network that it was: `training.Student(pruned, network)`.

    Raises:
        ValueError: as for `select_channels`.
    """
    keep = select_channels(
        *(network, fraction, importance, multiple, layers),
        threshold=threshold,
        limit=limit,
        target=target,
    )
    return shrink(network, keep)


def channel_count(network: Network, layers: str | Iterable[str] = "*") -> int:
    """Returns how many channels could be removed if none had to stay.

    Args:
        network, layers: as for `select_channels`.
    """
    return sum(group.size for group in _matching(groups_of(analyse(network)), layers))


@dataclass(frozen=True)
class _Queue:
    """The channels of a group in the order in which they go.

    Attributes:
        group: whose they are.
        order: their numbers, int `(removable,)`: without those that must stay.
        keys: a channel goes if its key is within a bound; in ascending order.
        multiple: of what stays.
    """

    group: ChannelGroup
    order: np.ndarray
    keys: np.ndarray
    multiple: int

    def removed(self, bound: float) -> np.ndarray:
        count = int(np.searchsorted(self.keys, bound, side="right"))
        rest = math.ceil((self.group.size - count) / self.multiple) * self.multiple
        return self.order[: max(self.group.size - rest, 0)]


def _queues(analysis, groups, importance, multiple, threshold, limit) -> list[_Queue]:
    queues = []
    scored = zip(groups, importance.scores(analysis.network, groups), strict=True)
    for group, scores in scored:
        if scores is None:
            continue
        order = np.argsort(scores, kind="stable")
        if threshold == "layer":
            keys = _rounded(np.arange(1, group.size + 1) / group.size)
        else:
            mean = 1.0 if importance.comparable else scores.mean()
            keys = scores[order] / (mean or 1.0)
        # Rounded first: 0.29 * 100 is just below 29.
        removable = min(group.size - 1, math.floor(_rounded(limit * group.size)))
        queues.append(_Queue(group, order[:removable], keys[:removable], multiple))
    if not queues:
        accepted = f"another for channels that {importance.name} says nothing of"
        raise ArgumentError("importance", accepted, importance.name)
    return queues


def _bound(queues, fraction, threshold):
    """The largest key that goes, for a share of the channels: a float."""
    if threshold == "layer":
        return _rounded(fraction)
    total = sum(queue.group.size for queue in queues)
    keys = np.sort(np.concatenate([queue.keys for queue in queues]))
    count = min(math.floor(_rounded(fraction * total)), len(keys))
    if count < len(keys):  # of equal channels none goes, or there would be more than the fraction
        count = int(np.searchsorted(keys, keys[count], side="left"))
    return keys[count - 1] if count else -math.inf


def _rounded(value):
    return np.round(value, 9)


def _keep(analysis: ChannelGraph, queues: Sequence[_Queue], bound: float) -> dict[str, np.ndarray]:
    keep: dict[str, np.ndarray] = {}
    for queue in queues:
        removed = queue.removed(bound)
        for name, channels in queue.group.channels.items():
            width = len(analysis.effects[name].outputs)
            keep.setdefault(name, np.ones(width, bool))[channels[removed]] = False
    return {name: kept for name, kept in keep.items() if not kept.all()}


def _reach(network, analysis, queues, target) -> dict[str, np.ndarray]:
    """The channels to keep for the smallest bound whose network costs no more than the target."""
    cost: Callable = cost_of(target)
    most = target.share * cost(network)
    bounds = np.unique(np.concatenate([queue.keys for queue in queues]))
    low, high, smallest = 0, len(bounds) - 1, None  # the wanted one is among low..high
    while low <= high:
        middle = len(bounds) - 1 if smallest is None else (low + high) // 2
        keep = _keep(analysis, queues, bounds[middle])
        found = cost(shrink(network, keep))
        if smallest is None and found > most:
            share = found / cost(network)
            received = Words(f"{target}, and the smallest that these arguments give is {share:.3f}")
            raise ArgumentError("target", "what can be reached", received)
        if found <= most:
            smallest, high = keep, middle - 1
        else:
            low = middle + 1
    assert smallest is not None  # the first bound that is tried is the largest
    return smallest


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
