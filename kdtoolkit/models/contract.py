"""The contract of a network: one batch of images in, logits out."""

import keras


def check_logits(network, argument="network"):
    """Checks that a network returns logits of shape `(batch, classes)`.

    Args:
        network: a functional `keras.Model` or an `Ensemble`.
        argument: the name it has where it was passed.

    Raises:
        ValueError: several outputs, another rank, or probabilities.
    """
    shape = network.output_shape
    if not isinstance(shape, tuple) or len(shape) != 2:
        raise ValueError(
            f"Argument `{argument}` must return logits of shape (batch, classes). Received: "
            f"{network.name!r}, which returns {shape}"
        )
    activation = _last_activation(network)
    if activation:
        raise ValueError(
            f"Argument `{argument}` must return logits: no activation after its last layer. "
            f"Received: {network.name!r}, which ends with {activation}"
        )


def last_operation(network):
    """The layer or operation that returns a network's output, looked for in nested models too."""
    last = network.outputs[0]._keras_history.operation
    while isinstance(last, keras.Model) and getattr(last, "outputs", None):
        last = last.outputs[0]._keras_history.operation
    return last


def _last_activation(network):
    if not getattr(network, "outputs", None):  # an Ensemble: it has checked its networks
        return None
    last = last_operation(network)
    if type(last).__name__ in ("Softmax", "LogSoftmax", "Sigmoid"):  # layers and operations
        return type(last).__name__.lower()
    activation = getattr(last, "activation", keras.activations.linear)
    return None if activation is keras.activations.linear else activation.__name__
