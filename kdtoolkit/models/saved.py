"""Classifiers from `.keras` files, whoever trained them."""

import json
import zipfile
from pathlib import Path

import keras

from kdtoolkit.models.contract import check_logits
from kdtoolkit.models.exits import cut

INPUT_RANGES = ("normalized", "unit", "bytes")


def check_file(path):
    """Checks that a path is a `.keras` file, without loading it.

    Raises:
        ValueError: it is not.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            json.loads(archive.read("config.json"))
            damaged = archive.testzip()
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{str(path)!r} is not a .keras file: {error}") from error
    if damaged:
        raise ValueError(f"{str(path)!r} is damaged: {damaged!r} does not match its checksum")


def load_network(path):
    """Loads a functional or sequential model of one image input, as a functional one.

    Args:
        path: a `.keras` file.

    Returns:
        A functional `keras.Model`; what it returns is not looked at.

    Raises:
        ValueError: the file cannot be loaded, or holds another model; the message names the file.
    """
    check_file(path)
    try:
        network = keras.models.load_model(path, compile=False)
    except Exception as error:  # Whatever a file's own layers raise.
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{str(path)!r} cannot be loaded by Keras: {reason}") from error
    if isinstance(network, keras.Sequential) and network.built:
        network = keras.Model(network.inputs, network.outputs[0], name=network.name)
    shape = getattr(network, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or not hasattr(network, "operations"):
        raise ValueError(
            f"{str(path)!r} must hold a functional model of one image input. Received: "
            f"{type(network).__name__} {network.name!r}, which takes {shape}"
        )
    return network


def load_classifier(path, input_shape=None, classes=None, exit=None):
    """Loads an image classifier as a network that returns logits.

    A multi-exit network gives one exit, by default its deepest. A last softmax, as an activation or
    as a layer, is left out: what it was applied to are the logits.

    Args:
        path: a `.keras` file.
        input_shape: `(height, width, channels)` that it must take, or None.
        classes: number of classes that it must tell apart, or None.
        exit: name of the exit to keep of a multi-exit network, or None.

    Returns:
        A functional `keras.Model`, images to logits.

    Raises:
        ValueError: the file cannot be loaded, or what is in it is no such classifier; the message
            names the file.
    """
    network = load_network(path)
    if isinstance(network.output, dict):
        network = cut(network, list(network.output)[-1] if exit is None else exit)
    elif exit is not None:
        raise ValueError(f"Argument `exit` is for multi-exit networks. Received: exit={exit!r}")
    network = _without_softmax(network)
    try:
        check_logits(network)
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is not a classifier: {error}") from error
    if input_shape is not None and not _takes(network.input_shape[1:], input_shape):
        raise ValueError(
            f"{str(path)!r} must take images of shape {tuple(input_shape)}. "
            f"Received: a network for {network.input_shape[1:]}"
        )
    if classes is not None and network.output_shape[-1] != classes:
        raise ValueError(
            f"{str(path)!r} must tell {classes} classes apart. "
            f"Received: a network for {network.output_shape[-1]}"
        )
    return network


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
    if input_range not in INPUT_RANGES:
        raise ValueError(
            f"Argument `input_range` must be one of {', '.join(INPUT_RANGES)}. "
            f"Received: input_range={input_range!r}"
        )
    if input_range == "normalized":
        return network
    top = 255.0 if input_range == "bytes" else 1.0
    image = keras.Input(network.input_shape[1:], name="image")
    pixels = keras.layers.Rescaling(
        scale=[top * std for std in preprocessing.std],
        offset=[top * mean for mean in preprocessing.mean],
        name="pixels",
    )(image)

    def call(layer, *args, **kwargs):
        def swap(value):
            return pixels if value is image else value

        args, kwargs = keras.tree.map_structure(swap, (args, kwargs))
        return layer(*args, **kwargs)

    # Not a call of the network: its layers stay visible, for hints and attention.
    return keras.models.clone_model(
        network, input_tensors=image, clone_function=lambda layer: layer, call_function=call
    )


def _takes(own, wanted):
    return all(size is None or size == other for size, other in zip(own, wanted, strict=True))


def _without_softmax(network):
    """The network up to its last softmax, on the same variables."""
    last = network.outputs[0]._keras_history.operation
    if _is_softmax_layer(last):
        return keras.Model(network.inputs, last.input, name=network.name)
    if getattr(last, "activation", None) is not keras.activations.softmax:
        return network
    config = {**last.get_config(), "activation": "linear"}
    linear = type(last).from_config(config)
    model = keras.Model(network.inputs, linear(last.input), name=network.name)
    linear.set_weights(last.get_weights())
    return model


def _is_softmax_layer(layer):
    activation = isinstance(layer, keras.layers.Activation)
    return isinstance(layer, keras.layers.Softmax) or (
        activation and layer.activation is keras.activations.softmax
    )
