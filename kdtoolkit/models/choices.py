"""What can be chosen of a network; no Keras, for command lines."""

import os

from kdtoolkit._checks import ArgumentError, OneOf

HEADS = OneOf(("bottleneck", "attention"))
"""Of the exits that `add_exits` attaches."""

IMAGENET = "imagenet"
"""Trained weights that Keras downloads; others are the path of a file."""


def check_weights(weights: str | os.PathLike[str]) -> None:
    """Checks, without opening it, that trained weights are `IMAGENET` or a file of Keras.

    Raises:
        ArgumentError: they are not.
    """
    name = os.fspath(weights)
    if name != IMAGENET and not (os.path.isfile(name) and name.endswith((".h5", ".hdf5"))):
        raise ArgumentError(
            "weights", f"{IMAGENET}, or a file of weights, .weights.h5 or .h5", name
        )
