"""Networks are trained in Keras' policy, and judged, stored and deployed in float32."""

import contextlib

import keras

from kdtoolkit.models.graph import class_name


@contextlib.contextmanager
def in_float32(network):
    """Computes in float32 what was trained in mixed precision; its variables are float32 already.

    Edge runtimes have no bfloat16, nor have most CPUs: a file that says bfloat16 would run there
    eight times slower. So that is how a network is saved and exported, and what its figures are of.
    """
    mixed = [layer for layer in _layers(network) if layer.compute_dtype != layer.variable_dtype]
    policies = [layer.dtype_policy for layer in mixed]
    try:
        _compute_in(network, mixed, [keras.DTypePolicy(layer.variable_dtype) for layer in mixed])
        yield
    finally:
        _compute_in(network, mixed, policies)


def in_policy(network):
    """Lets a stored network compute as if it had been built in the policy that Keras is set to.

    That is what `in_float32` took from it. Under a mixed policy Keras' own layers take it, but for
    those that return the network's outputs: logits stay float32. Other classes stay as they are.

    Args:
        network: functional; changed in place.

    Returns:
        The network.
    """
    policy = keras.config.dtype_policy()
    last = [output._keras_history.operation for output in network.outputs]
    for layer in network.layers if policy.compute_dtype != policy.variable_dtype else ():
        if isinstance(layer, keras.Model):
            in_policy(layer)
        elif layer.dtype_policy.name == policy.variable_dtype and class_name(layer):
            layer.dtype_policy = layer.dtype_policy if layer in last else policy
    network.predict_function = None
    return network


def _compute_in(network, layers, policies):
    for layer, policy in zip(layers, policies, strict=True):
        layer.dtype_policy = policy
    if layers:
        network.predict_function = None  # traced with the policies before


def _layers(layer):
    yield layer
    for child in layer.layers if isinstance(layer, keras.Model) else ():
        yield from _layers(child)
