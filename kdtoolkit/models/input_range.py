"""Which pixel values a network takes, as far as its beginning says."""

import re

import keras
import numpy as np

from kdtoolkit import _keras
from kdtoolkit.models.graph import class_name

# Layers after which pixels are the values that they were: scaling in space, and augmentation.
_IN_SPACE = re.compile(r"Resizing|CenterCrop|Random\w+|Cropping2D|ZeroPadding2D")
# Operations with a constant -> scale and offset; where True, the constant may come first.
_ARITHMETIC = {
    "TrueDivide": (lambda by: (1 / by, 0), False),
    "Divide": (lambda by: (1 / by, 0), False),
    "Subtract": (lambda by: (1, -by), False),
    "Multiply": (lambda by: (by, 0), True),
    "Add": (lambda by: (1, by), True),
}


def implied(network):
    """Returns the pixel values that a network scales by itself, if its beginning tells.

    What counts is what `Rescaling`, `Normalization` and the arithmetic with constants of Keras' own
    `preprocess_input`, in nested models too, make of pixels together: one of the ranges must become
    what networks compute with, about zero or from zero on, and the others must not.

    Args:
        network: functional model of images.

    Returns:
        `"bytes"` or `"unit"`, of `kdtoolkit.data.preprocessing.INPUT_RANGES`; None where the
        beginning does not scale, or so that it does not tell.
    """
    scale, offset, _ = _leading(network)
    if np.any(scale <= 0):
        return None
    zero = -offset / scale  # the pixel value that becomes 0
    if np.all((255 * scale >= 0.5) & (255 * scale <= 16) & (zero >= 0) & (zero < 255)):
        return "bytes"
    # Well inside: normalised images, whose mean is zero already, are not shifted by that much.
    if np.all((scale >= 1.5) & (scale <= 16) & (zero > 0.05) & (zero < 0.95)):
        return "unit"
    return None


def pixels(preprocessing, input_range):
    """Returns the layer that turns normalised images into the pixel values they were.

    Args:
        preprocessing: the `Preprocessing` that they were normalised with.
        input_range: `"unit"` or `"bytes"`.
    """
    top = 255.0 if input_range == "bytes" else 1.0
    return keras.layers.Rescaling(
        scale=[top * std for std in preprocessing.std],
        offset=[top * mean for mean in preprocessing.mean],
        dtype="float32",  # eight bits of a pixel are more than bfloat16 has
        name="pixels",
    )


def scaling(operation):
    """What a `Rescaling` or `Normalization` does.

    Returns:
        `(scale, offset)`, float64 arrays that broadcast with its input; None for another operation,
        or a `Normalization` that inverts.
    """
    kind = class_name(operation)
    if kind == "Rescaling":
        return np.asarray(operation.scale, float), np.asarray(operation.offset, float)
    if kind == "Normalization" and not operation.invert:
        mean, variance = (np.asarray(x, float) for x in (operation.mean, operation.variance))
        deviation = np.maximum(np.sqrt(variance), keras.backend.epsilon())
        return 1 / deviation, -mean / deviation
    return None


def _leading(network):
    """What the network does with pixels at first, as long as that is scaling.

    Returns:
        `(scale, offset, whole)`: float64 arrays that broadcast with the channels, and whether the
        network does nothing else.
    """
    scale, offset, tensor = np.float64(1), np.float64(0), network.inputs[0]
    while tensor is not network.outputs[0]:
        nodes = [
            node for node in _keras.nodes(network) if any(x is tensor for x in node.input_tensors)
        ]
        step = _scaling(nodes[0], tensor) if len(nodes) == 1 else None
        if step is None:
            return scale, offset, False
        by, plus, whole = step
        scale, offset = scale * by, offset * by + plus
        if not whole:
            return scale, offset, False
        tensor = nodes[0].output_tensors[0]
    return scale, offset, True


def _scaling(node, tensor):
    """As `_leading`, of one operation on the tensor; None if it does not scale."""
    operation, kind = node.operation, class_name(node.operation)
    if isinstance(operation, keras.Model) and len(getattr(operation, "inputs", None) or ()) == 1:
        # A Sequential has no graph of its own to look at.
        return _leading(keras.Model(operation.inputs[0], operation.outputs[0]))
    if _IN_SPACE.fullmatch(kind):
        return 1, 0, True
    known = scaling(operation)
    if known is not None:
        return *known, True
    if kind not in _ARITHMETIC or len(node.input_tensors) != 1:
        return None
    of_constant, either_order = _ARITHMETIC[kind]
    values = [*node.arguments.args, *node.arguments.kwargs.values()]
    constants = [value for value in values if value is not tensor]
    if len(values) != 2 or len(constants) != 1 or not (either_order or values[0] is tensor):
        return None
    return *of_constant(np.asarray(constants[0], float)), True
