"""What a network costs to run."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import keras
from keras import layers

from kdtoolkit import _keras
from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit._types import Network, Tensor


def macs(network: Network) -> int:
    """Multiply-accumulate operations of the 2-D convolutions and dense layers for one image.

    Args:
        network: functional or sequential Keras model with inputs of a fixed shape.

    Returns:
        int. A layer counts each time it is used. Transposed convolutions count every product, those
        that `"same"` padding then cuts off too. Layers and models with a `call` of one's own count
        nothing.

    Raises:
        ValueError: the shape of the images is not fixed.
    """
    check_fixed(network)
    return macs_of(network.outputs)


def trainable_parameters(network: Network) -> int:
    """Weights that training changes."""
    return sum(map(_size, network.trainable_variables))


def check_fixed(network):
    """Raises an `ArgumentError` unless the shape of what a network takes is fixed."""
    for image in network.inputs:
        if None in image.shape[1:]:
            received = Words(f"{network.name!r}, which takes {image.shape}")
            raise ArgumentError("network", "inputs of a fixed shape", received, must="take")


def macs_of(outputs: Iterable[Tensor], size: Callable[[Any], int] | None = None) -> int:
    """Multiply-accumulates of all that some outputs need, tensors of a functional model.

    Args:
        outputs: the tensors.
        size: of a variable: the number of its values, where that is to be another one.
    """
    return sum(use_macs(use, size or _size) for use in uses(outputs))


def uses(outputs):
    """Returns what runs for some outputs, in the order of running.

    An operation comes right after what it needs, and what the first output needs comes first: the
    order of a network that may stop at an exit.

    Args:
        outputs: tensors of a functional model.

    Returns:
        A list of Keras' nodes, with `operation`, `input_tensors` and `output_tensors`; one for each
        time that a layer is used.
    """
    ordered, found = [], set()
    waiting = [_keras.node_of(output) for output in reversed(outputs)]
    while waiting:
        node = waiting[-1]
        needed = map(_keras.node_of, node.input_tensors)
        missing = [each for each in needed if each not in found]
        waiting.extend(reversed(missing))
        if not missing:
            waiting.pop()
            if node not in found:
                found.add(node)
                ordered.append(node)
    return ordered


def use_macs(use, size=None):
    """Multiply-accumulates of one of `uses`, of a nested network too; `size` as for `macs_of`."""
    size = size or _size
    layer, graph = use.operation, inside(use)
    if graph is not None:
        return macs_of(graph.outputs, size)
    if isinstance(layer, layers.SeparableConv2D):
        kernels = size(layer.depthwise_kernel) + size(layer.pointwise_kernel)
        return _places(layer, use.output_tensors) * kernels
    # Each place of the input meets each weight of the kernel once.
    if isinstance(layer, layers.Conv2DTranspose):
        return _places(layer, use.input_tensors) * size(layer.kernel)
    # Each place of the output sees each weight of the kernel once, in groups or not.
    if isinstance(layer, (layers.Dense, layers.Conv2D, layers.DepthwiseConv2D)):
        return _places(layer, use.output_tensors) * size(layer.kernel)
    return 0


def inside(use):
    """The graph of a nested network in one of `uses`; None for any other operation.

    It is called anew, on the shapes that it is given there: its own may be open.
    """
    if not getattr(use.operation, "outputs", None):  # a model with a `call` alone has no graph
        return None
    network = keras.Model(use.operation.inputs, use.operation.outputs)
    inputs = [
        keras.Input(batch_shape=given.shape, dtype=own.dtype)
        for given, own in zip(use.input_tensors, network.inputs, strict=True)
    ]

    def call(operation, *args, **kwargs):
        return operation(*args, **kwargs)

    return keras.Model(inputs, _keras.run(network, inputs, call))


def _places(layer, tensors):
    (tensor,) = tensors
    first = getattr(layer, "data_format", "channels_last") == "channels_first"
    return math.prod(tensor.shape[2:] if first else tensor.shape[1:-1])


def _size(variable):
    return math.prod(variable.shape)
