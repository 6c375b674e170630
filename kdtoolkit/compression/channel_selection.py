"""Which channels go: as many of each group, or the least important of all, down to a target."""

import fnmatch
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kdtoolkit._checks import (
    ABOVE_0_TO_1,
    BELOW_1,
    FRACTION,
    ArgumentError,
    Integers,
    OneOf,
    Words,
    check,
    near,
)
from kdtoolkit._types import Network
from kdtoolkit.compression.channel_graph import ChannelGraph, analyse
from kdtoolkit.compression.channels import remaining, shrink, shrunk
from kdtoolkit.compression.coupling import ChannelGroup, groups_of, without
from kdtoolkit.compression.importance import Importance, as_importance
from kdtoolkit.compression.options import SCOPES
from kdtoolkit.compression.target import COUNTED, Target, cost_of, partly


def select_channels(
    network: Network,
    fraction: float | None = None,
    importance: str | Importance = "l1",
    multiple: int = 1,
    layers: str | Iterable[str] = "*",
    *,
    threshold: str = "layer",
    limit: float | Mapping[str, float] = 1.0,
    target: str | Target | None = None,
    measure: Callable[[Network], float] | None = None,
    rankings: int = 1,
) -> dict[str, np.ndarray]:
    """Chooses the channels to keep: those that are worth most.

    Args:
        network: functional or sequential Keras model.
        fraction: of the channels to remove, in [0, 1); never more than that.
        importance: what a channel is worth: `"l1"`, `"l2"`, `"group_norm"`, `"bn_scale"`,
            `"fpgm"`, `"lamp"`, `"random"`, or an object, such as `importance.Taylor(images,
            labels)`. A group that it says nothing of stays as it is, and no other one pays for
            that.
        multiple: the number of channels that stay in a group is rounded up to a multiple of this.
        layers: shell pattern, or several, of layer names. A group is pruned if each of its layers
            matches one.
        threshold: `"layer"`, the channels of each group are compared, and each group loses the
            fraction; or `"global"`, over all groups: the fraction is of all channels. Scores of
            different groups are divided by their group's mean before, unless they compare as
            they are.
        limit: largest share of a group that is removed, in (0, 1]; one channel always stays. Or
            name of a layer -> that of its group, in [0, 1], such as `limits` of `sensitivity`;
            1 for others, and the smallest of tied layers.
        target: instead of the fraction: as few channels are removed as bring a cost down to it:
            `"macs=0.5"`, half the multiply-accumulates; `"parameters=50k"`, weights that training
            changes, frozen or not; `"bytes=200k"`, the size of the float32 `.tflite` file;
            `"ms=0.5"`, half the time that it takes for an image in LiteRT on this machine, on one
            thread, or `"ms=3.5ms"`. None is removed where the whole network costs no more.
        measure: what a network costs, in the place of the target's own way to find out: for other
            files, or another device. Few networks are measured, each once: the number of channels
            is bisected, as if fewer channels never cost more.
        rankings: how often channels are ranked, what is left anew each time, so that a group which
            has lost many has its own mean: the same share of what is left goes each time. With a
            global threshold 10 are better than 1 where much goes.

    Returns:
        Name of each layer that loses channels -> bool array `(channels,)`, true for those to keep.

    Raises:
        ValueError: an argument is outside its range, matches nothing (near matches are named), the
            network has nothing to prune, or does not come down to the target.
    """
    return selection(
        *(analyse(network), fraction, importance, multiple, layers),
        threshold=threshold,
        limit=limit,
        target=target,
        measure=measure,
        rankings=rankings,
    ).keep


@dataclass(frozen=True)
class Selection:
    """Which channels stay and, where they were to come down to a target, what was measured.

    Attributes:
        keep: of `select_channels`.
        whole: what the whole network costs.
        most: what is left is to cost at most.
        found: what is left costs.
        measured: how many networks were measured for that, with the whole one.
    """

    keep: dict[str, np.ndarray]
    whole: float | None = None
    most: float | None = None
    found: float | None = None
    measured: int = 0


