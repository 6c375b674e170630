"""The graph of a functional network: its operations, and who takes what they return."""

import collections
import contextlib
import itertools

import keras

from kdtoolkit import _keras
from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit._types import Network


def class_name(operation):
    """Name of the operation's class; empty for a class that is not one of Keras' own.

    A subclass may compute anything.
    """
    own = type(operation)
    return own.__name__ if own.__module__.partition(".")[0] == "keras" else ""


def activation_name(activation):
    """What an activation is called: a function, a layer, or anything else that can be called."""
    own = getattr(activation, "__name__", None)
    return own or getattr(activation, "name", type(activation).__name__)


def check_graph(network, argument="network"):
    """Checks that a model is a graph of layers.

    Args:
        network: what was passed.
        argument: the name it has where it was passed.

    Raises:
        ValueError: it is no functional model, nor a sequential one that has been built.
    """
    if not isinstance(network, keras.Model):
        received = Words(f"{type(network).__name__} {str(network)[:80]!r}")
        raise ArgumentError(argument, "a functional or sequential Keras model", received)
    if not getattr(network, "inputs", None):
        raise ArgumentError(
            argument,
            "a functional or sequential Keras model that has been built",
            Words(
                f"{type(network).__name__} {network.name!r}; with image = keras.Input(shape), "
                "keras.Model(image, model(image)) is a functional one"
            ),
        )


def returns_its_input(operation):
    """Whether an operation returns, in inference, the values that it is given, in some shape."""
    kind = class_name(operation)
    linear = kind == "Activation" and operation.activation is keras.activations.linear
    return linear or kind in ("Dropout", "Flatten", "Identity", "Reshape", "Squeeze")


def origin(tensor, passes_on=returns_its_input):
    """The layer or operation, in nested models too, that makes the values of a tensor.

    Args:
        tensor: of a functional model.
        passes_on: of an operation, whether to look at what it is given instead.
    """
    while True:
        operation, _, index = _keras.history(tensor)
        if isinstance(operation, keras.Model) and getattr(operation, "outputs", None):
            tensor = operation.outputs[index]
        elif passes_on(operation):
            (tensor,) = _keras.node_of(tensor).input_tensors
        else:
            return operation


def functional(network: Network) -> Network:
    """Returns a sequential model, which has its graph inside, as the functional one that it is.

    On the same layers; any other network is returned itself.
    """
    if not isinstance(network, keras.Sequential):
        return network
    return keras.Model(network.inputs[0], network.outputs[0], name=network.name)


def flatten(network: Network) -> Network:
    """Returns a network in which the layers of the models inside it are its own.

    In transfer learning a whole network is called like a layer, which hides what is in it. The
    result calls the same layers in the same way, on the same variables, and so computes the same.
    It keeps their names; only where two have the same one does that of the inner model become
    `model_layer`, in the given network too. Inner models with a `call` of their own, or with
    more than one input, stay as they are.

    Args:
        network: functional or sequential Keras model that has been built.

    Returns:
        A functional `keras.Model`: the network itself if it is one without any inside.

    Raises:
        ValueError: the network is neither functional nor sequential, or not built.
    """
    check_graph(network)
    network = functional(network)
    if not any(map(_is_graph, network.operations)):
        return network
    outer = [operation for operation in network.operations if not _is_graph(operation)]
    owners = {operation.name: operation for operation in outer}

    def call_in(model, training):
        def call(operation, *args, **kwargs):
            if training is not None and isinstance(operation, keras.layers.Layer):
                kwargs["training"] = training
            if not _is_graph(operation) or kwargs.get("mask") is not None:
                if model is not network:
                    _rename(operation, model, owners)
                return operation(*args, **kwargs)
            (image,), (expected,) = keras.tree.flatten(args), operation.inputs
            if image.dtype != expected.dtype:  # as a model does with what it is given
                image = keras.ops.cast(image, expected.dtype)
            inner = keras.Model(operation.inputs[0], operation.outputs, name=operation.name)
            return _keras.run(inner, image, call_in(inner, kwargs.get("training")))

        return call

    outputs = _keras.run(network, network.inputs, call_in(network, None))
    return keras.Model(network.input, outputs, name=network.name)


