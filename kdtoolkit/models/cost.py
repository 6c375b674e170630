"""What a network costs to run."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import keras
from keras import layers

from kdtoolkit._keras import node_of
from kdtoolkit._types import Network, Tensor


def macs(network: Network) -> int:
    """Multiply-accumulate operations of the 2-D convolutions and dense layers for one image.

    Args:
        network: functional or sequential Keras model with inputs of a fixed shape.

    Returns:
        int. A layer counts each time it is used. Transposed convolutions count every product, those
        that `"same"` padding then cuts off too.
    """
    return macs_of(network.outputs)


def trainable_parameters(network: Network) -> int:
    """Weights that training changes."""
    return sum(map(_size, network.trainable_variables))


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
    waiting = [node_of(output) for output in reversed(outputs)]
    while waiting:
        node = waiting[-1]
        missing = [node_of(x) for x in node.input_tensors if node_of(x) not in found]
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
    layer, places = use.operation, math.prod(use.output_tensors[0].shape[1:-1])
    if isinstance(layer, keras.Model):
        return macs_of(layer.outputs, size)
    if isinstance(layer, layers.SeparableConv2D):
        return places * (size(layer.depthwise_kernel) + size(layer.pointwise_kernel))
    # Each place of the input meets each weight of the kernel once.
    if isinstance(layer, layers.Conv2DTranspose):
        return math.prod(use.input_tensors[0].shape[1:-1]) * size(layer.kernel)
    # Each place of the output sees each weight of the kernel once, in groups or not.
    if isinstance(layer, (layers.Dense, layers.Conv2D, layers.DepthwiseConv2D)):
        return places * size(layer.kernel)
    return 0


def _size(variable):
    return math.prod(variable.shape)
