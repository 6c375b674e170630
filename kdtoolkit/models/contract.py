"""The contract of a network: one batch of images in, logits out."""

import keras

from kdtoolkit.models.graph import check_graph, origin


def check_logits(network, argument="network"):
    """Checks that a network returns logits of shape `(batch, classes)`.

    Args:
        network: a functional or sequential `keras.Model` or an `Ensemble`.
        argument: the name it has where it was passed.

    Raises:
        ValueError: no graph of layers, several outputs, another rank, or probabilities.
    """
    if not hasattr(network, "output_shape"):  # which an `Ensemble` has
        check_graph(network, argument)
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


def _last_activation(network):
    if not getattr(network, "outputs", None):  # an Ensemble: it has checked its networks
        return None
    last = origin(network.outputs[0])
    if type(last).__name__ in ("Softmax", "LogSoftmax", "Sigmoid"):  # layers and operations
        return type(last).__name__.lower()
    activation = getattr(last, "activation", keras.activations.linear)
    return None if activation is keras.activations.linear else activation.__name__
