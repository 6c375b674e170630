"""Several classifiers in one network: attach exits, cut at one, run stage by stage.

A multi-exit network returns a dict of logits, `exit_1` (shallowest) to `exit_N`, the network's own
output. The layers of exit k's head are named `exit_k_...`; that is all there is to find it again
after saving and loading.
"""

import math
import re
from collections.abc import Sequence

import keras
from keras import layers

from kdtoolkit._checks import ArgumentError, Integers, OneOf, Words, check, near
from kdtoolkit._keras import all_layers, node_of, operation_of
from kdtoolkit._types import Network
from kdtoolkit.models.choices import HEADS
from kdtoolkit.models.contract import check_logits
from kdtoolkit.models.cost import macs, macs_of
from kdtoolkit.models.graph import check_graph, flatten, output_of, returns_its_input
from kdtoolkit.models.kinds import is_channels_first
from kdtoolkit.models.layers import batch_norm, conv
from kdtoolkit.models.quantized_layers import grid_of

_WIDTHS = (128, 64, 32, 16, 8)  # the first is the paper's
_IN_A_HEAD = re.compile(r"exit_\d+_")
_SHARE = 1 / 8  # of what stopping saves, for a head that is sized here


def add_exits(
    network: Network,
    at: Sequence[str] | None = None,
    head: str = "bottleneck",
    mid: int | None = None,
) -> Network:
    """Attaches classifiers to a network (Zhang et al., ICCV 2019, section 3.1).

    An exit's head maps the features where it is attached to features of the deepest shape, and
    classifies their average: 1x1 convolution to `mid` channels, k x k convolution with stride k
    (k: how much wider the image is there), 1x1 convolution to the deepest width, each with batch
    normalisation and ReLU, then average pooling and a dense layer.

    Where the features are those of tokens, as in a Vision Transformer, the head is their average, a
    dense layer where it has another width than the deepest, layer normalisation and a dense layer.

    Args:
        network: functional or sequential Keras model that returns logits from a dense layer or a
            convolution. The layers of models inside it count as its own: see `flatten`.
        at: names of layers, shallow to deep; a registry network's stages are layers named
            `stage1`, .... By default all its stages but the last, and, where that makes fewer than
            four exits, the block in the middle of the last stage.
        head: `"bottleneck"`, or `"attention"`: the features are first multiplied by a mask that
            the head learns (strided convolution, normalisation, ReLU, upsampling, normalisation,
            sigmoid).
        mid: channels inside the heads; the paper has 128. By default each head's own: the widest
            of 128, 64, 32, 16 and 8 whose multiply-accumulates, those of an attention left out, are
            at most an eighth of what stopping there saves; 8 where none is.

    Returns:
        A functional `keras.Model` that shares the network's layers.

    Raises:
        ValueError: the network does not return logits, has a layer with channels first or one
            called as those of heads are, `at` names no layer (near matches are named), is out of
            order or returns neither images nor tokens, or `head` is unknown; without a `mid`, a
            head costs as much as going on to the end would.
    """
    check_logits(network)
    check_graph(network)
    check("head", head, HEADS)
    if mid is not None:
        check("mid", mid, Integers(1))
    network = flatten(network)
    _check_layers(network)
    at = _default_points(network) if at is None else list(at)
    points = _attachments(network, at)
    if head == "attention" and any(len(point.shape) != 4 for point in points):
        accepted = "'bottleneck' for features of tokens, which have no height and width"
        raise ArgumentError("head", accepted, head)
    (logits,) = network.outputs
    width = _classified(logits).shape[-1]
    whole = macs(network)
    outputs = {}
    for index, (name, point) in enumerate(zip(at, points, strict=True), start=1):
        prefix = f"exit_{index}_"
        if len(point.shape) == 3:
            x = _pooled_tokens(point, width, prefix)
        else:
            stride = math.ceil(point.shape[1] / _image_shaped(logits).shape[1])
            channels = mid
            if mid is None:
                saved = whole - macs_of([point])
                mask = _attention_macs(point) if head == "attention" else 0
                channels = _affordable_width(point, stride, width, logits, saved, mask, name)
            x = _attention(point, prefix) if head == "attention" else point
            x = _conv(x, channels, 1, 1, f"{prefix}squeeze")
            x = _conv(x, channels, stride, stride, f"{prefix}stride")
            x = _conv(x, width, 1, 1, f"{prefix}expand")
            x = layers.GlobalAveragePooling2D(name=f"{prefix}features")(x)
        x = layers.Dense(logits.shape[-1], dtype="float32", name=f"{prefix}logits")(x)
        outputs[f"exit_{index}"] = x
    outputs[f"exit_{len(points) + 1}"] = logits
    return keras.Model(network.input, outputs, name=f"{network.name}_exits")


