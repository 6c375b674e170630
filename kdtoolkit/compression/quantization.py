"""Quantisation-aware training: networks that round in training as their int8 file rounds."""

import warnings

import keras
import numpy as np
import tensorflow as tf
from keras import activations, layers, ops

from kdtoolkit import _keras
from kdtoolkit._checks import BELOW_1, ArgumentError, Integers, Words, check
from kdtoolkit._types import Network, TensorLike
from kdtoolkit.compression.elementary import WEIGHTED, elementary
from kdtoolkit.models import quantized_layers as quantized
from kdtoolkit.models.contract import check_kernels
from kdtoolkit.models.copies import copied
from kdtoolkit.models.graph import (
    all_takers,
    called_twice,
    class_name,
    flatten,
    foldable,
    is_on_last_axis,
    name_apart,
    takers,
)
from kdtoolkit.models.input_range import scaling
from kdtoolkit.models.kinds import is_channels_first
from kdtoolkit.models.weights import put_weights

_ON_A_GRID_OF_THEIR_OWN = (
    "Add",
    "Concatenate",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "LeakyReLU",
    "Matmul",
    "Maximum",
    "Mean",
    "Minimum",
    "Multiply",
    "PReLU",
    "Subtract",
)
_CURVES_ON_A_GRID_OF_THEIR_OWN = (
    activations.exponential,
    activations.gelu,
    activations.hard_silu,
    activations.hard_tanh,
    activations.leaky_relu,
)
_RELUS = (activations.relu, activations.relu6)
# Operations that compute what an `Activation` does.
_FUNCTIONS = {
    "Exp": activations.exponential,
    "Gelu": activations.gelu,
    "HardSigmoid": activations.hard_sigmoid,
    "HardSilu": activations.hard_silu,
    "HardTanh": activations.hard_tanh,
    "LeakyRelu": activations.leaky_relu,
    "Relu": activations.relu,
    "Relu6": activations.relu6,
    "Sigmoid": activations.sigmoid,
    "Softmax": activations.softmax,
    "Tanh": activations.tanh,
}
_SCALING = ("BatchNormalization", "Normalization", "Rescaling")
# The converter moves the grid of what they are given into the operation before it. Of one that has
# no integers, such as ELU, it then makes a file that it refuses itself.
_OF_ONE_GRID = ("Concatenate", "Maximum", "Minimum")
# What the file runs as one operation with a ReLU behind it.
_TAKING_A_RELU = ("Add", "Conv2D", "Dense", "DepthwiseConv2D", "Multiply", *_SCALING)


def quantization_aware(
    network: Network, images: TensorLike, *, bits: int = 8, momentum: float = 0.99
) -> Network:
    """Returns a network that rounds in training as its int8 file will round.

    Every weight, and every activation that the file stores in integers, is fake-quantised. Batch
    normalisation is folded into the convolution or dense layer before it, once, with the moving
    statistics: what is trained is the kernel and the bias of the file. (Folding the statistics of
    each batch takes a second convolution in each step, and is ended by freezing them:
    Krishnamoorthi 2018.) One that follows no such layer becomes a 1x1 depthwise convolution, and so
    do `Rescaling` and `Normalization`, whose weights are not trained. A ReLU is one operation with
    the layer or addition before it, so only what it returns is rounded. Layers are split where the
    file has several operations.

    What LiteRT computes in floats alone, such as layer normalisation, attention, ELU and layers of
    one's own, stays in float: what it takes from other layers and returns to them is rounded, and
    nothing inside. A warning names these layers. The int8 file is a mixed one then.

    Layers keep their names, and their weights are copies. Any trainer takes the result: to distil
    into int8 is `Student(quantization_aware(student, images), teacher)`, with a learning rate like
    that of the student's last epochs. Exits are added before this, not after.

    Args:
        network: functional or sequential Keras model of one batch of images, channels last. The
            layers of models inside it count as its own: see `kdtoolkit.models.flatten`.
        images: a batch of its input, float `(n, height, width, channels)`, some hundred training
            images: the ranges of activations start with their extremes.
        bits: of weights and activations, 2 to 16. LiteRT files hold 8.
        momentum: of the ranges, in [0, 1), as for `FakeQuantize`.

    Returns:
        A functional `keras.Model` of float32, with the network's name, inputs and outputs. Import
        `kdtoolkit.models.quantized_layers` before a saved one is loaded.

    Warns:
        UserWarning: there are layers that stay in float.

    Raises:
        ValueError: the network has several inputs, or a layer that is called twice, has its
            channels first, cannot be copied, is quantised or fake-quantised already or has LoRA; or
            an argument is outside its range.
    """
    check("bits", bits, Integers(2, 16))
    check("momentum", momentum, BELOW_1)
    graph = flatten(network)
    if len(graph.inputs) != 1:
        received = Words(f"{network.name!r}, which has {len(graph.inputs)}")
        raise ArgumentError("network", "one input", received, must="have")
    if np.shape(images)[1:] != graph.input_shape[1:] or not len(images):
        shape = f"(n, {', '.join(map(str, graph.input_shape[1:]))})"
        accepted = f"a batch for {network.name!r}, of shape {shape}"
        raise ArgumentError("images", accepted, Words(f"shape {np.shape(images)}"))
    _check_layers(graph)
    graph = elementary(graph)
    rewriting = _Rewriting(graph, bits, momentum)
    image = keras.Input(graph.input_shape[1:], name=graph.inputs[0].name)
    outputs = rewriting.run(image)
    model = keras.Model(image, outputs, name=network.name)
    rewriting.copy_weights()
    _calibrate(model, tf.cast(images, tf.float32))
    if rewriting.floats:
        warnings.warn(
            f"{network.name!r}: LiteRT has no integers for these layers, which stay in float: "
            f"{', '.join(rewriting.floats)}",
            stacklevel=2,
        )
    return model


