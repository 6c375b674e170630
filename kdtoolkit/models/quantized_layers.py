"""The layers of a quantisation-aware network.

A fake-quantised tensor is a float tensor whose values lie on the grid that integers and a scale
span. Gradients pass through the rounding unchanged, and are zero outside the grid's range (Jacob et
al., CVPR 2018). The LiteRT converter takes the grids over from the operations that drew them.
"""

import re
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from kdtoolkit import _keras
from kdtoolkit._types import Tensor, TensorLike
from kdtoolkit.models.graph import class_name

# What returns values of its input, zeros, or averages that the file rounds to the grid of the
# input, needs no range. In inference, that is: some change their input in training.
_ON_THE_GRID_OF_THEIR_INPUT = re.compile(
    r"""ActivityRegularization | AveragePooling[12]D | CenterCrop | Cropping[12]D | ExpandDims
    | Flatten | GaussianNoise | GetItem | GlobalMaxPooling[12]D | Identity | Max | MaxPooling[12]D
    | Pad | Permute | Random(?!Crop)\w+ | Repeat | RepeatVector | Reshape | Resizing | Squeeze
    | Transpose | UpSampling[12]D | ZeroPadding[12]D | (Alpha|Gaussian|Spatial)?Dropout([12]D)?
    | (Array)?Split | Unstack""",
    re.VERBOSE,
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


# Each of these kernels has a Keras layer as its other base.
if TYPE_CHECKING:
    from keras.layers import Layer as _Layer
else:
    _Layer = object

_SMALLEST = float(np.finfo("float32").tiny)


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

    def __init__(self, bits: int = 8, momentum: float = 0.99, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.bits = bits
        self.momentum = momentum
        self.calibrating = False

    def build(self, input_shape: Any) -> None:
        self.minimum, self.maximum = (
            self.add_weight(
                name=name, shape=(), initializer="zeros", trainable=False, aggregation="mean"
            )
            for name in ("minimum", "maximum")
        )

    def call(self, inputs: TensorLike, training: bool | None = None) -> Tensor:
        if training or self.calibrating:
            momentum = 0.0 if self.calibrating else self.momentum
            # Zero is a point of every grid: it is what padding and ReLU return.
            lowest = tf.minimum(tf.reduce_min(inputs), 0.0)
            highest = tf.maximum(tf.reduce_max(inputs), _LEAST_MAXIMUM)
            for variable, extreme in ((self.minimum, lowest), (self.maximum, highest)):
                variable.assign(momentum * variable.value + (1 - momentum) * extreme)
        return _on_grid(inputs, self.minimum.value, self.maximum.value, self.bits)

    def compute_output_spec(
        self, inputs: keras.KerasTensor, training: bool | None = None
    ) -> keras.KerasTensor:
        return keras.KerasTensor(inputs.shape, dtype="float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bits": self.bits, "momentum": self.momentum}


@keras.saving.register_keras_serializable(package="kdtoolkit")
class FixedFakeQuantize(layers.Layer):
    """Puts activations on a grid that stays as it is.

    Args:
        minimum, maximum: of the grid, zero included.
        bits: of a value, 2 to 16.
        **kwargs: of the layer. It computes in float32 under every policy.
    """

    def __init__(self, minimum, maximum, bits=8, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.minimum, self.maximum, self.bits = minimum, maximum, bits

    def call(self, inputs):
        return _on_grid(inputs, self.minimum, self.maximum, self.bits)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, dtype="float32")

    def get_config(self):
        own = {"minimum": self.minimum, "maximum": self.maximum, "bits": self.bits}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="kdtoolkit")
class Dequantize(layers.Layer):
    """Where what is computed in integers ends and floats begin; returns its input.

    Integers would go on through averages, whose rounding to the grid of their input no training has
    seen. Where they meet a sum without a grid of its own, the converter makes floats of them: that
    with the smallest number, which changes nothing.
    """

    def __init__(self, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})

    def call(self, inputs):
        return inputs + _SMALLEST


class _FakeQuantizedKernel(_Layer):
    """A layer with a fake-quantised kernel and, where it is stored, output.

    Each output channel of the kernel has a symmetric grid up to its largest weight; the whole
    kernel of a transposed convolution has one. The bias, 32 bits in a file, stays as it is.

    Args:
        bits, momentum: as for `FakeQuantize`.
        quantize_output: whether the output is fake-quantised; not where a ReLU follows, which runs
            as one operation with the layer.
        **kwargs: of the Keras layer. It computes in float32 under every policy.
    """

    def __init__(
        self,
        *args: Any,
        bits: int = 8,
        momentum: float = 0.99,
        quantize_output: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **{**kwargs, "dtype": "float32"})
        self.bits = bits
        self.momentum = momentum
        self.output_range = FakeQuantize(bits, momentum, name="range") if quantize_output else None

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        if self.output_range:
            self.output_range.build(None)

    def call(self, inputs: TensorLike, training: bool | None = None) -> Tensor:
        outputs = self._multiply(inputs)
        if self.use_bias:
            outputs = outputs + self.bias
        outputs = self.activation(outputs)
        return self.output_range(outputs, training=training) if self.output_range else outputs

    def get_config(self) -> dict[str, Any]:
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


