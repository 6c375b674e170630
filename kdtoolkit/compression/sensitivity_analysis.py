"""What each part of a network costs in accuracy when it alone is pruned, or rounded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from kdtoolkit._checks import INSIDE_0_1, ArgumentError, check
from kdtoolkit._types import Network
from kdtoolkit.compression.channel_graph import analyse
from kdtoolkit.compression.channels import mask_channels, masked_weights
from kdtoolkit.compression.coupling import ChannelGroup, without
from kdtoolkit.compression.importance import Importance, as_importance
from kdtoolkit.compression.layers import choose, kernel
from kdtoolkit.models.kinds import DEPTHWISE, TRANSPOSED
from kdtoolkit.models.quantized_layers import fake_quantize_kernel
from kdtoolkit.models.weights import put_weights


@dataclass(frozen=True)
class SensitivityRow:
    """One part of a network that was changed, and what was left of the accuracy.

    Attributes:
        kind: `"pruned"`, channels of a group were removed, or `"int8"`, a layer's kernel rounded.
        layers: names of the group's layers, or of the one.
        share: of the group's channels that was to be removed; None for int8.
        removed: how many of them were.
        accuracy: what `evaluate` made of it.
        drop: by how much that is less than the whole network's.
    """

    kind: str
    layers: tuple[str, ...]
    share: float | None
    removed: int
    accuracy: float
    drop: float


@dataclass(frozen=True)
class Sensitivity:
    """What `sensitivity` found.

    Attributes:
        accuracy: what `evaluate` made of the whole network.
        rows: each group at each share, then each layer in int8, in the order in which they run.
    """

    accuracy: float
    rows: tuple[SensitivityRow, ...]

    def limits(self, max_accuracy_drop: float) -> dict[str, float]:
        """Returns how much of each group may go, for `limit` of `select_channels`.

        Args:
            max_accuracy_drop: of a group alone, a fraction.

        Returns:
            Name of a layer -> the largest share before the first that costs more, in any of the
            layer's groups; 0 where each does.
        """
        pruned = [row for row in self.rows if row.share is not None]
        limits = {name: 0.0 for row in pruned for name in row.layers}
        ended: set[str] = set()
        for share in sorted({row.share for row in pruned if row.share is not None}):
            rows = [row for row in pruned if row.share == share]
            costly = [row for row in rows if row.drop > max_accuracy_drop]
            ended |= {name for row in costly for name in row.layers}
            limits |= {name: share for row in rows for name in row.layers if name not in ended}
        return limits


def sensitivity(
    network: Network,
    groups: Sequence[ChannelGroup],
    evaluate: Callable[[Network], float],
    *,
    shares: Sequence[float] = (0.25, 0.5, 0.75),
    importance: str | Importance = "l1",
) -> Sensitivity:
    """Prunes each group of channels alone, and rounds each layer alone; nothing is trained.

    Rounded to int8 are the weights of a convolution or dense layer alone, each output channel to a
    symmetric grid of its own, as in a file of int8 (one of `"qat"` has one grid for the whole
    kernel of a transposed convolution): what activations in integers cost is not in it.

    Args:
        network: functional or sequential Keras model, whose weights are not changed.
        groups: of its `channel_groups`, all or some.
        evaluate: maps a network of the same shapes to its accuracy, such as that on validation
            images. It is given one copy, whose weights change from call to call, and may change
            it itself: `recalibrate` it, say.
        shares: of a group's channels to remove, in (0, 1): the least important, never more than
            the share, and never all.
        importance: as for `select_channels`. A group that it says nothing of has no rows.

    Returns:
        A `Sensitivity`.

    Raises:
        ArgumentError: an argument is not what is accepted.
    """
    if not shares:
        raise ArgumentError("shares", "at least one", list(shares))
    for share in shares:
        check("shares", share, INSIDE_0_1)
    analysis = analyse(network)
    copy = mask_channels(network, {})
    accuracy, rows = float(evaluate(copy)), []

    def note(kind, layers, share, removed):
        found = float(evaluate(copy)) if removed or share is None else accuracy
        rows.append(SensitivityRow(kind, layers, share, removed, found, accuracy - found))

    def put(weights):
        for name, values in weights.items():
            put_weights(copy.get_layer(name), values)

    scored = as_importance(importance).scores(analysis.network, groups)
    for group, scores in zip(groups, scored, strict=True):
        if scores is None:
            continue
        order = np.argsort(scores, kind="stable")
        for share in shares:
            removed = group.removable(share)
            put(masked_weights(analysis, without(analysis, [(group, order[:removed])])))
            note("pruned", group.layers, share, removed)
    whole = masked_weights(analysis, {})
    for name, layer in choose(copy, lambda layer: True).items():
        put(whole)
        variable = kernel(layer)
        variable.assign(_rounded(layer, keras.ops.convert_to_numpy(variable)))
        note("int8", (name,), None, 0)
    return Sensitivity(accuracy, tuple(rows))


def _rounded(layer, values):
    """The kernel on the grids of its output channels.

    In a file of int8 these are its last axis, of a depthwise one the last two, and of a transposed
    one, `(..., outputs, inputs)`, the one before.
    """
    if isinstance(layer, TRANSPOSED):
        return np.swapaxes(fake_quantize_kernel(np.swapaxes(values, -1, -2)), -1, -2)
    depthwise = isinstance(layer, DEPTHWISE)
    flat = values.reshape(*values.shape[:-2], -1) if depthwise else values
    return np.asarray(fake_quantize_kernel(flat)).reshape(values.shape)
