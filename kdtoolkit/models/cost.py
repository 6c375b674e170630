"""What a network costs to run."""

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import keras
from keras import layers

from kdtoolkit import _keras
from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit._types import Network, Tensor
from kdtoolkit.models.graph import class_name
from kdtoolkit.models.kinds import CONVOLUTIONS, DEPTHWISE, SEPARABLE, TRANSPOSED, sides

_ATTENTION = (layers.MultiHeadAttention, layers.GroupQueryAttention)
# Operations -> products in each value that they return, from their first two arguments.
_PRODUCTS_OF = {
    "Conv": lambda given, kernel: math.prod(kernel.shape[:-1]),
    "DepthwiseConv": lambda given, kernel: math.prod(kernel.shape[:-2]),
    "Dot": lambda given, other: given.shape[-1],
    "Matmul": lambda given, other: given.shape[-1],
}


def macs(network: Network) -> int:
    """Multiply-accumulate operations of convolutions, dense layers and attention for one image.

    Args:
        network: functional or sequential Keras model with inputs of a fixed shape.

    Returns:
        int. A layer counts each time it is used. Transposed convolutions count every product, those
        that `"same"` padding then cuts off too; attention its projections, scores and weighted
        sums, masked or not. What `SpectralNormalization` and `TimeDistributed` wrap counts as it
        does alone, the latter at each step; and so do `Dot` and, of `keras.ops`, `matmul`, `dot`,
        `einsum`, `conv` and `depthwise_conv`. All others count nothing: recurrent layers, other
        wrappers, layers and models with a `call` of one's own.

    Raises:
        ValueError: the shape of the images is not fixed.
    """
    check_fixed(network)
    return macs_of(network.outputs)


def trainable_parameters(network: Network) -> int:
    """Weights that training changes, those of frozen layers too."""
    return sum(map(_size, _keras.trained_variables(network)))


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
    if isinstance(layer, layers.SpectralNormalization):
        return use_macs(_Use(layer.layer, use.input_tensors, use.output_tensors), size)
    if isinstance(layer, layers.TimeDistributed):
        (given,) = use.input_tensors
        step = (map(_step, tensors) for tensors in (use.input_tensors, use.output_tensors))
        return given.shape[1] * use_macs(_Use(layer.layer, *map(list, step)), size)
    if isinstance(layer, SEPARABLE):
        kernels = size(layer.depthwise_kernel) + size(layer.pointwise_kernel)
        return _places(layer, use.output_tensors) * kernels
    # Each place of the input meets each weight of the kernel once.
    if isinstance(layer, TRANSPOSED):
        return _places(layer, use.input_tensors) * size(layer.kernel)
    # Each place of the output sees each weight of the kernel once, in groups or not.
    if isinstance(layer, (layers.Dense, *CONVOLUTIONS, *DEPTHWISE)):
        return _places(layer, use.output_tensors) * size(layer.kernel)
    if isinstance(layer, layers.EinsumDense):
        (given,) = use.input_tensors
        products = _products(layer.equation, [given.shape, layer.kernel.shape])
        return products // _size(layer.kernel) * size(layer.kernel)
    if isinstance(layer, _ATTENTION):
        return _attention_macs(use, size)
    if isinstance(layer, layers.Attention):  # without projections
        query, value = (each.shape for each in use.input_tensors[:2])
        return query[1] * value[1] * (query[-1] + value[-1])
    if isinstance(layer, layers.Dot):
        axis = layer.axes if isinstance(layer.axes, int) else layer.axes[0]
        return _count(use.output_tensors[0].shape) * use.input_tensors[0].shape[axis]
    if class_name(layer) in _PRODUCTS_OF:
        (output,) = use.output_tensors
        products = _PRODUCTS_OF[class_name(layer)](*use.arguments.args[:2])
        return _count(output.shape) * products
    if class_name(layer) == "Einsum":
        operands = [operand.shape for operand in use.arguments.args]
        return _products(layer.subscripts, operands) if len(operands) > 1 else 0
    return 0


class _Use(NamedTuple):
    """A call of a layer by another one, as one of `uses`."""

    operation: keras.Layer
    input_tensors: list
    output_tensors: list


def _step(tensor):
    """One step of a tensor `(batch, steps, ...)`."""
    return keras.KerasTensor((tensor.shape[0], *tensor.shape[2:]), tensor.dtype)


def _attention_macs(use, size):
    layer = use.operation
    arguments = use.arguments
    given = inspect.signature(layer.call).bind(*arguments.args, **arguments.kwargs).arguments
    queries, values = (_count(given[name].shape[:-1]) for name in ("query", "value"))
    dense = _keras.all_layers(layer, include_self=False)
    total = 0
    for each in dense:
        if isinstance(each, layers.EinsumDense):
            total += size(each.kernel) * (values if each.name in ("key", "value") else queries)
    config = layer.get_config()
    if isinstance(layer, layers.GroupQueryAttention):
        width = 2 * config["num_query_heads"] * config["head_dim"]
    else:
        key_width = config["key_dim"]
        width = config["num_heads"] * (key_width + (config["value_dim"] or key_width))
    # A place may attend to others along some axes alone.
    axes = config.get("attention_axes") or range(1, len(given["value"].shape) - 1)
    attended = _count(given["value"].shape[axis] for axis in axes)
    return total + queries * attended * width


def _products(equation, shapes):
    """Of an einsum: each index takes each of its values once."""
    sides = {}
    for indices, shape in zip(equation.split("->")[0].split(","), shapes, strict=True):
        before, dots, after = indices.strip().partition("...")
        last = len(shape) - len(after)
        sides |= dict(zip(before, shape, strict=False)) | dict(
            zip(after, shape[last:], strict=True)
        )
        if dots:
            sides[dots] = max(_count(shape[len(before) : last]), sides.get(dots, 1))
    return _count(sides.values())


def _count(shape):
    """Values of one image: its number in a batch is open."""
    return math.prod(side for side in shape if side is not None)


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
    return math.prod(sides(layer, tensor))


def _size(variable):
    return math.prod(variable.shape)
