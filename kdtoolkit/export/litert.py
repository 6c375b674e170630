"""LiteRT: one .tflite file for phones and small boards."""

import contextlib
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kdtoolkit import files
from kdtoolkit._checks import ArgumentError, OneOf, Words, check
from kdtoolkit._types import Network, PathLike
from kdtoolkit.edge import associated
from kdtoolkit.export import int4, metadata
from kdtoolkit.export.artefact import Exported, exported_at
from kdtoolkit.export.classifier import trace
from kdtoolkit.export.quantizations import CALIBRATED, INTEGERS, QUANTIZATIONS
from kdtoolkit.export.quiet import quiet

SIGNATURE = "serving_default"
_LOOPS = ("While", "StatelessWhile")


def to_litert(
    network: Network,
    path: PathLike,
    preprocessing: Callable[[Any], Any] | None = None,
    quantization: str = "float32",
    calibration: np.ndarray | None = None,
    *,
    labels: Sequence[str] | None = None,
    about: metadata.About | None = None,
) -> Exported:
    """Writes a network as a LiteRT file.

    Its signature `serving_default` takes one `image`, uint8 `(1, height, width, channels)`, and
    returns `probabilities`, `(1, classes)`: float32, or uint8 for `quantization="uint8"`. Those are
    read as `scale * (value - zero_point)`, with `scale, zero_point` from the interpreter's
    `get_output_details()[0]["quantization"]`. A mixed-precision network is written in float32.

    The file carries `TFLITE_METADATA`, so that MediaPipe's ImageClassifier uses it as it is, where
    the images have 3 channels; `labels` are in the file too.

    Args:
        network: Keras model that returns logits, or an `Ensemble`.
        path: the file; replaced if it exists.
        preprocessing: maps uint8 images to the network's input, a `kdtoolkit.data.Preprocessing`
            or any TensorFlow function; None if the network takes pixels from 0 to 255.
        quantization: `"float32"` for none, `"float16"` halves the file, `"dynamic_range"` stores
            weights as 8-bit integers and quantises activations while it runs, `"int4"` does so
            with 4 bits (an extra: `pip install "kdtoolkit[int4]"`), `"int8"` computes in
            integers between ends of float32, `"uint8"` has nothing but integers, for processors
            without floats.
        calibration: uint8 images `(n, height, width, channels)`, some hundred training images,
            whose activations give the ranges for `"int8"` and `"uint8"`. A network of
            `kdtoolkit.compression.quantization_aware` brings its own ranges: `"int8"` takes none
            from images then, and what stayed in float in training is in float in the file;
            `"uint8"` takes from them those of the preprocessing and of what stayed in float, which
            is rounded after training for once.
        labels: class names, one for each logit; None if there are none.
        about: name, author and licence, for the metadata.

    Returns:
        An `Exported`.

    Raises:
        ValueError: the network does not return logits or takes no images of a fixed shape,
            `labels` are no such names, `quantization` is none of the above, not one of integers for
            a quantisation-aware network, or one for a network with a loop, or `calibration` is
            needed or no such images.
    """
    check("quantization", quantization, OneOf(QUANTIZATIONS))
    if quantization == "int4":
        int4.check_installed("quantization")
    full = quantization == "uint8"
    function = trace(network, preprocessing, batch=1, float_pixels=full)
    write = description(network, function, labels, about)
    samples = None
    if calibration is not None or full or (quantization == "int8" and not has_ranges(function)):
        images = calibration_images(calibration, network.input_shape[1:])
        if full:
            images = images.astype("float32")
            # Black and white are seen, so that each pixel is its own integer, with scale 1.
            images[0].flat[[0, -1]] = 0, 255
        samples = of_images(images)
    with quiet():
        content = convert({SIGNATURE: function}, quantization, samples)
    return write(path, content, quantization)


def description(network, function, labels, about):
    """Returns what writes a converted network's file, with its metadata.

    Args:
        network, labels, about: of `to_litert`.
        function: that was converted, of `trace`.

    Returns:
        Function of the path, the content and the kind of file, that returns an `Exported`.

    Raises:
        ValueError: `labels` are no names of its classes.
    """
    shape = network.input_shape[1:]
    classes = function.structured_outputs["probabilities"].shape[-1]
    texts = {} if labels is None else {associated.LABELS: _labels_text(labels, classes)}

    def write(path, content, quantization):
        whole = metadata.added(content, shape, classes, about, labelled=labels is not None)

        def write_to(scratch):
            scratch.write_bytes(whole)
            if texts:
                associated.append(scratch, texts)

        files.write_atomically(path, write_to)
        return exported_at(path, "litert", quantization)

    return write


