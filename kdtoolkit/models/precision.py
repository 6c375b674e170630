"""What was trained in mixed precision is judged, stored and deployed in float32."""

import contextlib

import keras


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


def _compute_in(network, layers, policies):
    for layer, policy in zip(layers, policies, strict=True):
        layer.dtype_policy = policy
    if layers:
        network.predict_function = None  # traced with the policies before


def _layers(layer):
    yield layer
    for child in layer.layers if isinstance(layer, keras.Model) else ():
        yield from _layers(child)