@contextlib.contextmanager
def keeping_names(network):
    """Context in which a network may be flattened, and after which its layers have their names."""
    found, left = {}, [network]
    while left:
        operation = left.pop()
        found[operation] = operation.name
        # A `Sequential` has no `operations`.
        left += getattr(operation, "operations", None) or getattr(operation, "layers", ())
    try:
        yield
    finally:
        for operation, name in found.items():
            operation.name = name


def _is_graph(operation):
    """Whether an operation is a model of one input that does nothing but run its graph."""
    own = getattr(type(operation).call, "__module__", "").partition(".")[0] == "keras"
    inputs = getattr(operation, "inputs", None) or ()  # none where there is no graph
    return isinstance(operation, keras.Model) and own and len(inputs) == 1


def _rename(operation, model, owners):
    """Gives an operation of an inner model a name that no other one has."""
    name = operation.name
    while owners.setdefault(name, operation) is not operation:
        name = f"{model.name}_{name}"
    operation.name = name


def name_apart(name, names):
    """The name, or where it is one of `names`, with the first number that makes another one."""
    numbered = (f"{name}_{number}" for number in itertools.count(1))
    return next(each for each in itertools.chain([name], numbered) if each not in names)


def output_of(network, name):
    """The tensor that the layer of this name returns in this network, when first called.

    `layer.output` is that of the first network that called the layer.
    """
    nodes = (node for node in _keras.nodes(network) if node.operation.name == name)
    tensors = next(nodes).output_tensors
    return tensors[0] if len(tensors) == 1 else tensors


def called_twice(network):
    """Returns the first operation that a functional network calls more than once, or None."""
    seen = set()
    for node in _keras.nodes(network):
        if node.operation in seen:
            return node.operation
        seen.add(node.operation)
    return None


def takers(network):
    """Who alone takes what an operation returns.

    Args:
        network: functional, each of whose operations is called once.

    Returns:
        dict: name of each operation -> the one operation that takes what it returns; None where
        several do, or what it returns is an output of the network.
    """
    found = all_takers(network)
    return {name: after[0] if len(after) == 1 else None for name, after in found.items()}


def all_takers(network):
    """Name of each operation -> those that take what it returns; None stands for an output.

    Args:
        network: functional, each of whose operations is called once.
    """
    found = collections.defaultdict(list)
    for node in _keras.nodes(network):
        for tensor in node.input_tensors:
            found[id(tensor)].append(node.operation)
    for tensor in network.outputs:
        found[id(tensor)].append(None)
    return {
        node.operation.name: [taker for x in node.output_tensors for taker in found[id(x)]]
        for node in _keras.nodes(network)
    }


def foldable(network, kinds, taker_of):
    """Batch normalisations that can be a part of the linear layer before them.

    Args:
        network: functional.
        kinds: classes of such layers, by name.
        taker_of: of `takers`.

    Returns:
        dict: name of a layer of one of these kinds -> the batch normalisation of its channels, the
        last axis, which alone takes what it returns.
    """
    found = {}
    for layer in network.layers:
        last = getattr(layer, "data_format", "channels_last") == "channels_last"
        linear = class_name(layer) in kinds and layer.activation is keras.activations.linear
        if linear and last:
            taker = taker_of[layer.name]
            if class_name(taker) == "BatchNormalization" and is_on_last_axis(taker):
                found[layer.name] = taker
    return found


def is_on_last_axis(normalization):
    """Whether a batch normalisation is of the last axis of its input."""
    return normalization.axis in (-1, len(normalization.input.shape) - 1)


def embedding_layer(network, argument="network"):
    """Name of the layer whose vector, `(batch, channels)`, a network makes its logits of.

    Raises:
        ArgumentError: it makes them of something else.
    """
    last = origin(network.output)
    taken = getattr(last, "input", None)
    if len(getattr(taken, "shape", ())) != 2:
        accepted = "a network whose logits are a dense layer's, of pooled features"
        raise ArgumentError(argument, accepted, network.name)
    made_by = origin(taken, lambda operation: isinstance(operation, keras.layers.Dropout))
    if made_by.name not in [layer.name for layer in network.layers]:
        accepted = "a network without others inside: see kdtoolkit.models.flatten"
        raise ArgumentError(argument, accepted, network.name)
    return made_by.name