def exit_names(network: Network) -> list[str]:
    """Returns the names of a multi-exit network's exits, shallow to deep.

    Raises:
        ValueError: the network has no exits.
    """
    check_graph(network)
    output = network.outputs if isinstance(network, keras.Sequential) else network.output
    if not isinstance(output, dict) or not all(re.fullmatch(r"exit_\d+", name) for name in output):
        returned = sorted(output) if isinstance(output, dict) else "one output"
        raise ArgumentError(
            "network",
            "a multi-exit network, which returns a dict of logits, exit_1, exit_2 and so on",
            Words(f"{network.name!r}, which returns {returned}"),
        )
    return sorted(output, key=lambda name: int(name.removeprefix("exit_")))


def features(network: Network) -> Network:
    """Returns the multi-exit network with its pooled features, for training.

    Returns:
        A functional `keras.Model` that shares the layers and returns `{"logits": {exit: (batch,
        classes)}, "features": {exit: (batch, width)}}`, shallow to deep.

    Raises:
        ValueError: the network has no exits.
    """
    logits = {name: network.output[name] for name in exit_names(network)}
    pooled = {name: _features(z) for name, z in logits.items()}
    return keras.Model(network.input, {"logits": logits, "features": pooled})


def cut(network: Network, exit: str) -> Network:
    """Returns the classifier that ends at an exit: the layers that it needs, and no others.

    Args:
        network: a multi-exit network.
        exit: name of an exit.

    Returns:
        A functional `keras.Model` from images to logits that shares the layers.

    Raises:
        ValueError: there is no such exit.
    """
    names = exit_names(network)
    check("exit", exit, OneOf(tuple(names)))
    return keras.Model(network.input, network.output[exit], name=f"{network.name}_{exit}")


def backbone(network: Network) -> list[keras.Layer]:
    """Returns the layers of a network but for its head, what makes logits of features.

    That is the last dense layer or convolution and, of a multi-exit network, all of each exit's.

    Raises:
        ValueError: the network does not end with such a layer.
    """
    last = {operation_of(_from_features(logits)).name for logits in network.outputs}
    return [
        layer
        for layer in network.layers
        if layer.name not in last and not _IN_A_HEAD.match(layer.name)
    ]


def exit_costs(network: Network) -> dict[str, float]:
    """Returns what stopping at each exit costs in multiply-accumulates, with all heads before it.

    Costs are relative to the plain network's, which has no heads: that of the last exit is above 1.
    An exit that is `cut` off runs without the heads before it, and costs less: see `cut_costs`.

    Returns:
        dict exit -> float, shallow to deep.

    Raises:
        ValueError: the network has no exits.
    """
    names = exit_names(network)
    outputs = [network.output[name] for name in names]
    plain = macs_of(outputs[-1:])
    return {name: macs_of(outputs[:k]) / plain for k, name in enumerate(names, start=1)}


def cut_costs(network: Network) -> dict[str, float]:
    """Returns what each exit costs on its own, `cut` off, in multiply-accumulates.

    Costs are relative to the plain network's, which is that of the last exit.

    Returns:
        dict exit -> float, shallow to deep.

    Raises:
        ValueError: the network has no exits.
    """
    macs = {name: macs_of([network.output[name]]) for name in exit_names(network)}
    plain = list(macs.values())[-1]
    return {name: count / plain for name, count in macs.items()}


