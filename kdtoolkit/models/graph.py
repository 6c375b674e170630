"""The operations of a functional network: what they are, and who takes what they return."""

import collections
import itertools

import keras


def class_name(operation):
    """Name of the operation's class; empty for a class that is not one of Keras' own.

    A subclass may compute anything.
    """
    own = type(operation)
    return own.__name__ if own.__module__.partition(".")[0] == "keras" else ""


def called_twice(network):
    """Returns the first operation that a functional network calls more than once, or None."""
    seen = set()
    for node in _nodes(network):
        if node.operation in seen:
            return node.operation
        seen.add(node.operation)
    return None


def takers(network):
    """Who alone takes what an operation returns.

    Args:
        network: functional, each of whose operations is called once.

    Returns:
        dict: name of each operation -> the one operation that takes what it returns; None where
        several do, or what it returns is an output of the network.
    """
    found = collections.defaultdict(list)
    for node in _nodes(network):
        for tensor in node.input_tensors:
            found[id(tensor)].append(node.operation)
    for tensor in network.outputs:
        found[id(tensor)].append(None)
    alone = {}
    for node in _nodes(network):
        after = found[id(node.output_tensors[0])]
        alone[node.operation.name] = after[0] if len(after) == 1 else None
    return alone


def foldable(network, kinds, taker_of):
    """Batch normalisations that can be a part of the linear layer before them.

    Args:
        network: functional.
        kinds: classes of such layers, by name.
        taker_of: of `takers`.

    Returns:
        dict: name of a layer of one of these kinds -> the batch normalisation of its channels, the
        last axis, which alone takes what it returns.
    """
    found = {}
    for layer in network.layers:
        last = getattr(layer, "data_format", "channels_last") == "channels_last"
        linear = class_name(layer) in kinds and layer.activation is keras.activations.linear
        if linear and last:
            taker = taker_of[layer.name]
            if class_name(taker) == "BatchNormalization" and is_on_last_axis(taker):
                found[layer.name] = taker
    return found


def is_on_last_axis(normalization):
    """Whether a batch normalisation is of the last axis of its input."""
    return normalization.axis in (-1, len(normalization.input.shape) - 1)


def _nodes(network):
    return itertools.chain.from_iterable(network._nodes_by_depth.values())
