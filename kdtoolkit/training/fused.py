"""Faster ways through a network: batch normalisation as one operation, or as none."""

import keras
import tensorflow as tf

from kdtoolkit.models.graph import called_twice, foldable, takers


class Untracked:
    """Holds a value out of Keras' sight: what is in it is neither saved, counted nor trained."""

    def __init__(self, value):
        self.value = value


def fused(network):
    """Returns the network with its batch normalisation fused, on the same variables.

    Keras computes batch normalisation from moments, products and sums; TensorFlow has one operation
    for all of them, which makes a training step of a ResNet on a CPU about a fifth shorter. The
    returned model shares every variable with the network and computes what the network computes, up
    to rounding; the network itself, which is what gets saved, stays as it is. In bfloat16 it is the
    difference between a step that is shorter than a float32 one and a step that is longer: the
    operation normalises in float32 without a float32 copy of its input.

    Layers that the operation does not cover (synchronised, float16, other axes, or inside a nested
    model), and networks that are not functional, are used as they are.

    Args:
        network: Keras model.

    Returns:
        A Keras model; not to be saved.
    """
    if not hasattr(network, "operations"):  # not a graph of layers
        return network

    def replace(layer):
        return _FusedBatchNormalization(layer) if _is_covered(layer) else layer

    return keras.models.clone_model(network, clone_function=replace)


def folded(network):
    """Returns the network for inference, batch normalisation folded into the convolutions.

    A convolution whose kernel is scaled and shifted by the normalisation behind it needs no further
    pass over its output; in bfloat16 that makes a step with a teacher of the same kind a
    twenty-fifth shorter. Nothing is copied: kernels are scaled in every call, which costs nothing
    beside a batch of images, and so the returned model computes, up to rounding, what the network
    computes, also after the network's variables have changed. Normalisation that is not behind a
    convolution is fused.

    Args:
        network: Keras model; one that is not functional, or that calls a layer twice, is fused
            only, as are layers whose variables are not float32 and convolutions with LoRA.

    Returns:
        A Keras model, not to be saved or trained.
    """
    if not hasattr(network, "operations") or called_twice(network) is not None:
        return fused(network)
    norm_of = {
        name: norm
        for name, norm in foldable(network, ("Conv2D",), takers(network)).items()
        if norm.variable_dtype == network.get_layer(name).variable_dtype == "float32"
        and not network.get_layer(name).lora_enabled  # its kernel is a sum, and no variable
    }
    norms = {norm.name for norm in norm_of.values()}

    def replace(layer):
        if layer.name in norm_of:
            return _FoldedConvolution(layer, norm_of[layer.name])
        if layer.name in norms:
            return _PassOn(name=layer.name, dtype=layer.dtype_policy)
        return _FusedBatchNormalization(layer) if _is_covered(layer) else layer

    return keras.models.clone_model(network, clone_function=replace)


def _is_covered(layer):
    return (
        type(layer) is keras.layers.BatchNormalization
        and not layer.synchronized
        and layer.activity_regularizer is None
        and layer.variable_dtype == "float32"
        and layer.compute_dtype in ("float32", "bfloat16")
        and len(layer.input.shape) == 4
        and layer.axis in (-1, 3)
    )


class _FusedBatchNormalization(keras.layers.Layer):
    """Computes a `BatchNormalization` layer, whose variables it uses."""

    def __init__(self, layer):
        super().__init__(name=layer.name, dtype=layer.dtype_policy)
        self._layer = Untracked(layer)

    def compute_output_spec(self, inputs, training=None, mask=None):
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def call(self, inputs, training=None, mask=None):
        layer = self._layer.value
        if mask is not None:
            return layer(inputs, training=training, mask=mask)
        channels = inputs.shape[-1:]
        mean, variance = layer.moving_mean.value, layer.moving_variance.value
        scale = layer.gamma.value if layer.scale else tf.ones(channels)
        offset = layer.beta.value if layer.center else tf.zeros(channels)
        if not (training and layer.trainable):
            outputs, *_ = tf.raw_ops.FusedBatchNormV3(
                x=inputs,
                scale=scale,
                offset=offset,
                mean=mean,
                variance=variance,
                epsilon=layer.epsilon,
                is_training=False,
            )
            return outputs
        outputs, batch_mean, batch_variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=scale,
            offset=offset,
            mean=tf.zeros([0]),
            variance=tf.zeros([0]),
            epsilon=layer.epsilon,
            is_training=True,
        )
        # The operation gives the unbiased variance, n / (n - 1) times the one that Keras averages.
        count = tf.cast(tf.size(inputs) // channels[0], "float32")
        batch_variance *= (count - 1) / count
        layer.moving_mean.assign(mean * layer.momentum + batch_mean * (1 - layer.momentum))
        layer.moving_variance.assign(
            variance * layer.momentum + batch_variance * (1 - layer.momentum)
        )
        return outputs


class _FoldedConvolution(keras.layers.Layer):
    """Computes a `Conv2D` layer and the normalisation behind it, whose variables it uses."""

    def __init__(self, convolution, norm):
        super().__init__(name=convolution.name, dtype=convolution.dtype_policy)
        self._layers_of = Untracked((convolution, norm))

    def compute_output_spec(self, inputs):
        return self._layers_of.value[0].compute_output_spec(inputs)

    def call(self, inputs):
        convolution, norm = self._layers_of.value
        scale = tf.math.rsqrt(norm.moving_variance.value + norm.epsilon)
        scale = scale * norm.gamma.value if norm.scale else scale
        bias = tf.cast(convolution.bias.value, "float32") if convolution.use_bias else 0.0
        offset = (bias - norm.moving_mean.value) * scale
        offset = offset + norm.beta.value if norm.center else offset
        outputs = keras.ops.conv(
            inputs,
            tf.cast(tf.cast(convolution.kernel.value, "float32") * scale, inputs.dtype),
            convolution.strides,
            convolution.padding,
            convolution.data_format,
            convolution.dilation_rate,
        )
        return tf.nn.bias_add(outputs, tf.cast(offset, outputs.dtype))


class _PassOn(keras.layers.Layer):
    """Stands where the normalisation was, for those who look for the layer by its name."""

    def call(self, inputs, training=None, mask=None):
        return inputs
