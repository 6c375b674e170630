"""SavedModel: TensorFlow's own format, for serving and other languages."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from kdtoolkit import files
from kdtoolkit._types import Network, PathLike
from kdtoolkit.export.artefact import Exported, exported_at
from kdtoolkit.export.classifier import trace
from kdtoolkit.export.quiet import quiet


def to_saved_model(
    network: Network, path: PathLike, preprocessing: Callable[[Any], Any] | None = None
) -> Exported:
    """Writes a network as a SavedModel directory.

    Its signature `serving_default` takes `image`, uint8 `(batch, height, width, channels)`, and
    returns `probabilities`, float32 `(batch, classes)`. A mixed-precision network is written in
    float32.

    Args:
        network: Keras model that returns logits, or an `Ensemble`.
        path: the directory; replaced as a whole if it exists.
        preprocessing: maps uint8 images to the network's input, a `kdtoolkit.data.Preprocessing`
            or any TensorFlow function; None if the network takes pixels from 0 to 255.

    Returns:
        An `Exported`.

    Raises:
        ValueError: the network does not return logits or takes no images of a fixed shape.
    """
    function = trace(network, preprocessing)
    module = tf.Module()  # and not Keras' ExportArchive, which renames inputs and outputs
    # What TensorFlow must store: it does not look into Keras variables, nor for tables in layers.
    module.weights = [variable.value for variable in network.variables]
    module.tables = [
        part
        for part in tf.train.TrackableView(network).descendants()
        if isinstance(part, tf.saved_model.experimental.TrackableResource)
    ]
    with quiet():
        files.write_atomically(
            path,
            lambda scratch: tf.saved_model.save(
                module, str(scratch), signatures={"serving_default": function}
            ),
        )
    return exported_at(path, "saved_model", "float32")