def selection(
    analysis: ChannelGraph,
    fraction: float | None = None,
    importance: str | Importance = "l1",
    multiple: int = 1,
    layers: str | Iterable[str] = "*",
    *,
    threshold: str = "layer",
    limit: float | Mapping[str, float] = 1.0,
    target: str | Target | None = None,
    measure: Callable[[Network], float] | None = None,
    rankings: int = 1,
    gone: float = 0.0,
) -> Selection:
    """As `select_channels`, with what was measured.

    Args:
        analysis: of the network. The fraction is of the channels of its `original`.
        gone: fraction of them that was to go before.
    """
    if (fraction is None) == (target is None):
        raise ArgumentError("fraction", "given, or else `target`", fraction)
    if fraction is not None:
        check("fraction", fraction, BELOW_1)
    if target is None and measure is not None:
        raise ArgumentError("measure", "left out where there is no target", measure)
    check("multiple", multiple, Integers(1))
    check("threshold", threshold, OneOf(SCOPES))
    check("rankings", rankings, Integers(1))
    importance = as_importance(importance)
    groups = groups_of(analysis)
    limits = _limits(groups, limit)
    # How many channels of a group are left where it has lost all that it may.
    least = {group.key: group.size - group.removable(limits(group)) for group in groups}
    original = groups_of(analysis.original or analysis)
    sizes = {group.key: group.size for group in _matching(original, layers)}
    whole = most = None
    counts = False
    if target is not None:
        target = Target.parse(target)
        counts = measure is None and target.cost in COUNTED
        measure = measure or cost_of(target)
        whole = measure(analysis.network)
        most = target.most(whole)

    def cost_left(analysis, keep):
        if counts:
            return remaining(analysis, keep, target.cost)
        return measure(shrunk(analysis, keep).network)

    def rank(analysis, cost, share):
        """Goes a share of the way from a network, whose cost is given, to what is asked for."""
        groups = _matching(groups_of(analysis), layers)
        queues = _queues(analysis, groups, sizes, importance, multiple, threshold, least)
        if target is None:
            wanted = 1 - partly(1 - gone, 1 - fraction, share)
            return Selection(_keep(analysis, queues, _bound(queues, wanted, threshold)))
        left = functools.partial(cost_left, analysis)
        refuse = functools.partial(_unreachable, target, whole)
        return _reach(analysis, queues, partly(whole, most, share), left, cost, refuse)

    keep: dict[str, np.ndarray] = {}
    found, measured = whole, int(target is not None)
    for number in range(1, rankings + 1):
        chosen = rank(analysis, found, number / rankings)
        found, measured = chosen.found, measured + chosen.measured
        for name, kept in chosen.keep.items():
            mask = keep.setdefault(name, np.ones(len(kept), bool))
            mask[np.flatnonzero(mask)] = kept
        if number < rankings:
            analysis = shrunk(analysis, chosen.keep)
    return Selection(keep, whole, most, found, measured)


