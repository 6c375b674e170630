"""Which channels of a network depend on each other.

Every channel of every tensor gets a number. What passes channels on passes their numbers on, a
concatenation concatenates them, and an addition ties those that it adds: if one of them goes, all
of them go. What a layer with weights reads and returns says along which axis of which weight its
channels lie.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

from kdtoolkit import _keras
from kdtoolkit.models.contract import check_kernels
from kdtoolkit.models.graph import class_name, flatten

# Names of Keras' own classes. A subclass may compute anything, so it is not meant.
_SAME_CHANNELS = {
    "ActivityRegularization",
    "AveragePooling2D",
    "Cropping2D",
    "GaussianDropout",
    "GaussianNoise",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling2D",
    "Identity",
    "MaxPooling2D",
    "SpatialDropout2D",
    "UpSampling2D",
    "ZeroPadding2D",
}
_ARITHMETIC = {"Add", "Maximum", "Minimum", "Multiply", "Subtract"}  # as layers and operations
# Functions of one number. Softmax, for one, is not: each channel depends on all.
_ELEMENTWISE = {
    "celu",
    "elu",
    "exponential",
    "gelu",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "leaky_relu",
    "linear",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softplus",
    "softsign",
    "tanh",
}
# As operations they are classes: `HardSigmoid`, as layers `ReLU`.
_ELEMENTWISE_CLASSES = {name.replace("_", "") for name in _ELEMENTWISE}


@dataclass(frozen=True)
class Effect:
    """What an operation does to channels.

    Attributes:
        outputs: numbers of the channels that it returns.
        parts: the same, tensor by tensor, where it returns several.
        slices: triples of one of its variables, an axis, and the numbers of the channels on it.
        config: maps a function that counts how many of some channels stay to the entries of the
            operation's config that follow from it; None if there are none.
        filters: whether it makes new channels.
        scale: whether it is a batch normalisation with a scale.
    """

    outputs: np.ndarray
    parts: tuple = ()
    slices: tuple = ()
    config: Callable | None = None
    filters: bool = False
    scale: bool = False


@dataclass(frozen=True)
class ChannelGraph:
    """The channels of a network.

    Attributes:
        network: functional model that shares the layers of the one that was given, `flatten`ed.
        effects: name of an operation that is understood -> its `Effect`.
        roots: int array: number of a channel -> the number that stands for all tied to it.
        fixed: bool array: number of a channel -> whether it must stay.
        unknown: descriptions of the operations that are not understood.
        alive: bool array: number of a channel -> whether the network has it still.
        original: the graph of the network before any channel went; None where none has gone.
    """

    network: keras.Model
    effects: dict
    roots: np.ndarray
    fixed: np.ndarray
    unknown: tuple
    alive: np.ndarray
    original: ChannelGraph | None = None


def filters(layer):
    """The variable of a convolution or dense layer whose last axis makes new channels."""
    return layer.pointwise_kernel if class_name(layer) == "SeparableConv2D" else layer.kernel


def analyse(network):
    """Returns the `ChannelGraph` of a functional or sequential Keras model.

    Raises:
        ValueError: the network is neither, or not built, or has layers that Keras has quantised, or
            with LoRA.
    """
    network = _uncompiled(flatten(network))
    check_kernels(network)
    channels, effects, unknown, of = _Channels(), {}, {}, {}
    for node in _keras.nodes(network):
        operation = node.operation
        inputs = [of[id(tensor)] for tensor in node.input_tensors]
        effect = _effect(operation, node, inputs, channels)
        if effect is None:
            if not node.is_input:
                unknown[f"{type(operation).__name__} {operation.name!r}"] = None
            channels.fix(*inputs)
            for tensor in node.output_tensors:
                of[id(tensor)] = channels.new(tensor.shape[-1] if tensor.shape else 0)
                channels.fix(of[id(tensor)])
            continue
        first = effects.setdefault(operation.name, effect)
        if first is not effect:  # Called again, with the same weights and config.
            for (*_, one), (*_, other) in zip(first.slices, effect.slices, strict=True):
                channels.tie(one, other)
            if first.config:
                channels.tie(first.outputs, effect.outputs)
        parts = effect.parts or (effect.outputs,)
        of.update(zip(map(id, node.output_tensors), parts, strict=True))
    channels.fix(*(of[id(tensor)] for tensor in network.outputs))
    roots, fixed = channels.resolve()
    return ChannelGraph(network, effects, roots, fixed, tuple(unknown), np.ones(len(roots), bool))


def narrowed(graph, network, alive):
    """Returns the `ChannelGraph` of a network that lost channels, which keep their numbers.

    That of `analyse` may be another one. A grouped convolution whose groups are left with a channel
    each would be taken for a depthwise one, for example, whose channels depend on each other in
    another way.

    Args:
        graph: of the network before.
        network: functional model of its layers, without those channels; perhaps trained.
        alive: as the attribute.
    """

    def left(channels):
        return channels[alive[channels]]

    effects = {}
    for name, effect in graph.effects.items():
        slices = []
        for variable, axis, channels in effect.slices:
            number = weight_number(graph.network.get_layer(name), variable)
            slices.append((network.get_layer(name).weights[number], axis, left(channels)))
        effects[name] = dataclasses.replace(
            effect,
            outputs=left(effect.outputs),
            parts=tuple(map(left, effect.parts)),
            slices=tuple(slices),
        )
    return dataclasses.replace(
        graph,
        network=_uncompiled(network),
        effects=effects,
        alive=alive,
        original=graph.original or graph,
    )


def weight_number(layer, variable):
    """The place of a variable among a layer's weights."""
    return next(number for number, weight in enumerate(layer.weights) if weight is variable)