def _check_layers(graph):
    check_kernels(graph)
    twice = called_twice(graph)
    if twice is not None:
        _refuse(twice, ", called twice")
    for layer in graph.layers:
        if isinstance(layer, (quantized.FakeQuantize, quantized.FixedFakeQuantize)):
            _refuse(layer, ", of a network that is quantisation-aware already")
        if is_channels_first(layer):
            _refuse(layer, ", channels first")


def _refuse(operation, detail):
    accepted = "made of layers that are called once, channels last"
    received = Words(f"{type(operation).__name__} {operation.name!r}{detail}")
    raise ArgumentError("network", accepted, received)


class _Rewriting:
    """The graph of an elementary network, called anew with layers that round.

    Attributes:
        floats: class and name of what stays in float.
    """

    def __init__(self, graph, bits, momentum):
        self._graph, self._bits = graph, bits
        self._settings = {"bits": bits, "momentum": momentum}
        self._taker_of, self._takers_of = takers(graph), all_takers(graph)
        self._norms = foldable(graph, WEIGHTED, self._taker_of)
        self._folded = {norm.name for norm in self._norms.values()}
        self._role_of = {node.operation.name: _role(node) for node in _keras.nodes(graph)}
        self.floats = [
            f"{type(node.operation).__name__} {node.operation.name!r}"
            for node in _keras.nodes(graph)
            if self._role_of[node.operation.name] == "float"
        ]
        _extend_islands(graph, self._role_of, self._takers_of)
        self._names = {operation.name for operation in graph.operations}
        self._copies = []  # pairs of a layer and the one in its place
        # id of a tensor -> the tensor, of floats that are not on a grid; and, for those that are
        # needed, -> the tensor on a grid, or as floats again.
        self._floating, self._rounded, self._dequantized = {}, {}, {}

    def run(self, image):
        """Calls all layers; returns the outputs."""
        self._floating[id(image)] = image
        return _keras.run(self._graph, image, self._call)

    def copy_weights(self):
        for layer, copy in self._copies:
            if isinstance(copy, quantized.KERNELS):
                _copy_kernel(layer, self._norms.get(layer.name), copy)
            else:
                put_weights(copy, layer.get_weights())

    def _call(self, operation, *args, mask=None, **kwargs):
        name, role = operation.name, self._role_of[operation.name]
        if name in self._folded:
            return args[0]
        if role == "float":
            if mask is not None:
                kwargs["mask"] = mask
            args, kwargs = keras.tree.map_structure(self._as_floats, (args, kwargs))
            outputs = self._copied(operation)(*args, **kwargs)
            if any(class_name(taker) in _OF_ONE_GRID for taker in self._takers_of[name]):
                outputs = keras.tree.map_structure(self._ended, outputs)
            self._floating |= {id(tensor): tensor for tensor in keras.tree.flatten(outputs)}
            return outputs
        if role in ("weighted", "scale"):
            kwargs.pop("training", None)  # which is for the normalisation that is folded
        args, kwargs = keras.tree.map_structure(self._on_grids, (args, kwargs))
        norm = self._norms.get(name)
        fused = class_name(operation) in _TAKING_A_RELU
        stored = not (fused and _is_relu(self._taker_of[(norm or operation).name]))
        outputs = self._replacement(operation, role, norm, stored)(*args, **kwargs)
        if role == "fixed":
            grid = _fixed_grid(operation, self._bits)
            name = self._named(f"{name}_range")
            return quantized.FixedFakeQuantize(*grid, self._bits, name=name)(outputs)
        if role == "own" and stored:
            return self._range(f"{name}_range")(outputs)
        return outputs

    def _named(self, name):
        """A name for a new layer: this one, or with a number where another layer has it."""
        self._names.add(found := name_apart(name, self._names))
        return found

    def _range(self, name):
        return quantized.FakeQuantize(**self._settings, name=self._named(name))

    def _on_grids(self, value):
        """A tensor, or a constant, for an operation of integers."""
        if id(value) in self._floating and keras.backend.is_float_dtype(value.dtype):
            if id(value) not in self._rounded:
                self._rounded[id(value)] = self._range(_named_after(value, "range"))(value)
            return self._rounded[id(value)]
        constant = isinstance(value, (np.ndarray, tf.Tensor)) and np.ndim(value)
        if constant and keras.backend.is_float_dtype(keras.backend.standardize_dtype(value.dtype)):
            return quantized.fake_quantize_constant(value, self._bits)
        return value

    def _ended(self, value):
        """A tensor of floats, apart from the operation that returned it."""
        return quantized.Dequantize(name=self._named(_named_after(value, "floats")))(value)

    def _as_floats(self, value):
        """A tensor for an operation of floats."""
        if not isinstance(value, keras.KerasTensor) or id(value) in self._floating:
            return value
        if id(value) not in self._dequantized:
            name = self._named(_named_after(value, "dequantized"))
            layer = quantized.Dequantize(name=name)
            # Beside the tensor itself, whose id must stay its own.
            self._dequantized[id(value)] = value, layer(value)
        return self._dequantized[id(value)][1]

    def _replacement(self, operation, role, norm, stored):
        """The layer with the operation's name and, later, its weights."""
        name, settings = operation.name, {**self._settings, "quantize_output": stored}
        if role == "weighted":
            config = operation.get_config() | ({"use_bias": True} if norm else {})
            copy = getattr(quantized, f"Quantized{class_name(operation)}")(**config | settings)
        elif role == "scale":
            trained = class_name(operation) == "BatchNormalization" and operation.trainable
            copy = quantized.QuantizedScale(name=name, trainable=trained, **settings)
        elif role == "hard_sigmoid":
            return quantized.QuantizedHardSigmoid(self._bits, name=name)
        elif class_name(operation) == "ReLU" and role == "fixed":
            return layers.ReLU(name=name, dtype="float32")  # the grid ends where it does
        else:
            return self._copied(operation)
        self._copies.append((operation, copy))
        return copy

    def _copied(self, operation):
        if not isinstance(operation, layers.Layer):
            return operation
        copy = copied(operation)
        for layer in _keras.all_layers(copy):
            if layer.compute_dtype != layer.variable_dtype:  # mixed precision
                layer.dtype_policy = keras.DTypePolicy(layer.variable_dtype)
        self._copies.append((operation, copy))
        return copy