def prune_channels(
    network: Network,
    fraction: float | None = None,
    importance: str | Importance = "l1",
    multiple: int = 1,
    layers: str | Iterable[str] = "*",
    *,
    threshold: str = "layer",
    limit: float | Mapping[str, float] = 1.0,
    target: str | Target | None = None,
    measure: Callable[[Network], float] | None = None,
    rankings: int = 1,
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
        measure=measure,
        rankings=rankings,
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
        whole: how many channels the group had before any went.
        order: their numbers, int `(removable,)`: without those that must stay.
        keys: a channel goes if its key is within a bound; in ascending order.
        multiple: of what stays.
    """

    group: ChannelGroup
    whole: int
    order: np.ndarray
    keys: np.ndarray
    multiple: int

    def removed(self, bound: float) -> np.ndarray:
        count = int(np.searchsorted(self.keys, bound, side="right"))
        rest = math.ceil((self.group.size - count) / self.multiple) * self.multiple
        return self.order[: max(self.group.size - rest, 0)]


def _limits(groups, limit) -> Callable[[ChannelGroup], float]:
    """The function that returns the largest share of a group that is removed."""
    if not isinstance(limit, Mapping):
        check("limit", limit, ABOVE_0_TO_1)
        return lambda group: limit
    names = [name for group in groups for name in group.layers]
    for name, share in limit.items():
        if name not in names:
            accepted = "layers with channels that can be removed"
            raise ArgumentError(
                "limit", accepted, Words(repr(name)), near(name, names), must="name"
            )
        check("limit", share, FRACTION)
    return lambda group: min(limit.get(name, 1.0) for name in group.layers)


def _queues(analysis, groups, sizes, importance, multiple, threshold, least) -> list[_Queue]:
    queues = []
    scored = zip(groups, importance.scores(analysis.network, groups), strict=True)
    for group, scores in scored:
        if scores is None:
            continue
        whole, order = sizes[group.key], np.argsort(scores, kind="stable")
        if threshold == "layer":
            # Which share of the whole group is gone with it.
            keys = _rounded(1 - np.arange(group.size)[::-1] / whole)
        else:
            mean = 1.0 if importance.comparable else scores.mean()
            keys = scores[order] / (mean or 1.0)
        removable = group.size - least[group.key]
        queues.append(_Queue(group, whole, order[:removable], keys[:removable], multiple))
    if not queues:
        accepted = f"another for channels that {importance.name} says nothing of"
        raise ArgumentError("importance", accepted, importance.name)
    return queues


def _bound(queues, fraction, threshold):
    """The largest key that goes, for a fraction that is gone of what there was: a float."""
    if threshold == "layer":
        return _rounded(fraction)
    stay = (1 - fraction) * sum(queue.whole for queue in queues)
    keys = np.sort(np.concatenate([queue.keys for queue in queues]))
    count = math.floor(_rounded(sum(queue.group.size for queue in queues) - stay))
    count = min(max(count, 0), len(keys))
    if count < len(keys):  # of equal channels none goes, or there would be more than the fraction
        count = int(np.searchsorted(keys, keys[count], side="left"))
    return keys[count - 1] if count else -math.inf


def _rounded(value):
    return np.round(value, 9)


def _keep(analysis: ChannelGraph, queues: Sequence[_Queue], bound: float) -> dict[str, np.ndarray]:
    keep = without(analysis, ((queue.group, queue.removed(bound)) for queue in queues))
    return {name: kept for name, kept in keep.items() if not kept.all()}


def _reach(analysis, queues, most, left, whole, refuse) -> Selection:
    """The smallest bound whose network costs no more than `most`.

    Args:
        left: maps channels to keep to what the network costs with them.
        whole: what the network costs with all.
        refuse: makes an error of the least that a network costs, where it is more.
    """
    if whole <= most:
        return Selection({}, found=whole)
    bounds = np.unique(np.concatenate([queue.keys for queue in queues]))
    if not len(bounds):  # limits leave none
        raise refuse(whole)
    reached, measured, low, high = None, 0, 0, len(bounds) - 1  # the wanted one is in low..high
    while low <= high:
        middle = len(bounds) - 1 if reached is None else (low + high) // 2
        keep = _keep(analysis, queues, bounds[middle])
        found, measured = left(keep), measured + 1
        if found <= most:
            reached, high = (keep, found), middle - 1
        elif reached is None:  # the largest bound, with which it begins
            raise refuse(found)
        else:
            low = middle + 1
    assert reached is not None  # or the largest bound had been refused
    return Selection(reached[0], found=reached[1], measured=measured)


def _unreachable(target, whole, found):
    least = f"{target.shown(found)} {target.unit}, {found / whole:.3f} of the whole network's"
    received = Words(f"{target}, and the smallest that these arguments give is {least}")
    return ArgumentError("target", "what can be reached", received)


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