def _uncompiled(network):
    """The same graph as another model: copies of a compiled one would be compiled."""
    return keras.Model(network.input, network.output, name=network.name)


class _Channels:
    """Numbers of channels, and which of them are tied."""

    def __init__(self):
        self._parents, self._fixed = [], []

    def new(self, count):
        """Numbers for as many new channels; none for an axis of unknown size."""
        start = len(self._parents)
        self._parents.extend(range(start, start + (count or 0)))
        return np.arange(start, len(self._parents))

    def tie(self, first, *others):
        """Ties the channels of arrays, place by place."""
        for other in others:
            for a, b in zip(first, other, strict=True):
                self._parents[self._root(a)] = self._root(b)

    def fix(self, *arrays):
        """These channels, and what is tied to them, stay."""
        self._fixed.extend(itertools.chain.from_iterable(arrays))

    def resolve(self):
        """`roots` and `fixed` of a `ChannelGraph`."""
        roots = np.array([self._root(number) for number in range(len(self._parents))], int)
        fixed = np.isin(roots, [self._root(number) for number in self._fixed])
        return roots, fixed

    def _root(self, number):
        while self._parents[number] != number:
            self._parents[number] = number = self._parents[self._parents[number]]
        return number


def _effect(operation, node, inputs, channels):
    """The effect of a call, or None if it is not understood."""
    kind = class_name(operation)
    if node.is_input or getattr(operation, "data_format", "channels_last") != "channels_last":
        return None
    if kind in _SAME_CHANNELS or kind.lower() in _ELEMENTWISE_CLASSES or kind == "Activation":
        return Effect(inputs[0]) if _is_elementwise(operation) else None
    if kind in _ARITHMETIC:
        return _arithmetic(node, inputs, channels)
    rule = _RULES.get(kind)
    return rule(operation, node, inputs, channels) if rule else None


def _is_elementwise(operation):
    activation = getattr(operation, "activation", keras.activations.linear)
    return getattr(activation, "__name__", "") in _ELEMENTWISE


def _producer(operation, outputs, slices, config, channels):
    if operation.use_bias:
        slices += ((operation.bias, 0, outputs),)
    if not _is_elementwise(operation):
        channels.fix(outputs)
    return Effect(outputs, slices=slices, config=config, filters=True)


def _dense(operation, node, inputs, channels):
    outputs = channels.new(operation.units)
    slices = ((operation.kernel, 0, inputs[0]), (operation.kernel, 1, outputs))
    return _producer(operation, outputs, slices, lambda count: {"units": count(outputs)}, channels)