def _named_after(tensor, suffix):
    operation, _, index = _keras.history(tensor)
    return f"{operation.name}_{suffix}" + (f"_{index}" if index else "")


def _role(node):
    """How an operation runs in the file.

    Returns:
        `"weighted"`, with a kernel in integers; `"scale"`, as a 1x1 depthwise convolution;
        `"passing"`, on the grid of its input; `"own"`, on another one; `"fixed"`, on one that
        LiteRT gives, or that ends where a ReLU does; `"hard_sigmoid"`; `"input"`; or `"float"`.
    """
    operation, kind = node.operation, class_name(node.operation)
    if kind == "InputLayer":
        return "input"
    if kind in WEIGHTED:
        return "weighted"
    if kind in _SCALING:
        return "scale" if _scales_channels(operation) else "float"
    if quantized.passes_on(node):
        return "passing"
    if not _is_usual(node):
        return "float"
    function = _function(operation)
    if function is activations.hard_sigmoid:
        return "hard_sigmoid"
    if _fixed_grid(operation):
        return "fixed"
    leaky = kind == "ReLU" and operation.negative_slope and operation.max_value is None
    if kind in _ON_A_GRID_OF_THEIR_OWN or function in _CURVES_ON_A_GRID_OF_THEIR_OWN or leaky:
        return "own"
    if kind in ("Divide", "TrueDivide") and isinstance(node.arguments.args[0], keras.KerasTensor):
        return "own" if len(node.input_tensors) == 1 else "float"
    return "own" if _is_relu(operation) else "float"


