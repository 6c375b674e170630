"""Copies of a trained network, which may be changed and trained."""

from collections.abc import Callable

import keras

from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit._types import Network
from kdtoolkit.models.contract import check_float
from kdtoolkit.models.graph import flatten, keeping_names
from kdtoolkit.models.precision import in_policy
from kdtoolkit.models.weights import put_weights


def copied(operation, **changes):
    """Returns a new layer or operation of another one's class, name and configuration.

    Args:
        operation: of a network.
        changes: what is different in its configuration, the name perhaps.

    Raises:
        ArgumentError: its class cannot be made from its configuration.
    """
    try:
        copy = type(operation).from_config(operation.get_config() | changes)
    except Exception as error:  # Whatever Keras and classes of one's own raise.
        accepted = "made of layers that can be copied"
        received = Words(
            f"{type(operation).__name__} {operation.name!r}, which cannot be made anew from its "
            f"config: {reason_of(error)}"
        )
        raise ArgumentError("network", accepted, received) from error
    # Which Keras' automatic configurations may leave out.
    copy.name = changes.get("name", operation.name)
    return copy


def reason_of(error):
    """What Keras, or a class of one's own, says of a configuration that it cannot use, in a line.

    Keras begins with the configuration, which may be long.
    """
    return str(error).rpartition("Exception encountered: ")[2].strip().partition("\n")[0]


def copier(network: Network | Callable[[], Network]) -> Callable[[], Network]:
    """Returns the function that returns a new copy of a network, whose layers are all trained.

    Args:
        network: functional Keras model, which is not changed; models inside it are flattened. Or a
            function that returns a new copy each time it is called.

    The function raises an `ArgumentError` where a layer cannot be copied, as `copied` does, or has
    been quantised by Keras.
    """

    def copy():
        check_float(network)
        with keeping_names(network):
            flat = flatten(network)
            clone = keras.models.clone_model(flat, clone_function=copied)
            put_weights(clone, flat.get_weights())
        return in_policy(clone)

    def trained():
        new = copy() if isinstance(network, keras.Model) else network()
        new.trainable = True  # whatever was frozen when it was trained
        return new

    return trained
