"""Mixed LiteRT files: int8 where it costs little, float32 where it costs much; and which is which.

Rounding to 8 bits spoils a network where the channels of a tensor, which share one scale, have
ranges of different sizes, as those of depthwise convolutions often do. So every operation is
rounded alone first; those that spoil most stay in float.
"""

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from tensorflow.lite.python import convert as conversion

from kdtoolkit._checks import BELOW_1, ArgumentError, Words, check
from kdtoolkit._types import Network, PathLike
from kdtoolkit.edge.decisions import class_indices
from kdtoolkit.edge.description import operator_name
from kdtoolkit.export import litert, parity
from kdtoolkit.export.artefact import Exported
from kdtoolkit.export.classifier import trace
from kdtoolkit.export.metadata import About
from kdtoolkit.export.quiet import quiet

# How TensorFlow calls what a layer computes; what is merged into it has other names.
_OWN = re.compile(r"/(convolution|depthwise|MatMul|Add)\d*$")


@dataclass(frozen=True)
class RoundedOperation:
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
        return next((part for part in parts if _OWN.search(part)), parts[0])


@dataclass(frozen=True)
class Mixed:
    """A mixed file, and how it was found.

    Attributes:
        exported: the file; its `quantization` is `"mixed"`.
        operations: all that int8 rounds and a mixed file need not, the worst first: layers, and
            what is around them.
        float32_accuracy, int8_accuracy, accuracy: on the images that chose: of the file with
            nothing rounded, with everything, and of this one.
        images: how many chose.
    """

    exported: Exported
    operations: tuple[RoundedOperation, ...]
    float32_accuracy: float
    int8_accuracy: float
    accuracy: float
    images: int

    @property
    def floats(self) -> tuple[RoundedOperation, ...]:
        """The operations that stay in float32."""
        return tuple(operation for operation in self.operations if operation.floating)


def to_mixed(
    network: Network,
    path: PathLike,
    preprocessing: Callable[[Any], Any] | None = None,
    calibration: np.ndarray | None = None,
    images: np.ndarray | None = None,
    truth: np.ndarray | None = None,
    max_accuracy_drop: float = 0.01,
    *,
    labels: Sequence[str] | None = None,
    about: About | None = None,
) -> Mixed:
    """Writes an int8 LiteRT file in which the operations that rounding spoils stay in float32.

    In the order of what each spoils by itself, the first that bring the accuracy back within
    `max_accuracy_drop` of the file in float32 stay in float: how many is bisected, as if more of
    them were never worse. Then each of these, the least first, is rounded after all where the
    accuracy stays within it. If all of them are not enough, as where TensorFlow rounds an operation
    of several results whatever it is told, the file is that in float32.

    The ranges are found once. Then each operation takes a run over the calibration images, and each
    step of the choice one over `images`: the logarithm of the number of operations, and as many as
    stay in float. Some thousand images are enough.

    Args:
        network, path, preprocessing, labels, about: of `to_litert`.
        calibration: of `to_litert` for `"int8"`.
        images: uint8 `(n, height, width, channels)` that choose, such as validation images.
        truth: their classes, integers `(n,)`.
        max_accuracy_drop: largest loss of accuracy against float32, a fraction of the images.

    Returns:
        A `Mixed`.

    Raises:
        ValueError: as by `to_litert`; there are no such images or classes; the network is
            quantisation-aware: what it rounds was chosen.
    """
    check("max_accuracy_drop", max_accuracy_drop, BELOW_1)
    function = trace(network, preprocessing, batch=1)
    _check_network(network, function)
    write = litert.description(network, function, labels, about)
    shape = network.input_shape[1:]
    calibration = litert.calibration_images(calibration, shape)
    images = litert.calibration_images(images, shape, "images")
    classes = function.structured_outputs["probabilities"].shape[-1]
    truth = class_indices(truth, len(images), classes, "truth")
    with quiet(), tempfile.TemporaryDirectory() as directory:
        candidate = Path(directory) / "candidate.tflite"

        def run(content, images):
            candidate.write_bytes(content)
            return parity.probabilities(candidate, "litert", images)

        def right(content):
            return int(np.sum(run(content, images).argmax(axis=-1) == truth))

        signatures = {litert.SIGNATURE: function}
        whole = litert.convert(signatures, "float32")
        rounded = _rounded(signatures, litert.of_images(calibration))
        operators = _roundable(whole, rounded([]))
        expected = run(whole, calibration)
        spoilt = {}
        for name in operators:
            alone = run(rounded([other for other in operators if other != name]), calibration)
            spoilt[name] = float(np.mean(np.max(np.abs(alone - expected), axis=-1)))
        worst = sorted(operators, key=lambda name: -spoilt[name])
        counts = {}

        def count(floats):
            if floats not in counts:
                counts[floats] = right(rounded(floats))
            return counts[floats]

        reference = right(whole)
        # Of 100 images 0.01 is one, whatever the fractions are in binary.
        least = reference - int(max_accuracy_drop * len(images) + 1e-6)
        floats = _floats(tuple(worst), lambda names: count(names) >= least)
        content, found = whole, reference
        if count(floats) >= least:
            content, found = rounded(floats), count(floats)
        everything = count(())
    return Mixed(
        write(path, content, "mixed"),
        tuple(
            RoundedOperation(name, operators[name], spoilt[name], name in floats) for name in worst
        ),
        reference / len(images),
        everything / len(images),
        found / len(images),
        len(images),
    )


def _check_network(network, function):
    loop = litert.loop_in(function)
    if loop is not None:
        accepted = "without a loop, as recurrent layers have: its activations cannot be calibrated"
        received = Words(f"{network.name!r}, with {loop!r}")
        raise ArgumentError("network", accepted, received)
    if litert.has_ranges(function):
        accepted = "not quantisation-aware, which has chosen what is rounded"
        raise ArgumentError("network", accepted, Words(repr(network.name)))


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
        for name, operator, kind in _operations(rounded)
        # The network's own result keeps its name where it is turned into floats again.
        if kind == schema.TensorType.INT8 or operator == "DEQUANTIZE"
    }
    return {name: operator for name, operator, _ in _operations(whole) if name in integers}


def _operations(content):
    """Yields of each operation its first result's name, its own name, and the result's type."""
    model = schema.Model.GetRootAs(content, 0)
    for number in range(model.SubgraphsLength()):
        graph = model.Subgraphs(number)
        for index in range(graph.OperatorsLength()):
            operation = graph.Operators(index)
            tensor = graph.Tensors(operation.Outputs(0))
            operator = operator_name(model, operation.OpcodeIndex())
            yield tensor.Name().decode(), operator, tensor.Type()


def _floats(worst, keeps):
    """The names that stay in float; `keeps` says of some whether that is enough.

    All of them, if that is not enough either.
    """
    if keeps(()):
        return ()
    few, enough = 0, len(worst)
    while enough - few > 1:
        middle = (few + enough) // 2
        if keeps(worst[:middle]):
            enough = middle
        else:
            few = middle
    floats = worst[:enough]
    if keeps(floats):
        for name in reversed(floats[:-1]):  # without the last it was too few
            fewer = tuple(other for other in floats if other != name)
            if keeps(fewer):
                floats = fewer
    return floats
