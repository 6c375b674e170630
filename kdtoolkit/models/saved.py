"""Classifiers from `.keras` files, whoever trained them."""

import contextlib
import importlib
import io
import json
import math
import threading
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np

from kdtoolkit import _keras, bounded
from kdtoolkit._checks import ArgumentError, OneOf, check
from kdtoolkit._types import ImageShape, Network, PathLike
from kdtoolkit.data.preprocessing import INPUT_RANGES
from kdtoolkit.data.wording import shown, some
from kdtoolkit.models.contract import check_finite, check_float, check_logits
from kdtoolkit.models.exits import cut, exit_names
from kdtoolkit.models.graph import flatten
from kdtoolkit.models.input_range import pixels
from kdtoolkit.models.keras_weights import check_arrays
from kdtoolkit.models.precision import in_policy

_CONFIG = "config.json"
_WEIGHTS = "model.weights.h5"
RESIZED = "resized"
"""Name of the layer that scales images for a network that was made for others."""

_FREE = bounded.SMALL // 4  # float32 numbers of layers that keep no weights
_LARGEST_CONFIG = 2**26  # bytes; a thousand layers need half a million


def check_file(path):
    """Checks that a path is a `.keras` file, without loading it; returns its config, JSON text.

    Raises:
        ValueError: it is not.
    """
    return _checked(path)[0]


def _checked(path):
    """The config of a file that was checked, and how many numbers its weights are."""
    path = Path(path)
    try:
        bounded.check_regular(path)
        with zipfile.ZipFile(path) as archive:
            bounded.check_expansion(archive)
            config = bounded.read_member(archive, _CONFIG, _LARGEST_CONFIG).decode()
            json.loads(config)
            damaged = archive.testzip()
            count = None if damaged else _check_weights(archive)
    except Exception as error:  # Whatever zipfile, zlib and json raise for damaged bytes.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{str(path)!r} is not a .keras file: {reason}") from error
    if damaged:
        raise ValueError(f"{str(path)!r} is damaged: {damaged!r} does not match its checksum")
    return config, count


def _check_weights(archive):
    """Checks that weights, which HDF5 compresses on its own, are not out of proportion either.

    Returns:
        How many numbers they are.
    """
    if _WEIGHTS not in archive.namelist():
        raise ValueError(f"it has no {_WEIGHTS}")
    content = bounded.read_member(archive, _WEIGHTS, archive.getinfo(_WEIGHTS).file_size)
    try:
        with h5py.File(io.BytesIO(content)) as file:
            return check_arrays(file, len(content))
    except RuntimeError as error:  # HDF5's own, of damaged bytes
        raise ValueError(error) from error
    except ValueError as error:
        raise ValueError(f"{_WEIGHTS}: {error}") from error


@contextlib.contextmanager
def _bounded_variables(most):
    """Context in which the layers that this thread makes may have so many numbers, and no more.

    They are counted before they are allocated.
    """
    original, thread, total = keras.Layer.add_weight, threading.get_ident(), 0

    def add_weight(layer, *args, **kwargs):
        nonlocal total
        shape = next((a for a in (kwargs.get("shape"), *args) if isinstance(a, tuple | list)), ())
        if threading.get_ident() == thread and all(isinstance(n, int) and n >= 0 for n in shape):
            total += math.prod(shape)
            if total > max(most, _FREE):
                raise ValueError(
                    f"layer {layer.name!r} and those before it would have {total:,} weights, its "
                    f"{_WEIGHTS} has {most:,}"
                )
        return original(layer, *args, **kwargs)

    keras.Layer.add_weight = add_weight
    try:
        yield
    finally:
        keras.Layer.add_weight = original