def _conv(operation, node, inputs, channels):
    taken, groups = inputs[0], operation.groups
    if groups == len(taken) > 1:
        return _depthwise(operation, node, inputs, channels)
    outputs = channels.new(operation.filters)
    # All groups share the kernel's input axis, and return as many channels each: the same place
    # goes in each group.
    channels.tie(*taken.reshape(groups, -1))
    channels.tie(*outputs.reshape(groups, -1))
    slices = (
        (operation.kernel, -2, taken[: len(taken) // groups]),
        (operation.kernel, -1, outputs),
    )
    return _producer(
        operation, outputs, slices, lambda count: {"filters": count(outputs)}, channels
    )


def _separable(operation, node, inputs, channels):
    outputs = channels.new(operation.filters)
    slices = (
        (operation.depthwise_kernel, -2, inputs[0]),
        (operation.pointwise_kernel, -2, np.repeat(inputs[0], operation.depth_multiplier)),
        (operation.pointwise_kernel, -1, outputs),
    )
    return _producer(
        operation, outputs, slices, lambda count: {"filters": count(outputs)}, channels
    )


def _depthwise(operation, node, inputs, channels):
    """One filter, or several, for each channel: it goes with the channel."""
    taken = inputs[0]
    outputs = np.repeat(taken, node.output_tensors[0].shape[-1] // len(taken))
    if not _is_elementwise(operation):
        channels.fix(outputs)
    config, slices = None, ((operation.kernel, -2, taken),)
    if class_name(operation) == "Conv2D":  # with as many groups as channels
        slices = ((operation.kernel, -1, outputs),)

        def config(count):
            return {"filters": count(outputs), "groups": count(taken)}

    if operation.use_bias:
        slices += ((operation.bias, 0, outputs),)
    return Effect(outputs, slices=slices, config=config)


def _batch_norm(operation, node, inputs, channels):
    if operation.axis not in (-1, len(node.input_tensors[0].shape) - 1):
        return None
    return Effect(
        inputs[0],
        slices=tuple((variable, 0, inputs[0]) for variable in operation.weights),
        scale=operation.scale,
    )


def _prelu(operation, node, inputs, channels):
    shared = operation.alpha.shape[-1] != len(inputs[0])
    return Effect(inputs[0], slices=() if shared else ((operation.alpha, -1, inputs[0]),))


def _arithmetic(node, inputs, channels):
    width = max(map(len, inputs))
    arguments = (*node.arguments.args, *node.arguments.kwargs.values())
    if any(map(_holds_array, arguments)) or not {1, width}.issuperset(map(len, inputs)):
        return None  # A constant for each channel would have to shrink, too.
    wide = [numbers for numbers in inputs if len(numbers) == width]
    channels.tie(*wide)
    channels.fix(*(numbers for numbers in inputs if len(numbers) < width))  # for all the others
    return Effect(wide[0])


def _holds_array(argument):
    leaves = keras.tree.flatten(argument)
    tensors = sum(isinstance(leaf, keras.KerasTensor) for leaf in leaves)
    return tensors < len(leaves) if tensors else np.ndim(argument) > 0


def _concatenate(operation, node, inputs, channels):
    if operation.axis in (-1, len(node.output_tensors[0].shape) - 1):
        return Effect(np.concatenate(inputs))
    channels.tie(*inputs)
    return Effect(inputs[0])


def _pad(operation, node, inputs, channels):
    before, after = operation.pad_width[-1]
    if not before and not after:
        return Effect(inputs[0])
    if operation.mode != "constant" or len(operation.pad_width) == 1:
        return None
    first, last = channels.new(before), channels.new(after)
    return Effect(
        np.concatenate([first, inputs[0], last]),
        config=lambda count: {
            "pad_width": (*operation.pad_width[:-1], (count(first), count(last)))
        },
    )


def _split(operation, node, inputs, channels):
    tensors = node.output_tensors
    if operation.axis not in (-1, len(tensors[0].shape) - 1):
        return Effect(inputs[0], parts=(inputs[0],) * len(tensors))
    ends = np.cumsum([tensor.shape[-1] for tensor in tensors])[:-1]
    return Effect(
        inputs[0],
        parts=tuple(np.split(inputs[0], ends)),
        config=lambda count: {"indices_or_sections": [count(inputs[0][:end]) for end in ends]},
    )


def _dropout(operation, node, inputs, channels):
    shape = operation.noise_shape  # which may have a side for the channels
    if shape is None or shape[-1] in (None, 1):
        return Effect(inputs[0])
    return Effect(inputs[0], config=lambda count: {"noise_shape": (*shape[:-1], count(inputs[0]))})


def _reshape(operation, node, inputs, channels):
    """Keeps channels apart if the last axis holds whole pixels: place j is of channel j mod C."""
    places, width = node.output_tensors[0].shape[-1], len(inputs[0])
    if not width or places is None or places % width:
        return None
    outputs = np.tile(inputs[0], places // width)
    key = "target_shape" if isinstance(operation, keras.layers.Layer) else "newshape"
    target = getattr(operation, key, (-1,))  # a `Flatten` has none
    if target[-1] == -1:
        return Effect(outputs)
    return Effect(outputs, config=lambda count: {key: (*target[:-1], count(outputs))})


_RULES = {
    "BatchNormalization": _batch_norm,
    "Concatenate": _concatenate,
    "Conv2D": _conv,
    "Dense": _dense,
    "DepthwiseConv2D": _depthwise,
    "Dropout": _dropout,
    "Flatten": _reshape,
    "PReLU": _prelu,
    "Pad": _pad,
    "Reshape": _reshape,
    "SeparableConv2D": _separable,
    "Split": _split,
}
