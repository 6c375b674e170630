"""Files of weights that Keras wrote, for networks that end before a classifier."""

import math
import os
import re
import warnings

import h5py
import keras
import numpy as np

from kdtoolkit import bounded
from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit.models.contract import non_finite
from kdtoolkit.models.weights import finalize


def load(network: keras.Model, path: str | os.PathLike[str]) -> None:
    """Puts a file's weights into a network; layers that the file has behind its are left out.

    Args:
        network: functional model without a classifier.
        path: a file of `save_weights`, `.weights.h5`, or one of an older Keras, `.h5`, whose layers
            are in the order of the network.

    Raises:
        ArgumentError: the file cannot be read or does not fit; the message names the first layer.
    """
    for variable in network.weights:  # so that what the file does not reach is found
        if keras.backend.is_float_dtype(variable.dtype):
            variable.assign(np.full(variable.shape, math.nan))
    try:
        bounded.check_regular(path)
        with h5py.File(path) as file:
            check_arrays(file, os.path.getsize(path))
            named = _named(_layers(file))
            if named:
                _load_in_order(network, named)
        if not named:
            if not os.fspath(path).endswith(".weights.h5"):
                raise ValueError("Keras reads it where it is named .weights.h5")
            with warnings.catch_warnings():  # about parts that no network of ours keeps
                warnings.simplefilter("ignore")
                network.load_weights(path)
    except Exception as error:  # Whatever HDF5 and Keras raise, of damaged bytes too.
        received = Words(f"{os.fspath(path)!r}: {_reason(error)}")
        raise ArgumentError("weights", f"those of {network.name}", received) from error
    missing = non_finite(network.weights)
    if missing:
        received = Words(f"{os.fspath(path)!r}, which has none, or no finite ones, for {missing!r}")
        raise ArgumentError("weights", f"those of {network.name}", received)


def check_arrays(file: h5py.File, length: int) -> int:
    """Checks, before any is read, that arrays are in the file itself, and not out of proportion.

    Args:
        file: opened.
        length: of the file, in bytes.

    Returns:
        How many numbers they are.

    Raises:
        ValueError: one is in another file, or they expand to too many bytes.
    """
    arrays, elsewhere = [], []

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            arrays.append(item)
            if item.external or item.is_virtual:
                elsewhere.append(name)

    def visit_link(name, link):
        if isinstance(link, h5py.ExternalLink):
            elsewhere.append(name)

    file.visititems(visit)
    file.visititems_links(visit_link)
    if elsewhere:
        raise ValueError(f"{elsewhere[0]!r} is in another file")
    size = sum(array.nbytes for array in arrays)
    if size > max(bounded.SMALL, bounded.MOST_EXPANSION * length):
        raise ValueError(f"its {length:,} bytes expand to {size:,}")
    return sum(array.size for array in arrays)


def count(path: str | os.PathLike[str]) -> int:
    """Returns how many layers with weights a file has, which was loaded before."""
    with h5py.File(path) as file:
        named = _named(_layers(file))
        if named:
            return len(named)
        return sum(map(_has_arrays, file["layers"].values()))


def _layers(file):
    """Where the layers are: a model that an older Keras saved whole has a group for them."""
    return file.get("model_weights", file)


def _named(group):
    """Name -> arrays of the layers with weights, in their order in a file of an older Keras."""
    layers = {_text(name): group[_text(name)] for name in _attributes(group, "layer_names")}
    arrays = {
        name: [layer[_text(each)] for each in _attributes(layer, "weight_names")]
        for name, layer in layers.items()
    }
    return {name: own for name, own in arrays.items() if own}


def _attributes(group, name):
    """An attribute; Keras splits a long one into parts, `name0` and so on."""
    if name in group.attrs:
        return list(group.attrs[name])
    values, part = [], 0
    while f"{name}{part}" in group.attrs:
        values += list(group.attrs[f"{name}{part}"])
        part += 1
    return values


def _text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def _load_in_order(network, named):
    found = iter(named.items())
    for layer in _weighted(network):
        name, arrays = next(found, (None, []))
        variables = [*layer.trainable_weights, *layer.non_trainable_weights]
        ours, theirs = (
            ", ".join(str(tuple(each.shape)) for each in each_of) for each_of in (variables, arrays)
        )
        if name is None:
            raise ValueError(f"layer {layer.name!r} is not in it")
        if ours != theirs:
            raise ValueError(f"layer {layer.name!r} takes {ours}; {name!r}, in its place, {theirs}")
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array[()])
    finalize(network)


def _weighted(network):
    return [layer for layer in network.layers if layer.weights]


def _has_arrays(group):
    found = []
    group.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
    return bool(found)


def _reason(error):
    """An error in one line; of Keras' own, which is about several layers, the first one."""
    text = " ".join(str(error).split())
    of_layer = re.search(r"object <\w+ name=([^,]+),.*?>: (.*?) List of", text)
    if of_layer is None:
        return text
    name, reason = of_layer.groups()
    shapes = re.search(r"variable\.shape=(\(.*?\)), Received: value\.shape=(\(.*?\))", reason)
    if shapes:
        return f"layer {name!r} takes {shapes[1]}; the file has {shapes[2]}"
    return f"layer {name!r}: {reason}"