def stages(network: Network) -> list[Network]:
    """Splits a multi-exit network into what runs from one exit to the next.

    Returns:
        One functional `keras.Model` for each exit, sharing the layers. The first takes images, each
        later one the features that the one before it carried on. All but the last return
        `{"logits", "features"}`, the last `{"logits"}`. Features of a quantisation-aware network
        are on a grid; the stage that takes them draws it again, for the converter to find.

    Raises:
        ValueError: the network has no exits, or a connection bypasses an exit's attachment.
    """
    names = exit_names(network)
    points = [_attachment(network.output[name], name) for name in names[:-1]]
    models = []
    for index, name in enumerate(names):
        outputs = {"logits": network.output[name]}
        if index < len(points):
            outputs["features"] = points[index]
        start = network.input if index == 0 else points[index - 1]
        try:
            models.append(
                _on_its_grid(keras.Model(start, outputs, name=f"stage_{index + 1}"), start)
            )
        except ValueError as error:
            accepted = f"its exits: {name} needs more than the features at exit_{index}"
            received = Words(repr(network.name))
            raise ArgumentError("network", accepted, received, must="not bypass") from error
    return models


def _on_its_grid(stage, start):
    """The stage with its input on the grid that `start` is on, if it is on one."""
    grid = grid_of(start)
    if grid is None:
        return stage
    features = keras.Input(start.shape[1:])
    return flatten(keras.Model(features, stage(grid(features)), name=stage.name))


def _check_layers(network):
    for operation in network.operations:
        what = f"{network.name!r}, whose {type(operation).__name__} {operation.name!r}"
        if is_channels_first(operation):
            raise ArgumentError("network", "channels last", Words(f"{what} has not"), must="have")
        if _IN_A_HEAD.match(operation.name):
            accepted = "layers of other names than those of heads"
            raise ArgumentError("network", accepted, Words(f"{what} has not"), must="have")


def _default_points(network):
    names = {layer.name for layer in network.layers}
    stages = [f"stage{k}" for k in range(1, len(names)) if f"stage{k}" in names]
    if len(stages) < 2:
        accepted = f"given: {network.name!r} has no layers named stage1, stage2 and so on"
        raise ArgumentError("at", accepted, Words("none"))
    points = stages[:-1]
    if len(points) < 3:
        inner = [name for name in names if name.startswith(f"{stages[-1]}_block")]
        blocks = {int(match[1]) for match in map(re.compile(r".*_block(\d+)").match, inner)}
        if len(blocks) > 1:
            points.append(f"{stages[-1]}_block{max(blocks) // 2}")
    return points


def _attachments(network, at):
    tensors = []
    for name in at:
        names = [layer.name for layer in network.layers]
        if name not in names:
            received = Words(f"{name!r}{_where_it_is(network, name)}")
            accepted, hint = f"layers of {network.name!r}", near(name, names)
            raise ArgumentError("at", accepted, received, hint, must="name")
        tensor = output_of(network, name)
        if isinstance(tensor, list) or len(tensor.shape) not in (3, 4):
            returned = "several" if isinstance(tensor, list) else tensor.shape
            raise ArgumentError(
                "at",
                "layers that return features of shape (batch, height, width, channels), or "
                "(batch, tokens, channels)",
                Words(f"{name!r}, which returns {returned}"),
                must="name",
            )
        tensors.append(tensor)
    if not tensors:
        raise ArgumentError("at", "at least one layer", at, must="name")
    for index in range(1, len(tensors)):
        if id(tensors[index - 1]) not in _ancestors(tensors[index]):
            received = Words(f"{at[index - 1]!r} before {at[index]!r}")
            raise ArgumentError("at", "in order, shallow to deep", received)
    return tensors


def _where_it_is(network, name):
    """What a message adds to the name of a layer that is inside another."""
    for layer in network.layers:
        if name in [inner.name for inner in all_layers(layer, include_self=False)]:
            return f", which is inside {layer.name!r}, whose layers are called out of sight"
    return ""


def _affordable_width(point, stride, deepest, logits, saved, mask, name):
    """Channels inside the head of an exit at the layer `name`, by what stopping there saves."""

    def cost(mid):
        return _bottleneck_macs(point, stride, mid, deepest, logits.shape[-1])

    width = next((mid for mid in _WIDTHS if cost(mid) <= _SHARE * saved), _WIDTHS[-1])
    if cost(width) + mask >= saved:
        raise ArgumentError(
            "at",
            "layers where a head costs less than going on",
            Words(
                f"{name!r}, where stopping saves {saved:,} multiply-accumulates and a head of "
                f"{width} channels takes {cost(width) + mask:,}; a shallower layer saves more, and "
                "a given `mid` attaches a head that only teaches"
            ),
            must="name",
        )
    return width


