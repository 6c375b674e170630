"""Copies of a trained network, which may be changed and trained."""

from collections.abc import Callable

import keras

from kdtoolkit._types import Network
from kdtoolkit.models.graph import flatten
from kdtoolkit.models.precision import in_policy
from kdtoolkit.models.weights import put_weights


def copier(network: Network | Callable[[], Network]) -> Callable[[], Network]:
    """Returns the function that returns a new copy of a network, whose layers are all trained.

    Args:
        network: functional Keras model, which is not changed; models inside it are flattened. Or a
            function that returns a new copy each time it is called.
    """

    def copy():
        flat = flatten(network)
        clone = keras.models.clone_model(flat)
        put_weights(clone, flat.get_weights())
        return in_policy(clone)

    def trained():
        new = copy() if isinstance(network, keras.Model) else network()
        new.trainable = True  # whatever was frozen when it was trained
        return new

    return trained
