"""Mixed LiteRT files: int8 where it costs little, float32 where it costs much; and which is which.

Rounding to 8 bits spoils a network where the channels of a tensor, which share one scale, have
ranges of different sizes, as those of depthwise convolutions often do. So every layer is rounded
alone first; those that spoil most stay in float.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from tensorflow.lite.python import convert as conversion

from kdtoolkit._checks import AT_LEAST_0, ArgumentError, Words, check
from kdtoolkit._types import Network, PathLike
from kdtoolkit.export import litert, parity
from kdtoolkit.export.artefact import Exported
from kdtoolkit.export.classifier import trace
from kdtoolkit.export.metadata import About
from kdtoolkit.export.quiet import quiet

_NAMES = {number: name for name, number in vars(schema.BuiltinOperator).items() if name[0] != "_"}

# How TensorFlow calls what a layer with weights computes; what is merged into it has other names.
_OWN = ("/convolution", "/depthwise", "/MatMul")


@dataclass(frozen=True)
class RoundedLayer:
    """What rounding an operation of a file does.

    Attributes:
        name: of the tensor that it returns, in the file: the names of what was merged into it.
        operator: LiteRT's name of it, such as `"CONV_2D"`.
        mean_difference: where it alone is rounded, the mean over the calibration images of an
            image's largest difference of a probability from the file in float32.
        floating: whether it stays in float32.
    """

    name: str
    operator: str
    mean_difference: float
    floating: bool

    @property
    def short_name(self) -> str:
        """The part of the name that is the operation's own, where it can be told."""
        parts = self.name.split(";")
        return next((part for part in parts if part.endswith(_OWN)), parts[0])


@dataclass(frozen=True)
class Mixed:
    """A mixed file, and how it was found.

    Attributes:
        exported: the file; its `quantization` is `"mixed"`.
        layers: all that int8 rounds, the worst first.
        float32_accuracy, int8_accuracy, accuracy: on the images that chose: of the file with
            nothing rounded, with everything, and of this one.
        images: how many chose.
    """

    exported: Exported
    layers: tuple[RoundedLayer, ...]
    float32_accuracy: float
    int8_accuracy: float
    accuracy: float
    images: int

    @property
    def floats(self) -> tuple[RoundedLayer, ...]:
        """The layers that stay in float32."""
        return tuple(layer for layer in self.layers if layer.floating)


def to_mixed(
    network: Network,
    path: PathLike,
    preprocessing: Callable[[Any], Any] | None = None,
    calibration: np.ndarray | None = None,
    images: np.ndarray | None = None,
    truth: np.ndarray | None = None,
    max_drop: float = 0.01,
    *,
    labels: Sequence[str] | None = None,
    about: About | None = None,
) -> Mixed:
    """Writes an int8 LiteRT file in which the layers that rounding spoils most stay in float32.

    Of the layers in the order of what each spoils by itself, as few of the first stay in float as
    bring the accuracy back within `max_drop` of the file in float32; then each of these is rounded
    after all, the least first, where the accuracy stays within it. No layer can be spared of those
    that are left; another choice of fewer layers may exist. It takes a conversion and, for the
    choice, some runs over `images`; each layer, a run over the calibration images.

    Args:
        network, path, preprocessing, labels, about: of `to_litert`.
        calibration: of `to_litert` for `"int8"`.
        images: uint8 `(n, height, width, channels)` that choose, such as validation images.
        truth: their classes, integers `(n,)`.
        max_drop: largest loss of accuracy against float32, a fraction of the images, at least 0.

    Returns:
        A `Mixed`.

    Raises:
        ValueError: as by `to_litert`; there are no such images; the network is
            quantisation-aware: what it rounds was chosen.
    """
    check("max_drop", max_drop, AT_LEAST_0)
    function = trace(network, preprocessing, batch=1)
    if litert.has_ranges(function):
        raise ArgumentError("network", "not quantisation-aware", Words(network.name), must="be")
    write = litert.description(network, function, labels, about)
    shape = network.input_shape[1:]
    calibration = litert.calibration_images(calibration, shape)
    images = litert.calibration_images(images, shape, "images")
    truth = np.asarray(truth)
    if truth.shape != (len(images),):
        raise ArgumentError("truth", f"{len(images)} classes, one an image", Words(truth.shape))
    litert.check_calibration(function)
    signatures = {litert.SIGNATURE: function}
    with quiet(), tempfile.TemporaryDirectory() as directory:
        rounded = _rounded(signatures, litert.of_images(calibration))
        whole = litert.convert(signatures, "float32")
        candidates = _roundable(whole, rounded([]))

        def run(content, images):
            file = Path(directory) / "candidate.tflite"
            file.write_bytes(content)
            return parity.probabilities(file, "litert", images)

        def accuracy(content):
            return float(np.mean(run(content, images).argmax(axis=-1) == truth))

        expected = run(whole, calibration)
        spoilt = {}
        for name in candidates:
            alone = run(rounded([other for other in candidates if other != name]), calibration)
            spoilt[name] = float(np.mean(np.max(np.abs(alone - expected), axis=-1)))
        worst = sorted(candidates, key=lambda name: -spoilt[name])
        reference = accuracy(whole)
        least = reference - max_drop

        def keeps(floats):
            return accuracy(rounded(floats)) >= least

        floats = _fewest(worst, keeps)
        content = rounded(floats)
        exported = write(path, content, "mixed")
        layers = (
            RoundedLayer(name, candidates[name], spoilt[name], name in floats) for name in worst
        )
        return Mixed(
            exported,
            tuple(layers),
            reference,
            accuracy(rounded([])),
            accuracy(content),
            len(images),
        )


def _rounded(signatures, samples):
    """Returns the function of the names of what stays in float that returns an int8 file's content.

    The ranges are found once: that is what takes long.
    """
    with litert.converter_of(signatures) as converter:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = samples
        # What TensorFlow's own QuantizationDebugger does, which cannot leave everything in float.
        converter._experimental_calibrate_only = True
        calibrated = converter.convert()
    return lambda floats: conversion.mlir_quantize(calibrated, denylisted_nodes=list(floats))


def _roundable(whole, rounded):
    """What is rounded: name of the result -> the operator, in the order of the file in float32."""
    integers = {
        name
        for name, operator, kind in _operators(rounded)
        # The network's own result keeps its name where it is turned into floats again.
        if kind == schema.TensorType.INT8 or operator == "DEQUANTIZE"
    }
    return {name: operator for name, operator, _ in _operators(whole) if name in integers}


def _operators(content):
    """Yields of each operation its first result's name, its own name, and the result's type."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for graph in model.subgraphs:
        for operation in graph.operators:
            code = model.operatorCodes[operation.opcodeIndex]
            tensor = graph.tensors[operation.outputs[0]]
            # Files of old have the number in the one field, those of today in the other.
            number = max(code.builtinCode, code.deprecatedBuiltinCode)
            yield tensor.name.decode(), _NAMES.get(number, "CUSTOM"), tensor.type


def _fewest(worst, keeps):
    """The names that stay in float; `keeps` says of some whether that is enough."""
    if keeps([]):
        return []
    few, enough = 0, len(worst)  # the first are too few, so many are enough
    while enough - few > 1:
        middle = (few + enough) // 2
        if keeps(worst[:middle]):
            enough = middle
        else:
            few = middle
    floats = worst[:enough]
    for name in reversed(worst[: enough - 1]):  # without the last it was too few
        fewer = [other for other in floats if other != name]
        if keeps(fewer):
            floats = fewer
    return floats