def _bottleneck_macs(point, stride, mid, width, classes):
    height, columns, channels = point.shape[1:]
    places = math.ceil(height / stride) * math.ceil(columns / stride)
    squeeze, expand = height * columns * channels * mid, places * mid * width
    return squeeze + places * (stride * mid) ** 2 + expand + width * classes


def _attention_macs(point):
    height, width, channels = point.shape[1:]
    return math.ceil(height / 2) * math.ceil(width / 2) * 9 * channels**2


def _inputs(tensor):
    """The tensors from which the operation made this one, at this place in the graph."""
    return node_of(tensor).input_tensors


def _ancestors(tensor):
    found, waiting = set(), list(_inputs(tensor))
    while waiting:
        tensor = waiting.pop()
        if id(tensor) not in found:
            found.add(id(tensor))
            waiting.extend(_inputs(tensor))
    return found


def _attachment(logits, name):
    """The tensor at which the head of an exit begins."""
    waiting, found = [logits], {}
    while waiting:
        tensor = waiting.pop()
        if operation_of(tensor).name.startswith(f"{name}_"):
            waiting.extend(_inputs(tensor))
        else:
            found[id(tensor)] = tensor
    (point,) = found.values()
    return point


def _from_features(logits):
    """What the last dense layer or convolution returns."""
    while returns_its_input(operation_of(logits)) or _is_pooling(logits):
        logits = _inputs(logits)[0]
    last = operation_of(logits)
    if not isinstance(last, (layers.Dense, layers.Conv2D)):
        accepted = "with a dense layer, or a convolution, that returns logits"
        received = Words(f"{type(last).__name__} {last.name!r}")
        raise ArgumentError("network", accepted, received, must="end")
    return logits


def _classified(logits):
    """What the last dense layer or convolution takes, before dropout."""
    classified = _inputs(_from_features(logits))[0]
    while isinstance(operation_of(classified), layers.Dropout):  # features are what is dropped from
        classified = _inputs(classified)[0]
    return classified


def _features(logits):
    """The pooled features `(batch, width)` of an exit."""
    classified = _classified(logits)
    return classified if len(classified.shape) == 2 else keras.ops.mean(classified, axis=(1, 2))


def _is_pooling(tensor):
    return isinstance(
        operation_of(tensor), (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)
    )


def _image_shaped(logits):
    """The last tensor on the way to the logits that has a height and a width, unpooled."""
    waiting = [_classified(logits)]
    while waiting:
        tensor = waiting.pop(0)
        if len(tensor.shape) == 4:
            return _unpooled(tensor)
        waiting.extend(_inputs(tensor))
    accepted = "features that had a height and a width"
    raise ArgumentError("network", accepted, Words("others"), must="classify")


def _unpooled(tensor):
    """What was pooled to one pixel, if this tensor was made of one alone."""
    found = tensor
    while found.shape[1:3] == (1, 1) and len(_inputs(found)) == 1:
        if _is_pooling(found):
            return _inputs(found)[0]
        found = _inputs(found)[0]
    return tensor


def _pooled_tokens(x, width, prefix):
    x = layers.GlobalAveragePooling1D(name=f"{prefix}pool")(x)
    if x.shape[-1] != width:
        x = layers.Dense(width, name=f"{prefix}expand")(x)
    return layers.LayerNormalization(epsilon=1e-6, name=f"{prefix}features")(x)


def _conv(x, filters, size, stride, name):
    # With bias, unlike the networks' own: so are the heads whose sizes are published.
    x = conv(x, filters, size, stride, use_bias=True, name=f"{name}_conv")
    x = batch_norm(x, name=f"{name}_bn")
    return layers.ReLU(name=f"{name}_relu")(x)


def _attention(x, prefix):
    height, width, channels = x.shape[1:]
    mask = _conv(x, channels, 3, 2, f"{prefix}attention")
    mask = layers.UpSampling2D(interpolation="bilinear", name=f"{prefix}attention_up")(mask)
    if mask.shape[1:3] != (height, width):  # an odd size was rounded up
        excess = ((0, mask.shape[1] - height), (0, mask.shape[2] - width))
        mask = layers.Cropping2D(excess, name=f"{prefix}attention_crop")(mask)
    mask = batch_norm(mask, name=f"{prefix}attention_up_bn")
    mask = layers.Activation("sigmoid", name=f"{prefix}attention_mask")(mask)
    return layers.Multiply(name=f"{prefix}attended")([x, mask])
