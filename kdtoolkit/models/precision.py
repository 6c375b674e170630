"""Networks are trained in Keras' policy, and judged, stored and deployed in float32."""

import contextlib

import keras

from kdtoolkit._keras import all_layers, calls, history, node_of
from kdtoolkit.models.graph import class_name
from kdtoolkit.models.kinds import sides

# They take pixels, eight bits of which are more than bfloat16 has.
_OF_PIXELS = ("Rescaling", "Normalization")


@contextlib.contextmanager
def in_float32(network):
    """Computes in float32 what was trained in mixed precision; its variables are float32 already.

    Edge runtimes have no bfloat16, nor have most CPUs: a file that says bfloat16 would run there
    eight times slower. So that is how a network is saved and exported, and what its figures are of.
    """
    mixed = [layer for layer in all_layers(network) if layer.compute_dtype != layer.variable_dtype]
    policies = [layer.dtype_policy for layer in mixed]
    try:
        _compute_in(network, mixed, [keras.DTypePolicy(layer.variable_dtype) for layer in mixed])
        yield
    finally:
        _compute_in(network, mixed, policies)


def in_policy(network):
    """Lets a network from a file compute as if it had been built in the policy Keras is set to.

    Keras' own layers on float32 variables take the policy, whatever they were stored with, but for
    the last ones before the outputs, since logits are float32, those that take pixels, and those
    that stride over their whole image. Networks with layers of other classes, which may compute
    anything, keep what they have: that of a quantised activation, for one, is a grid.

    Args:
        network: functional; changed in place.

    Returns:
        The network.
    """
    policy = keras.config.dtype_policy()
    layers = [
        layer for layer in all_layers(network) if layer.variable_dtype == policy.variable_dtype
    ]
    if not all(class_name(layer) for layer in layers):
        return network
    exact = {id(layer) for layer in (*_last(network), *_inputs(network))}
    exact |= {id(layer) for layer in layers if class_name(layer) in _OF_PIXELS}
    exact |= {id(layer) for layer in layers if strides_over(layer)}
    float32 = keras.DTypePolicy(policy.variable_dtype)
    policies = [float32 if id(layer) in exact else policy for layer in layers]
    _compute_in(network, layers, policies)
    return network


def strides_over(layer):
    """Whether a layer is a convolution whose strides are longer than the image it is called on.

    In bfloat16 the gradient of its kernel is undefined on a CPU: what oneDNN (TensorFlow 2.21)
    leaves out are the weights that meet nothing but padding, whose gradient is 0, and it returns
    the memory as it was. An optimizer clips all other gradients by the norm of that.
    """
    if not hasattr(layer, "strides") or not hasattr(layer, "kernel_size"):
        return False
    return any(
        side is not None and stride > side
        for node in calls(layer)
        for stride, side in zip(layer.strides, sides(layer, node.input_tensors[0]), strict=True)
    )


def _compute_in(network, layers, policies):
    for layer, policy in zip(layers, policies, strict=True):
        layer.dtype_policy = policy
    if layers:
        network.predict_function = None  # traced with the policies before


def _inputs(network):
    return [layer for layer in all_layers(network) if isinstance(layer, keras.layers.InputLayer)]


def _last(network):
    """The layers that return the network's outputs, and all around them.

    An operation that is no layer computes in what it is given: the layers before it are the last.
    """
    found, ends = [], list(network.outputs)
    while ends:
        end = ends.pop()
        operation, _, index = history(end)
        if isinstance(operation, keras.Model) and hasattr(operation, "operations"):
            found.append(operation)
            ends.append(operation.outputs[index])
        elif isinstance(operation, keras.layers.Layer):
            found += all_layers(operation)
        else:
            ends += node_of(end).input_tensors
    return found
