"""The contract of a network: one batch of images in, logits out."""

import keras

from kdtoolkit.models.graph import check_graph, returns_its_input


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


def last_operation(network):
    """The layer or operation that makes the values of a network's output.

    Looked for in nested models too, and before what only gives them another shape.
    """
    tensor = network.outputs[0]
    while True:
        operation, node, index = tensor._keras_history
        if isinstance(operation, keras.Model) and getattr(operation, "outputs", None):
            tensor = operation.outputs[index]
        elif returns_its_input(operation):
            (tensor,) = operation._inbound_nodes[node].input_tensors
        else:
            return operation


def _last_activation(network):
    if not getattr(network, "outputs", None):  # an Ensemble: it has checked its networks
        return None
    last = last_operation(network)
    if type(last).__name__ in ("Softmax", "LogSoftmax", "Sigmoid"):  # layers and operations
        return type(last).__name__.lower()
    activation = getattr(last, "activation", keras.activations.linear)
    return None if activation is keras.activations.linear else activation.__name__
