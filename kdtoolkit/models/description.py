"""What each part of a network, and each exit, costs."""

import math
import re
from dataclasses import dataclass

import keras
import tensorflow as tf
from keras import layers

from kdtoolkit._types import Network
from kdtoolkit.models.cost import check_fixed, inside, use_macs, uses
from kdtoolkit.models.exits import exit_names

_MOVING_STATISTICS = ("moving_mean", "moving_variance")

_IN_PLACE = (
    layers.Activation,
    layers.BatchNormalization,
    layers.Dropout,
    layers.Flatten,
    layers.ReLU,
    layers.Reshape,
    layers.Softmax,
)


@dataclass(frozen=True)
class Row:
    """The cost of a part of a network, or of all that an exit needs.

    Attributes:
        name: of the part.
        parameters: weights, without the moving statistics of batch normalisation, as papers count
            them.
        macs: multiply-accumulates for one image, as `kdtoolkit.models.macs` counts.
        activation_bytes: most bytes of feature maps that exist at the same time while the part
            runs, for one image: the input and the output of the operation that runs, and what is
            needed later on, the image included. Normalisation and activations write over their
            input where nothing else needs it.
    """

    name: str
    parameters: int
    macs: int
    activation_bytes: int


def describe(network: Network) -> list[Row]:
    """Returns what a network costs.

    Args:
        network: functional or sequential Keras model with inputs of a fixed shape.

    Returns:
        A list of `Row`. First the parts, which add up in parameters and operations: `stem`,
        `stage1`, ..., each up to the layer of that name where there is one, `exit_1 head`, ... of a
        multi-exit network, and `head`, the rest; what several parts need is the first one's. Then
        `exit_1`, ...: all that this exit needs, as `cut` gives it. Last the whole network, under
        its name.

    Raises:
        ValueError: the shape of the images is not fixed.
    """
    check_fixed(network)
    exits = {}
    if not isinstance(network, keras.Sequential) and isinstance(network.output, dict):
        exits = {name: network.output[name] for name in exit_names(network)}
    outputs = list(exits.values()) or network.outputs
    run, held = uses(outputs), _held(outputs)
    rows: list[Row] = []
    counted: set[int] = set()
    for name, part in _parts(run, exits).items():
        rows.append(_row(name, part, held, counted))
        counted |= _weights(part).keys()
    rows += [_row(name, uses([logits]), _held([logits])) for name, logits in exits.items()]
    return [*rows, _row(network.name, run, held)]


def _parts(run, exits):
    """Part -> what runs for it; what several parts need is the first one's."""
    ends = {}
    for use in run:
        if re.fullmatch(r"stem|stage\d+", use.operation.name):
            ends[use.operation.name] = use.output_tensors
    ends |= {f"{name} head": [logits] for name, logits in list(exits.items())[:-1]}
    parts, taken = {}, set()
    for name, outputs in ends.items():
        parts[name] = [use for use in uses(outputs) if use not in taken]
        taken.update(parts[name])
    rest = [use for use in run if use not in taken]
    return parts | ({"head": rest} if rest else {})


def _weights(part):
    """The weights of what runs for a part, by their ids, without moving statistics."""
    weights = (w for use in part for w in getattr(use.operation, "weights", ()))
    return {id(w): w for w in weights if w.name not in _MOVING_STATISTICS}


def _row(name, part, held, counted=()):
    """The row of a part; the weights whose ids were `counted` are another one's."""
    return Row(
        name,
        parameters=sum(math.prod(w.shape) for i, w in _weights(part).items() if i not in counted),
        macs=sum(map(use_macs, part)),
        activation_bytes=max(held[use] for use in part),
    )


def _held(outputs, kept=()):
    """Use -> bytes of the feature maps that exist while it runs; `kept` are never dropped."""
    run = uses(outputs)
    last = {id(x): index for index, use in enumerate(run) for x in use.input_tensors}
    last |= {id(x): len(run) for x in (*outputs, *kept)}
    alive, held = {}, {}
    for index, use in enumerate(run):
        done = {id(x) for x in use.input_tensors if last[id(x)] == index}
        in_place = isinstance(use.operation, _IN_PLACE) and done
        held[use] = sum(alive.values()) + (0 if in_place else _own_bytes(use, done))
        alive |= {id(x): _bytes(x) for x in use.output_tensors if id(x) in last}
        for tensor in done:
            del alive[tensor]
    return held


def _own_bytes(use, done):
    """What an operation needs beside its inputs: its outputs, and what a nested network holds."""
    graph = inside(use)
    if graph is None:
        return sum(map(_bytes, use.output_tensors))
    held = _held(graph.outputs, () if done else graph.inputs)
    return max(held.values()) - sum(map(_bytes, use.input_tensors))


def _bytes(tensor):
    return math.prod(tensor.shape[1:]) * tf.as_dtype(tensor.dtype).size