def load_network(path):
    """Loads a functional or sequential model of one image input, as a functional one, flattened.

    Args:
        path: a `.keras` file.

    Returns:
        A functional `keras.Model`; what it returns is not looked at.

    Raises:
        ValueError: the file cannot be loaded, or holds another model; the message names the file.
    """
    config, count = _checked(path)
    if "kdtoolkit>" in config:
        importlib.import_module("kdtoolkit.models.quantized_layers")  # registers its layers
    try:
        with _bounded_variables(count):
            network = keras.models.load_model(path, compile=False)
    except Exception as error:  # Whatever a file's own layers raise.
        unknown = _unregistered(json.loads(config))
        reason = shown(str(error).strip().partition("\n")[0])
        if unknown:
            reason = f"it holds classes that are not registered: {some(unknown, most=10)}"
        raise ValueError(f"{str(path)!r} cannot be loaded by Keras: {reason}") from error
    try:
        check_float(network)
    except ValueError as error:
        raise ValueError(f"{str(path)!r} cannot be used: {error}") from error
    if getattr(network, "inputs", None):
        network = flatten(network)
    shape = getattr(network, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or not hasattr(network, "operations"):
        raise ValueError(
            f"{str(path)!r} must hold a functional model of one image input. Received: "
            f"{type(network).__name__} {network.name!r}, which takes {shape}"
        )
    return network


def load_classifier(
    path: PathLike,
    input_shape: ImageShape | None = None,
    classes: int | None = None,
    exit: str | None = None,
    *,
    resize: bool = False,
) -> Network:
    """Loads an image classifier as a network that returns logits.

    A multi-exit network gives one exit, by default its deepest. A last softmax, as an activation, a
    layer or an operation, is left out: what it was applied to are the logits. A network for images
    of any size becomes one for `input_shape`. It computes in the policy that Keras is set to.

    Args:
        path: a `.keras` file.
        input_shape: `(height, width, channels)` that it must take, or None.
        classes: number of classes that it must tell apart, or None.
        exit: name of the exit to keep of a multi-exit network, or None.
        resize: whether a network for images of another height and width gets those of
            `input_shape` resized, by a layer in front of it.

    Returns:
        A functional `keras.Model`, images to logits.

    Raises:
        ValueError: the file cannot be loaded, or what is in it is no such classifier; the message
            names the file.
    """
    network = load_network(path)
    if isinstance(network.output, dict):
        network = cut(network, exit_names(network)[-1] if exit is None else exit)
    elif exit is not None:
        raise ArgumentError("exit", "None for what is no multi-exit network", exit)
    network = _without_softmax(network)
    try:
        check_logits(network)
        check_finite(network)
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is not a classifier: {error}") from error
    resized = False
    if input_shape is not None and not _takes(network.input_shape[1:], input_shape):
        resized = resize and _takes(network.input_shape[3:], input_shape[2:])
        if not resized:
            raise ValueError(
                f"{str(path)!r} must take images of shape {tuple(input_shape)}. "
                f"Received: a network for {network.input_shape[1:]}"
            )
    if classes is not None and network.output_shape[-1] != classes:
        raise ValueError(
            f"{str(path)!r} must tell {classes} classes apart. "
            f"Received: a network for {network.output_shape[-1]}"
        )
    if input_shape is not None and not resized and None in network.input_shape[1:]:
        network = behind(network, keras.Input(input_shape, name="image"))
    if None not in network.input_shape[1:]:
        _check_values(network, path)
    network = in_policy(network)
    return _resized(network, input_shape) if resized else network


def _resized(network, input_shape):
    """The network behind layers that scale images; those made smaller are averages of pixels."""
    given = input_shape[:2]
    size = [own or wide for own, wide in zip(network.input_shape[1:3], given, strict=True)]
    # Keras' own averaging, `antialias`, is nothing that XLA can compile.
    blocks = tuple(max(wide // own, 1) for wide, own in zip(given, size, strict=True))
    pool = keras.layers.AveragePooling2D(blocks, padding="same", dtype="float32", name="pooled")
    resize = keras.layers.Resizing(*size, dtype="float32", name=RESIZED)

    def resized(image):
        # By itself this layer, and what comes after it, is in training mode.
        return resize(pool(image) if max(blocks) > 1 else image, training=False)

    return behind(network, keras.Input(input_shape, name="image"), resized)


def _check_values(network, path):
    """Checks what no look at the layers tells: finite values, and no probabilities."""
    images = np.random.default_rng(0).normal(size=(4, *network.input_shape[1:]))
    values = np.asarray(network(images.astype("float32"), training=False), np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{str(path)!r} returns values that are not finite")
    if (values >= 0).all() and np.allclose(values.sum(axis=-1), 1, atol=1e-3):
        raise ValueError(f"{str(path)!r} must return logits. Received: rows that sum to 1")


def from_input_range(network, preprocessing, input_range):
    """Puts a network that was trained on other pixel values behind our normalised images.

    Args:
        network: functional model of images.
        preprocessing: the `Preprocessing` whose images it will be given.
        input_range: what it was trained on: `"normalized"` as ours (it is returned as it is),
            `"unit"` from 0 to 1, or `"bytes"` from 0 to 255.

    Returns:
        A functional model on normalised images that shares the network's layers.

    Raises:
        ValueError: `input_range` is none of these.
    """
    check("input_range", input_range, OneOf(INPUT_RANGES))
    if input_range == "normalized":
        return network
    layer = pixels(preprocessing, input_range)
    return behind(network, keras.Input(network.input_shape[1:], name="image"), layer)


def behind(network, image, layer=None):
    """Returns a network, on the same variables, behind another input.

    Args:
        network: functional model of images.
        image: a `keras.Input`.
        layer: what turns it into the network's input; None for nothing.

    Returns:
        A functional `keras.Model` that shares the network's layers.
    """
    start = image if layer is None else layer(image)

    def call(operation, *args, **kwargs):
        def swap(value):
            return start if value is image else value

        args, kwargs = keras.tree.map_structure(swap, (args, kwargs))
        return operation(*args, **kwargs)

    # Not a call of the network: its layers stay visible, for hints and attention.
    return keras.models.clone_model(
        network, input_tensors=image, clone_function=lambda layer: layer, call_function=call
    )


def _takes(own, wanted):
    return all(size is None or size == other for size, other in zip(own, wanted, strict=True))


def _without_softmax(network):
    """The network up to its last softmax; an activation of a layer takes a copy of that layer."""
    end = _keras.node_of(network.outputs[0])
    last, start = end.operation, end.input_tensors
    if type(last).__name__ == "Softmax" or (
        isinstance(last, keras.layers.Activation) and last.activation is keras.activations.softmax
    ):
        return keras.Model(network.inputs[0], start[0], name=network.name)
    if getattr(last, "activation", None) is not keras.activations.softmax:
        return network
    linear = type(last).from_config({**last.get_config(), "activation": "linear"})
    model = keras.Model(network.inputs[0], linear(start[0]), name=network.name)
    linear.set_weights(last.get_weights())
    return model


def _unregistered(config):
    """Names of the classes in a model's config that neither Keras nor a registration knows."""
    found, left = set(), [config]  # no recursion: a file may nest as deeply as it likes
    while left:
        part = left.pop()
        if isinstance(part, dict):
            name = part.get("class_name")
            known = str(part.get("module")).partition(".")[0] in ("keras", "builtins")
            if name and "registered_name" in part and not known:
                registered = keras.saving.get_registered_object(part["registered_name"] or name)
                found |= {name} if registered is None else set()
            left += part.values()
        elif isinstance(part, list):
            left += part
    return found
