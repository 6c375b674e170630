"""A network as layers that are each one operation of a LiteRT file, or one with its ReLU."""

import keras
from keras import layers

from kdtoolkit import _keras
from kdtoolkit.models.copies import copied
from kdtoolkit.models.graph import activation_name, class_name, name_apart
from kdtoolkit.models.weights import put_weights

WEIGHTED = ("Conv2D", "Conv2DTranspose", "Dense", "DepthwiseConv2D")
# What a file runs as a part of the operation before it.
_WITH_THEIR_LAYER = (
    keras.activations.linear,
    keras.activations.relu,
    keras.activations.relu6,
)
_OF_TWO = ("Add", "Multiply")


def elementary(network):
    """Returns a network of the same function whose layers do one thing each.

    A convolution or dense layer with an activation that is no ReLU becomes the layer and an
    `Activation`, `{name}_{activation}`; a separable convolution `{name}_depthwise` and a 1x1
    convolution; a silu the product of its input and `{name}_sigmoid`; sums and products of more
    than two become several. The last one has the name of the whole. An activation that is a layer
    becomes that layer. Other layers are the same ones; those that are split have copies of the
    weights.

    Args:
        network: functional, without models inside it, each of whose layers is called once.

    Returns:
        A functional `keras.Model`.
    """
    names = {operation.name for operation in network.operations}

    def named(name):
        names.add(found := name_apart(name, names))
        return found

    def activate(x, name, activation):
        if class_name(activation) == "Activation":
            return activate(x, name, activation.activation)
        if isinstance(activation, layers.Layer):
            layer = copied(activation, name=name, dtype="float32")
            x = layer(x)
            if activation.built:  # by Keras only where it has run with values
                put_weights(layer, activation.get_weights())
            return x
        if activation is not keras.activations.silu:
            return layers.Activation(activation, name=name, dtype="float32")(x)
        gate = activate(x, named(f"{name}_sigmoid"), keras.activations.sigmoid)
        return layers.Multiply(name=name, dtype="float32")([x, gate])

    def call(operation, *args, **kwargs):
        kind, name = class_name(operation), operation.name
        activation = getattr(operation, "activation", None)
        if kind == "SeparableConv2D":
            depthwise, pointwise = _separated(operation, named(f"{name}_depthwise"))
            x = pointwise(depthwise(args[0]))
            kernel, *weights = operation.get_weights()
            depthwise.set_weights([kernel])
            pointwise.set_weights(weights[: len(pointwise.weights)])
        elif kind in WEIGHTED and activation not in _WITH_THEIR_LAYER:
            layer = _without_activation(operation)
            x = layer(args[0])
            # Behind its own there may be those of an activation.
            layer.set_weights(operation.get_weights()[: len(layer.weights)])
        elif kind == "Silu":
            return activate(args[0], name, keras.activations.silu)
        elif kind == "Activation":
            return activate(args[0], name, activation)
        elif kind in _OF_TWO and isinstance(operation, layers.Layer) and len(args[0]) > 2:
            first, *others, last = args[0]
            for other in others:
                layer = type(operation)(name=named(f"{name}_part"), dtype="float32")
                first = layer([first, other])
            return type(operation)(name=name, dtype="float32")([first, last])
        else:
            return operation(*args, **kwargs)
        if activation is keras.activations.linear:
            return x
        return activate(x, named(f"{name}_{activation_name(activation)}"), activation)

    outputs = _keras.run(network, network.inputs, call)
    return keras.Model(network.input, outputs, name=network.name)


def _without_activation(layer):
    config = {**layer.get_config(), "activation": "linear", "dtype": "float32"}
    return type(layer).from_config(config)


def _separated(layer, depthwise_name):
    shared = {"data_format": layer.data_format, "dtype": "float32", "trainable": layer.trainable}
    depthwise = layers.DepthwiseConv2D(
        layer.kernel_size,
        layer.strides,
        layer.padding,
        layer.depth_multiplier,
        dilation_rate=layer.dilation_rate,
        depthwise_regularizer=layer.depthwise_regularizer,
        depthwise_constraint=layer.depthwise_constraint,
        use_bias=False,
        name=depthwise_name,
        **shared,
    )
    pointwise = layers.Conv2D(
        layer.filters,
        1,
        kernel_regularizer=layer.pointwise_regularizer,
        kernel_constraint=layer.pointwise_constraint,
        bias_regularizer=layer.bias_regularizer,
        bias_constraint=layer.bias_constraint,
        use_bias=layer.use_bias,
        name=layer.name,
        **shared,
    )
    return depthwise, pointwise
