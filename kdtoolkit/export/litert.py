"""LiteRT: one .tflite file for phones and small boards."""

import tempfile
from pathlib import Path

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from kdtoolkit import files
from kdtoolkit.export.artefact import measure
from kdtoolkit.export.classifier import trace
from kdtoolkit.export.quiet import quiet

QUANTIZATIONS = ("float32", "float16", "dynamic_range")


def to_litert(network, path, preprocessing=None, quantization="float32"):
    """Writes a network as a LiteRT file.

    Its signature `serving_default` takes one `image`, uint8 `(1, height, width, channels)`, and
    returns `probabilities`, float32 `(1, classes)`. A mixed-precision network is written in
    float32.

    Args:
        network: Keras model that returns logits, or an `Ensemble`.
        path: the file; replaced if it exists.
        preprocessing: maps uint8 images to the network's input, a `kdtoolkit.data.Preprocessing`
            or any TensorFlow function; None if the network takes pixels from 0 to 255.
        quantization: of the weights: `"float32"` leaves them, `"float16"` halves the file,
            `"dynamic_range"` stores 8-bit integers and quantises activations while it runs.

    Returns:
        An `Exported`.

    Raises:
        ValueError: the network does not return logits or takes no images of a fixed shape, or
            `quantization` is none of the above.
    """
    if quantization not in QUANTIZATIONS:
        raise ValueError(
            f"Argument `quantization` must be one of {', '.join(QUANTIZATIONS)}. "
            f"Received: quantization={quantization!r}"
        )
    function = trace(network, preprocessing, batch=1)
    with quiet():
        content = convert({"serving_default": function}, quantization)
    files.write_atomically(path, lambda scratch: scratch.write_bytes(content))
    return measure(path, "litert", quantization)


def convert(functions, quantization):
    """Converts concrete functions into one LiteRT model, a signature each.

    Args:
        functions: signature name -> concrete function with named inputs and a dict of outputs.
        quantization: one of `QUANTIZATIONS`.

    Returns:
        The model's bytes.
    """
    module = tf.Module()
    signatures = {name: _frozen(function) for name, function in functions.items()}
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "frozen")
        tf.saved_model.save(module, path, signatures=signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(path, signature_keys=list(functions))
        if quantization != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantization == "float16":
            converter.target_spec.supported_types = [tf.float16]
        return converter.convert()


def _frozen(function):
    """The function with its weights as constants, and its names.

    Unfrozen, captured Keras variables reach the file as reads of variables that nothing fills:
    outputs are NaN.
    """
    frozen = convert_variables_to_constants_v2(function)

    @tf.function(autograph=False, input_signature=function.structured_input_signature[0])
    def call(*inputs):
        return tf.nest.pack_sequence_as(function.structured_outputs, frozen(*inputs))

    return call