def _is_usual(node):
    """Whether an operation is called in the way that LiteRT has integers for."""
    operation, kind = node.operation, class_name(node.operation)
    given = (*node.arguments.args[1:], *node.arguments.kwargs.values())
    if kind == "Softmax":
        axis = operation.axis
        last = axis in (-1, len(node.input_tensors[0].shape) - 1)
        return last and not any(value is not None for value in given)
    if kind == "ReLU":
        return not operation.threshold
    return True


def _function(operation):
    """What an activation computes; None for other operations."""
    kind = class_name(operation)
    return operation.activation if kind == "Activation" else _FUNCTIONS.get(kind)


def _is_relu(operation):
    """Whether an operation is a ReLU that runs as one with the operation before it."""
    if class_name(operation) == "ReLU":
        return not operation.negative_slope and not operation.threshold
    return _function(operation) in _RELUS


def _fixed_grid(operation, bits=8):
    """The ends of the grid that no image changes; None for other operations."""
    function = _function(operation)
    if function in (activations.sigmoid, activations.softmax):
        return 0.0, 1 - 2.0**-bits
    if function is activations.tanh:
        return -1.0, 1 - 2.0 ** (1 - bits)
    if class_name(operation) == "ReLU" and _is_relu(operation):
        bound = operation.max_value
        return None if bound in (None, 6) else (0.0, float(bound))
    return None


def _scales_channels(operation):
    if class_name(operation) == "BatchNormalization":
        return is_on_last_axis(operation)
    channels, found = operation.input.shape[-1], scaling(operation)
    return found is not None and all(
        values.size == 1 or values.shape[-1] == values.size == channels for values in found
    )


def _extend_islands(graph, role_of, takers_of):
    """Lets what passes values on between operations of floats be one of them."""
    nodes = list(_keras.nodes(graph))
    to_floats = {None: True}
    for node in reversed(nodes):
        name, role = node.operation.name, role_of[node.operation.name]
        among = all(to_floats[taker and taker.name] for taker in takers_of[name])
        to_floats[name] = role == "float" or (role == "passing" and among)
    for node in nodes:
        name = node.operation.name
        given = {role_of[_keras.operation_of(tensor).name] for tensor in node.input_tensors}
        if role_of[name] == "passing" and to_floats[name] and given <= {"float", "input"}:
            role_of[name] = "float"


def _copy_kernel(layer, norm, copy):
    """Gives a copy the layer's kernel and bias, with a normalisation in them if there is one."""
    if class_name(layer) == "BatchNormalization":
        kernel, bias = _gain_and_offset(layer)
    elif class_name(layer) in _SCALING:
        kernel, bias = (values.reshape(-1) for values in scaling(layer))
    else:
        kernel, bias = _float64(layer.kernel), _float64(layer.bias) if layer.use_bias else 0.0
    if norm:
        gain, offset = _gain_and_offset(norm)
        kernel, bias = kernel * _along_channels(gain, copy), bias * gain + offset
    shape = copy.kernel.shape
    copy.kernel.assign(np.broadcast_to(kernel, shape) if kernel.ndim < 2 else kernel)
    if copy.use_bias:
        copy.bias.assign(np.broadcast_to(bias, copy.bias.shape))


def _gain_and_offset(norm):
    """What a batch normalisation multiplies by, and then adds."""
    gain = _float64(norm.gamma) if norm.scale else 1.0
    gain = gain / np.sqrt(_float64(norm.moving_variance) + norm.epsilon)
    offset = _float64(norm.beta) if norm.center else 0.0
    return gain, offset - _float64(norm.moving_mean) * gain


def _along_channels(gain, layer):
    """The gains of a layer's output channels, in a shape that multiplies its kernel."""
    if isinstance(layer, quantized.QuantizedDepthwiseConv2D):
        return gain.reshape(layer.kernel.shape[-2:])
    return gain[:, None] if isinstance(layer, quantized.QuantizedConv2DTranspose) else gain


def _float64(variable):
    return ops.convert_to_numpy(variable).astype("float64")


def _calibrate(model, images):
    """Sets every range to the extremes of what it is given, one behind the other."""
    ranges = [
        layer for layer in _keras.all_layers(model) if isinstance(layer, quantized.FakeQuantize)
    ]
    try:
        for layer in ranges:
            layer.calibrating = True
        model(images, training=False)
    finally:
        for layer in ranges:
            layer.calibrating = False
