"""The contract of a network: one batch of images in, logits out, from values that are finite."""

from collections.abc import Iterable

import keras
import numpy as np

from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit._keras import all_layers
from kdtoolkit.models.graph import activation_name, check_graph, origin


def check_logits(network, argument="network"):
    """Checks that a network returns logits of shape `(batch, classes)`.

    Args:
        network: a functional or sequential `keras.Model` or an `Ensemble`.
        argument: the name it has where it was passed.

    Raises:
        ValueError: no graph of layers, several outputs, another rank, one class, or
            probabilities.
    """
    if not hasattr(network, "output_shape"):  # which an `Ensemble` has
        check_graph(network, argument)
    shape = network.output_shape
    if not isinstance(shape, tuple) or len(shape) != 2:
        received = Words(f"{network.name!r}, which returns {shape}")
        raise ArgumentError(argument, "logits of shape (batch, classes)", received, must="return")
    if shape[-1] == 1:
        accepted = "a logit for each of at least two classes"
        received = Words(f"{network.name!r}, which returns {shape}")
        raise ArgumentError(argument, accepted, received, must="return")
    activation = _last_activation(network)
    if activation:
        accepted = "logits: no activation after its last layer"
        received = Words(f"{network.name!r}, which ends with {activation}")
        raise ArgumentError(argument, accepted, received, must="return")


def check_alike(networks, argument):
    """Checks that networks take the same images and return logits of the same classes.

    Args:
        networks: a list of what `check_logits` takes.
        argument: the name it has where it was passed.

    Raises:
        ValueError: one does not return logits, or their shapes differ.
    """
    for network in networks:
        check_logits(network, argument)
    for kind in ("input_shape", "output_shape"):
        shapes = {getattr(network, kind) for network in networks}
        if len(shapes) > 1:
            received = Words(sorted(shapes, key=str))
            raise ArgumentError(argument, f"in {kind}", received, must="agree")


def non_finite(variables: Iterable[keras.Variable]) -> str | None:
    """Returns the path of the first variable that holds NaN or infinity, or None."""
    for variable in variables:
        floating = keras.backend.is_float_dtype(variable.dtype)
        if floating and not np.isfinite(np.asarray(variable)).all():
            return variable.path
    return None


def check_finite(network, argument="network"):
    """Checks that all variables of a network, its moving statistics among them, are finite.

    No look at what it returns tells: normalisation by an infinite variance is finite, and oneDNN's
    fused ReLU makes 0 of NaN.

    Args:
        network: a `keras.Model` or an `Ensemble`.
        argument: the name it has where it was passed.

    Raises:
        ValueError: one is not; the message names it.
    """
    found = non_finite(network.variables)
    if found:
        received = Words(f"{network.name!r}, whose {found} is not")
        raise ArgumentError(argument, "finite variables", received, must="have")


def check_float(network):
    """Checks that Keras has quantised no layer of a network.

    Such a layer has a kernel of integers, and its scale beside it, which its policy alone says. In
    another policy it would multiply by the integers.

    Raises:
        ArgumentError: it has; the message names the layer.
    """
    for layer in all_layers(network):
        if isinstance(layer.dtype_policy, keras.dtype_policies.QuantizedDTypePolicy):
            detail = f"has been quantised by Keras: {layer.dtype_policy.name}"
            raise _unfit("of float weights", network, layer, detail)


def check_kernels(network):
    """Checks that the kernel of every layer is a variable of floats, which may be changed.

    Raises:
        ArgumentError: a layer has been quantised, or has LoRA, whose kernel is a sum; the message
            names it.
    """
    check_float(network)
    for layer in all_layers(network):
        if getattr(layer, "lora_enabled", False):
            raise _unfit("without LoRA", network, layer, "has it")


def _unfit(accepted, network, layer, detail):
    received = f"{network.name!r}, whose {type(layer).__name__} {layer.name!r} {detail}"
    return ArgumentError("network", accepted, Words(received))


def _last_activation(network):
    if not getattr(network, "outputs", None):  # an Ensemble: it has checked its networks
        return None
    last = origin(network.outputs[0])
    if type(last).__name__ in ("Softmax", "LogSoftmax", "Sigmoid"):  # layers and operations
        return type(last).__name__.lower()
    activation = getattr(last, "activation", keras.activations.linear)
    return None if activation is keras.activations.linear else activation_name(activation)


def add_weights(digest, network) -> None:
    """Adds dtype, shape and values of every weight of a network to a `hashlib` digest, in order."""
    for weight in network.weights:
        value = np.asarray(weight)
        digest.update(repr((value.dtype.name, value.shape)).encode())
        digest.update(value.tobytes())
