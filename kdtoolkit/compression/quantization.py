"""Quantisation-aware training: networks that round in training as their int8 file rounds.

A fake-quantised tensor is a float tensor whose values lie on the grid that integers and a scale
span. Gradients pass through the rounding unchanged, and are zero outside the grid's range (Jacob et
al., CVPR 2018). The LiteRT converter takes the grids over from the operations that drew them.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from kdtoolkit.models.graph import (
    called_twice,
    class_name,
    flatten,
    foldable,
    is_on_last_axis,
    takers,
)

# A channel whose weights are all next to nothing gets a grid as coarse as this fraction of the
# kernel's largest weight: it disappears in the rounding of its neighbours' output, and its bias,
# stored as an integer in units of the channel's grid, would overflow on a finer one.
_SMALLEST_CHANNEL = 2.0**-12
# Where nothing but zeros passes, the grid must have some width, and the bias of the next layer, in
# units of it, must not overflow.
_LEAST_MAXIMUM = 1e-4
# TensorFlow divides a range by its number of steps and multiplies again, which in float32 can end
# below the largest weight: outside the range, that weight would receive no gradient.
_MARGIN = 1 + 2.0**-22


@keras.saving.register_keras_serializable(package="kdtoolkit")
class FakeQuantize(layers.Layer):
    """Puts activations on the grid between two moving averages of their extremes.

    In training, `minimum` and `maximum` follow the extremes of each batch, zero included: `m <-
    momentum * m + (1 - momentum) * extreme`. The batch is rounded to the grid of the new values.
    Replicas of a strategy store the mean of theirs.

    Args:
        bits: of a value, 2 to 16.
        momentum: of the averages, in [0, 1).
        **kwargs: of the layer. It computes in float32 under every policy.

    Call arguments:
        inputs: tensor of any shape.
        training: whether the averages move.
    """

    def __init__(self, bits=8, momentum=0.99, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.bits = bits
        self.momentum = momentum
        self.calibrating = False

    def build(self, input_shape):
        self.minimum, self.maximum = (
            self.add_weight(
                name=name, shape=(), initializer="zeros", trainable=False, aggregation="mean"
            )
            for name in ("minimum", "maximum")
        )

    def call(self, inputs, training=None):
        if training or self.calibrating:
            momentum = 0.0 if self.calibrating else self.momentum
            # Zero is a point of every grid: it is what padding and ReLU return.
            lowest = tf.minimum(tf.reduce_min(inputs), 0.0)
            highest = tf.maximum(tf.reduce_max(inputs), _LEAST_MAXIMUM)
            for variable, extreme in ((self.minimum, lowest), (self.maximum, highest)):
                variable.assign(momentum * variable.value + (1 - momentum) * extreme)
        return tf.quantization.fake_quant_with_min_max_vars(
            inputs, self.minimum.value, self.maximum.value, num_bits=self.bits
        )

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor(inputs.shape, dtype="float32")

    def get_config(self):
        return {**super().get_config(), "bits": self.bits, "momentum": self.momentum}


class _FakeQuantizedKernel:
    """A layer with a fake-quantised kernel and, where it is stored, output.

    Each output channel of the kernel has a symmetric grid up to its largest weight. The bias, 32
    bits in a file, stays as it is.

    Args:
        bits, momentum: as for `FakeQuantize`.
        quantize_output: whether the output is fake-quantised; not where a ReLU follows, which runs
            as one operation with the layer.
        **kwargs: of the Keras layer. It computes in float32 under every policy.
    """

    def __init__(self, *args, bits=8, momentum=0.99, quantize_output=True, **kwargs):
        super().__init__(*args, **{**kwargs, "dtype": "float32"})
        self.bits = bits
        self.momentum = momentum
        self.output_range = FakeQuantize(bits, momentum, name="range") if quantize_output else None

    def build(self, input_shape):
        super().build(input_shape)
        if self.output_range:
            self.output_range.build(None)

    def call(self, inputs, training=None):
        outputs = self._multiply(inputs)
        if self.use_bias:
            outputs = outputs + self.bias
        outputs = self.activation(outputs)
        return self.output_range(outputs, training=training) if self.output_range else outputs

    def get_config(self):
        return {
            **super().get_config(),
            "bits": self.bits,
            "momentum": self.momentum,
            "quantize_output": self.output_range is not None,
        }


@keras.saving.register_keras_serializable(package="kdtoolkit")
class QuantizedConv2D(_FakeQuantizedKernel, layers.Conv2D):
    __doc__ = _FakeQuantizedKernel.__doc__

    def _multiply(self, inputs):
        return self.convolution_op(inputs, fake_quantize_kernel(self.kernel, self.bits))


@keras.saving.register_keras_serializable(package="kdtoolkit")
class QuantizedDepthwiseConv2D(_FakeQuantizedKernel, layers.DepthwiseConv2D):
    __doc__ = _FakeQuantizedKernel.__doc__

    def _multiply(self, inputs):
        height, width, channels, multiplier = self.kernel.shape
        kernel = ops.reshape(self.kernel, (height, width, channels * multiplier))
        return ops.depthwise_conv(
            inputs,
            ops.reshape(fake_quantize_kernel(kernel, self.bits), self.kernel.shape),
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
        )


@keras.saving.register_keras_serializable(package="kdtoolkit")
class QuantizedDense(_FakeQuantizedKernel, layers.Dense):
    __doc__ = _FakeQuantizedKernel.__doc__

    def _multiply(self, inputs):
        # As a 1x1 convolution: the converter refuses matrix products with a grid for each channel.
        pixels = ops.reshape(inputs, (-1, 1, 1, inputs.shape[-1]))
        kernel = fake_quantize_kernel(
            ops.reshape(self.kernel, (1, 1, *self.kernel.shape)), self.bits
        )
        return ops.reshape(ops.conv(pixels, kernel), (-1, *inputs.shape[1:-1], self.units))


def fake_quantize_kernel(kernel, bits=8):
    """Rounds each output channel of a kernel to a symmetric grid up to its largest weight.

    Args:
        kernel: float32 tensor `(..., channels)`.
        bits: of a weight, 2 to 16; at most `2^(bits - 1) - 1` steps from zero, either way.

    Returns:
        A tensor of the same shape.
    """
    kernel = tf.convert_to_tensor(kernel)
    largest = tf.reduce_max(tf.abs(kernel), axis=range(len(kernel.shape) - 1))
    overall = tf.reduce_max(largest)
    least = _SMALLEST_CHANNEL * tf.where(overall > 0, overall, 1.0)
    bound = tf.stop_gradient(_MARGIN * tf.maximum(largest, least))
    return tf.quantization.fake_quant_with_min_max_vars_per_channel(
        kernel, -bound, bound, num_bits=bits, narrow_range=True
    )


_WEIGHTED = {
    "Conv2D": QuantizedConv2D,
    "Dense": QuantizedDense,
    "DepthwiseConv2D": QuantizedDepthwiseConv2D,
}
# What returns values of its input, zeros, or averages that the file rounds to the grid of the
# input, needs no range.
_ON_THE_GRID_OF_THEIR_INPUT = (
    "AveragePooling2D",
    "Cropping2D",
    "Dropout",
    "Flatten",
    "MaxPooling2D",
    "Pad",
    "Reshape",
    "SpatialDropout2D",
    "UpSampling2D",
    "ZeroPadding2D",
)
_ON_A_GRID_OF_THEIR_OWN = (
    "Activation",
    "Add",
    "Concatenate",
    "GlobalAveragePooling2D",
    "Multiply",
    "ReLU",
)
# What the file runs as one operation with a ReLU behind it.
_TAKING_A_RELU = (*_WEIGHTED, "Add", "BatchNormalization", "Multiply")
_SUPPORTED = sorted(
    (*_WEIGHTED, *_ON_THE_GRID_OF_THEIR_INPUT, *_ON_A_GRID_OF_THEIR_OWN, "BatchNormalization")
)
_RELUS = (keras.activations.relu, keras.activations.relu6)
_FUSED = (keras.activations.linear, *_RELUS)
_CURVES = (keras.activations.sigmoid, keras.activations.tanh)


def quantization_aware(network, images, *, bits=8, momentum=0.99):
    """Returns a network that rounds in training as its int8 file will round.

    Every weight, and every activation that the file stores, is fake-quantised. Batch normalisation
    is folded into the convolution or dense layer before it, once, with the moving statistics: what
    is trained is the kernel and the bias of the file. (Folding the statistics of each batch takes a
    second convolution in each step, and is ended by freezing them: Krishnamoorthi 2018.) One that
    follows no such layer becomes a 1x1 depthwise convolution. A ReLU is one operation with the
    layer or addition before it, so only what it returns is rounded. An `Activation` of silu becomes
    a sigmoid and a product.

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
        this module before a saved one is loaded.

    Raises:
        ValueError: a layer cannot be quantised, which is named, or an argument is outside its
            range.
    """
    if not 2 <= bits <= 16:
        raise ValueError(f"Argument `bits` must be from 2 to 16. Received: bits={bits}")
    if not 0 <= momentum < 1:
        raise ValueError(f"Argument `momentum` must be in [0, 1). Received: momentum={momentum}")
    graph = flatten(network)
    if len(graph.inputs) != 1:
        raise ValueError(
            f"Argument `network` must have one input. Received: {network.name!r}, which has "
            f"{len(graph.inputs)}"
        )
    if np.shape(images)[1:] != graph.input_shape[1:] or not len(images):
        raise ValueError(
            f"Argument `images` must be a batch for {network.name!r}, of shape (n, "
            f"{', '.join(map(str, graph.input_shape[1:]))}). Received: shape {np.shape(images)}"
        )
    twice = called_twice(graph)
    if twice is not None:
        _refuse(twice, ", called twice")
    taker_of = takers(graph)
    norms = foldable(graph, _WEIGHTED, taker_of)
    folded = {norm.name for norm in norms.values()}
    settings = {"bits": bits, "momentum": momentum}
    layer_of, range_of, gate_of = {}, {}, {}

    def replace(operation):
        name = operation.name
        if name in folded:
            return operation
        norm = norms.get(name)
        kind = class_name(operation)
        stored = kind not in _TAKING_A_RELU or not _is_relu(taker_of[(norm or operation).name])
        if stored and kind in _ON_A_GRID_OF_THEIR_OWN and not _is_curve(operation):
            range_of[name] = FakeQuantize(**settings, name=f"{name}_range")
        if _is_silu(operation):
            gate_of[name] = layers.Activation("sigmoid", name=f"{name}_sigmoid", dtype="float32")
        layer_of[name] = _replacement(operation, norm, quantize_output=stored, **settings)
        return layer_of[name]

    def call(layer, *args, mask=None, **kwargs):  # images have no mask
        if layer.name in folded:
            return args[0]
        if layer.name in gate_of:
            args = ([args[0], gate_of[layer.name](args[0])],)
        outputs = layer(*args, **kwargs)
        return range_of[layer.name](outputs) if layer.name in range_of else outputs

    image = keras.Input(graph.input_shape[1:], name=graph.inputs[0].name)
    start = FakeQuantize(**settings, name=f"{image.name}_range")(image)
    outputs = graph._run_through_graph(start, operation_fn=replace, call_fn=call)
    model = keras.Model(image, outputs, name=network.name)
    for layer in graph.layers:
        if isinstance(layer_of.get(layer.name), _FakeQuantizedKernel):
            _copy_weights(layer, norms.get(layer.name), layer_of[layer.name])
    _calibrate(model, tf.cast(images, tf.float32))
    return model


def _is_relu(operation):
    """Whether an operation is a ReLU that runs as one with the operation before it."""
    if class_name(operation) == "ReLU":
        plain = not operation.negative_slope and not operation.threshold
        return plain and operation.max_value in (None, 6)
    return class_name(operation) == "Activation" and operation.activation in _RELUS


def _is_curve(operation):
    """Whether LiteRT has a fixed grid, 1/256 or 1/128 fine, for what an operation returns.

    Another one behind it is more than the converter understands in front of a concatenation.
    """
    return class_name(operation) == "Activation" and operation.activation in _CURVES


def _is_silu(operation):
    """Whether an operation is `x * sigmoid(x)`, which the file computes and rounds as such."""
    return class_name(operation) == "Activation" and operation.activation is keras.activations.silu


def _replacement(operation, norm, **settings):
    """What takes the place of an operation, without its weights: quantised if it has a kernel."""
    kind = class_name(operation)
    if kind == "BatchNormalization":
        if not is_on_last_axis(operation) or len(operation.input.shape) != 4:
            _refuse(operation, ", not on the channels of images")
        return QuantizedDepthwiseConv2D(1, name=operation.name, **settings)
    if kind not in _SUPPORTED:
        _refuse(operation)
    if not isinstance(operation, layers.Layer):
        return operation
    config = {**operation.get_config(), "dtype": "float32"}
    if config.get("data_format", "channels_last") != "channels_last":
        _refuse(operation, ", channels first")
    if kind == "ReLU" and not _is_relu(operation):
        _refuse(operation, ", not a plain ReLU, nor one up to 6")
    if _is_silu(operation):
        return layers.Multiply(name=operation.name, dtype="float32")
    activation = getattr(operation, "activation", keras.activations.linear)
    if activation not in (_FUSED if kind in _WEIGHTED else _FUSED + _CURVES):
        _refuse(operation, f", with activation {activation.__name__}")
    if kind not in _WEIGHTED:
        return type(operation).from_config(config)
    if norm:
        config["use_bias"] = True
    return _WEIGHTED[kind](**{**config, **settings})


def _refuse(operation, detail=""):
    raise ValueError(
        f"Argument `network` must be made of {', '.join(_SUPPORTED)}, channels last, each called "
        f"once. Received: {type(operation).__name__} {operation.name!r}{detail}"
    )


def _copy_weights(layer, norm, target):
    if class_name(layer) == "BatchNormalization":
        norm, channels = layer, layer.moving_mean.shape[0]
        kernel, bias = np.ones((1, 1, channels, 1)), np.zeros(channels)
    else:
        kernel, bias = _float64(layer.kernel), _float64(layer.bias) if layer.use_bias else 0.0
    if norm:
        gain = _float64(norm.gamma) if norm.scale else 1.0
        gain = gain / np.sqrt(_float64(norm.moving_variance) + norm.epsilon)
        depthwise = isinstance(target, QuantizedDepthwiseConv2D)
        kernel = kernel * gain.reshape(kernel.shape[-2:] if depthwise else -1)
        bias = (bias - _float64(norm.moving_mean)) * gain
        bias = bias + (_float64(norm.beta) if norm.center else 0.0)
    target.kernel.assign(kernel)
    if target.use_bias:
        target.bias.assign(bias)


def _float64(variable):
    return ops.convert_to_numpy(variable).astype("float64")


def _calibrate(model, images):
    """Sets every range to the extremes of what it is given, one behind the other."""
    ranges = [layer for layer in model._flatten_layers() if isinstance(layer, FakeQuantize)]
    try:
        for layer in ranges:
            layer.calibrating = True
        model(images, training=False)
    finally:
        for layer in ranges:
            layer.calibrating = False
