"""A `.keras` file that takes pixels: plain Keras loads it, without this package."""

import contextlib

import keras
import numpy as np

from kdtoolkit import _keras, files
from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit._types import Network, PathLike
from kdtoolkit.data.preprocessing import Preprocessing
from kdtoolkit.export.artefact import Exported, exported_at
from kdtoolkit.models.contract import check_logits
from kdtoolkit.models.copies import reason_of
from kdtoolkit.models.graph import functional
from kdtoolkit.models.precision import in_float32
from kdtoolkit.models.saved import behind


def to_keras(network: Network, path: PathLike, preprocessing: Preprocessing) -> Exported:
    """Writes a network as a `.keras` file of Keras' own layers, from pixels to probabilities.

    It takes `image`, uint8 `(batch, height, width, channels)`, and returns `probabilities`, float32
    `(batch, classes)`. A layer `Rescaling` is the preprocessing, with the constants of
    `Preprocessing`, a layer `Softmax` the end.

    Args:
        network: functional or sequential `keras.Model` that takes images of a fixed shape and
            returns logits.
        path: the file; replaced if it exists.
        preprocessing: a `kdtoolkit.data.Preprocessing`.

    Returns:
        An `Exported`.

    Raises:
        ValueError: the network does not return logits, takes other images, or has layers or
            functions that plain Keras does not know, or does not load.
    """
    check_logits(network)
    network = functional(network)
    if network.input_shape[1:] != preprocessing.image_shape:
        accepted = f"of images {network.input_shape[1:]}, as the network takes them"
        received = Words(f"preprocessing of images {preprocessing.image_shape}")
        raise ArgumentError("preprocessing", accepted, received)
    kinds = {type(layer) for layer in _keras.all_layers(network)}
    foreign = sorted(kind.__name__ for kind in kinds if kind.__module__.split(".")[0] != "keras")
    if foreign:
        _refuse(network, f"with {', '.join(foreign)}")
    mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
    pixels = keras.layers.Rescaling(
        scale=(1 / (255 * std)).tolist(), offset=(-mean / std).tolist(), dtype="float32"
    )
    image = keras.Input(preprocessing.image_shape, dtype="uint8", name="image")
    with in_float32(network):
        whole = behind(network, image, pixels)
        probabilities = keras.layers.Softmax(dtype="float32", name="probabilities")(whole.output)
        model = keras.Model(image, probabilities, name=network.name)

        def write(scratch):
            model.save(scratch)
            try:
                with _plain_keras():
                    keras.saving.load_model(scratch, compile=False)
            except (TypeError, ValueError) as error:  # of a Lambda, an activation of one's own, ...
                _refuse(network, f"of which Keras says: {reason_of(error)}")

        files.write_atomically(path, write)
    return exported_at(path, "keras", "float32")


def _refuse(network, detail):
    accepted = "Keras' own layers and functions, for plain Keras to load it"
    received = Words(f"{network.name!r}, {detail}")
    raise ArgumentError("network", accepted, received, must="have")


@contextlib.contextmanager
def _plain_keras():
    """Lets Keras know no classes and functions but its own."""
    registered = keras.saving.get_custom_objects()
    kept = dict(registered)
    registered.clear()
    try:
        with keras.saving.custom_object_scope({}):
            yield
    finally:
        registered.update(kept)