@keras.saving.register_keras_serializable(package="kdtoolkit")
class QuantizedConv2DTranspose(_FakeQuantizedKernel, layers.Conv2DTranspose):
    __doc__ = _FakeQuantizedKernel.__doc__

    def _multiply(self, inputs):
        bound = tf.reduce_max(_bounds(tf.reshape(self.kernel, (-1, 1))))
        return ops.conv_transpose(
            inputs,
            # One grid: the converter cannot follow those of channels on an axis before the last.
            tf.quantization.fake_quant_with_min_max_vars(
                self.kernel, -bound, bound, num_bits=self.bits, narrow_range=True
            ),
            strides=self.strides,
            padding=self.padding,
            output_padding=self.output_padding,
            dilation_rate=self.dilation_rate,
        )


class _Scale(layers.Layer):
    """Multiplies each channel, on the last axis, and adds to it."""

    use_bias = True
    activation = staticmethod(keras.activations.linear)

    def build(self, input_shape):
        channels = input_shape[-1]
        self.kernel = self.add_weight(name="kernel", shape=(1, 1, channels), initializer="ones")
        self.bias = self.add_weight(name="bias", shape=(channels,), initializer="zeros")

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor(inputs.shape, dtype="float32")


@keras.saving.register_keras_serializable(package="kdtoolkit")
class QuantizedScale(_FakeQuantizedKernel, _Scale):
    """Multiplies each channel, on the last axis, and adds to it: a 1x1 depthwise convolution.

    Args:
        bits, momentum, quantize_output, **kwargs: as for the other layers with a kernel.
    """

    def _multiply(self, inputs):
        channels = inputs.shape[-1]
        pixels = inputs if len(inputs.shape) == 4 else ops.reshape(inputs, (-1, 1, 1, channels))
        kernel = ops.reshape(fake_quantize_kernel(self.kernel, self.bits), (1, 1, channels, 1))
        return ops.reshape(ops.depthwise_conv(pixels, kernel), (-1, *inputs.shape[1:]))


@keras.saving.register_keras_serializable(package="kdtoolkit")
class QuantizedHardSigmoid(layers.Layer):
    """`relu6(x + 3) / 6`, on two grids that hold all its values.

    Args:
        bits: of a value, 2 to 16.
        **kwargs: of the layer. It computes in float32 under every policy.
    """

    def __init__(self, bits=8, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.bits = bits

    def call(self, inputs):
        return _on_grid(_on_grid(ops.relu6(inputs + 3.0), 0.0, 6.0, self.bits) / 6, 0, 1, self.bits)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, dtype="float32")

    def get_config(self):
        return {**super().get_config(), "bits": self.bits}


KERNELS = (_FakeQuantizedKernel,)


def fake_quantize_kernel(kernel, bits=8):
    """Rounds each output channel of a kernel to a symmetric grid up to its largest weight.

    Args:
        kernel: float32 tensor `(..., channels)`.
        bits: of a weight, 2 to 16; at most `2^(bits - 1) - 1` steps from zero, either way.

    Returns:
        A tensor of the same shape.
    """
    kernel = tf.convert_to_tensor(kernel)
    bound = _bounds(kernel)
    return tf.quantization.fake_quant_with_min_max_vars_per_channel(
        kernel, -bound, bound, num_bits=bits, narrow_range=True
    )


def fake_quantize_constant(array, bits=8):
    """Rounds a constant to the grid that the converter gives it: between its extremes and zero.

    Args:
        array: float, of any shape.
        bits: of a value, 2 to 16.

    Returns:
        A float32 tensor of the same shape.
    """
    array = tf.cast(array, tf.float32)
    lowest, highest = tf.minimum(tf.reduce_min(array), 0), tf.maximum(tf.reduce_max(array), 0)
    return _on_grid(array, lowest, highest, bits) if highest > lowest else array


def _on_grid(inputs, lowest, highest, bits):
    return tf.quantization.fake_quant_with_min_max_vars(inputs, lowest, highest, num_bits=bits)


def _bounds(kernel):
    """The largest weight of each channel, or of next to nothing, as the end of its grid."""
    largest = tf.reduce_max(tf.abs(kernel), axis=range(len(kernel.shape) - 1))
    overall = tf.reduce_max(largest)
    least = _SMALLEST_CHANNEL * tf.where(overall > 0, overall, 1.0)
    return tf.stop_gradient(_MARGIN * tf.maximum(largest, least))


def grid_of(tensor):
    """Returns the layer that puts a tensor of a functional network on its grid; None without one.

    Called on values of the tensor, it returns them as they are.
    """
    while True:
        operation = _keras.operation_of(tensor)
        if isinstance(operation, (FakeQuantize, FixedFakeQuantize)):
            return operation
        if isinstance(operation, KERNELS):
            return operation.output_range
        node = _keras.node_of(tensor)
        if not passes_on(node):
            return None
        (tensor,) = node.input_tensors


def passes_on(node):
    """Whether the operation of a graph's node leaves values on the grid of its input."""
    operation, kind = node.operation, class_name(node.operation)
    if kind == "Activation":
        return operation.activation is keras.activations.linear
    if kind == "Pad":
        given = (*node.arguments.args[1:], *node.arguments.kwargs.values())
        return operation.mode == "constant" and not any(given)
    if kind in ("Resizing", "UpSampling2D"):
        cropped = getattr(operation, "crop_to_aspect_ratio", False)
        padded = getattr(operation, "pad_to_aspect_ratio", False)
        return operation.interpolation in ("nearest", "bilinear") and not (cropped or padded)
    return _ON_THE_GRID_OF_THEIR_INPUT.fullmatch(kind) is not None