def of_images(images):
    """Returns the samples of `convert` that images are."""

    def samples():
        for image in images:
            yield SIGNATURE, {"image": image[None]}

    return samples


def _labels_text(labels, classes):
    labels = tuple(labels)
    associated.check_labels(labels)
    if len(labels) != classes:
        raise ArgumentError("labels", f"{classes} names, one for each logit", Words(len(labels)))
    return associated.labels_text(labels)


def calibration_images(images, image_shape, argument="calibration"):
    """Returns the images of an argument as an array.

    Raises:
        ValueError: they are no uint8 images of the shape, or there are none.
    """
    found = np.asarray(images)
    if found.dtype != np.uint8 or found.shape[1:] != image_shape or not len(found):
        received = "none" if images is None else f"{found.dtype}, shape {found.shape}"
        accepted = f"uint8 images of shape (n, {', '.join(map(str, image_shape))})"
        raise ArgumentError(argument, accepted, Words(received))
    return found


def convert(functions, quantization, samples=None):
    """Converts concrete functions into one LiteRT model, a signature each.

    Args:
        functions: signature name -> concrete function with named inputs and a dict of outputs.
        quantization: one of `QUANTIZATIONS`.
        samples: function that yields pairs of a signature name and its inputs, name -> array, whose
            activations give the ranges for `"int8"` and `"uint8"`; None if the functions bring all.
            Where they bring some, `"int8"` has no others.

    Returns:
        The model's bytes.

    Raises:
        ValueError: a function has fake quantisation and is not converted to integers, or a loop
            whose ranges the samples were to give.
    """
    ranged = any(map(has_ranges, functions.values()))
    if quantization not in INTEGERS and ranged:
        # The converter would drop the rounding, and compute something else.
        accepted = f"{' or '.join(INTEGERS)} for a quantisation-aware network"
        raise ArgumentError("quantization", accepted, quantization)
    if quantization == "int4":
        return int4.with_weights_in_four_bits(convert(functions, "float32"))
    if quantization == "int8" and ranged:
        samples = None  # What has no range has learned to compute in floats.
    if quantization in INTEGERS and samples is not None:
        for function in functions.values():
            check_calibration(function)
    with converter_of(functions) as converter:
        if quantization != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantization == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if quantization in INTEGERS:
            converter.representative_dataset = samples
        if quantization == "uint8":
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.uint8
        return converter.convert()


@contextlib.contextmanager
def converter_of(functions):
    """TensorFlow's converter of concrete functions, a signature each; usable inside the block."""
    module = tf.Module()
    # Held by nothing, variables reach the file as reads that nothing fills: outputs are NaN.
    module.held = [variable for f in functions.values() for variable in f.graph.variables]
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter's own, deprecated, interpreter
        path = str(Path(directory) / "saved_model")
        tf.saved_model.save(module, path, signatures=functions)
        yield tf.lite.TFLiteConverter.from_saved_model(path, signature_keys=list(functions))


def check_calibration(function):
    """Checks that samples can give the ranges of a concrete function's activations.

    TensorFlow's calibration ends the process where a loop hands a tensor on as it is, which those
    over time do with their inputs.

    Raises:
        ValueError: it has a loop.
    """
    loop = loop_in(function)
    if loop is not None:
        *kinds, last = CALIBRATED
        raise ArgumentError(
            "quantization",
            f"{', '.join(kinds)} or {last} for a network with a loop, as recurrent layers have: "
            "its activations cannot be calibrated",
            Words(f"a network with {loop!r}"),
            "Accepted: another kind of file, or the layer with `unroll=True`, where it has that",
            must="not be",
        )


def loop_in(function):
    """The name of the first loop in a concrete function; None if there is none."""
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for called in graph.library.function for node in called.node_def)]
    return next((node.name for node in nodes if node.op in _LOOPS), None)


def has_ranges(function):
    """Whether there is fake quantisation in a function, as in a quantisation-aware network."""
    return any(op.type.startswith("FakeQuant") for op in function.graph.get_operations())
