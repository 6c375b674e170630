"""Weights of ResNets that were trained in PyTorch."""

import re

import numpy as np
from keras import layers

from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit._types import Network, PathLike
from kdtoolkit.data.wording import listed, shown
from kdtoolkit.models import tensor_files

# Every code base wraps and spells in its own way; what a tensor is can be told all the same. The
# spellings are those of torchvision and timm, of Hugging Face's transformers, and of the
# CIFAR code that published results come from.
_WRAPPED = re.compile(r"^((module|model|backbone|encoder|net|network|resnet|_orig_mod)\.)+")
_STEM = {
    "conv1": "stem_conv",
    "bn1": "stem_bn",
    "conv1.0": "stem_conv",
    "conv1.1": "stem_bn",
    "embedder.embedder.convolution": "stem_conv",
    "embedder.embedder.normalization": "stem_bn",
}
_HEAD = dict.fromkeys(
    ("fc", "linear", "classifier", "classifier.1", "head", "head.fc", "last_linear"), "logits"
)
_STAGES = (  # and what makes its number ours, which start with 1
    (re.compile(r"layer(\d)\.(\d+)\.(.+)"), 0),
    (re.compile(r"conv(\d)_x\.(\d+)\.(.+)"), -1),
    (re.compile(r"stages\.(\d)\.layers\.(\d+)\.(.+)"), 1),
)
_PARTS = {
    f"{shortcut}.{part}": f"shortcut_{ours}"
    for shortcut in ("downsample", "shortcut")
    for part, ours in (("0", "conv"), ("1", "bn"), ("convolution", "conv"), ("normalization", "bn"))
}
_PARTS |= {
    spelling: f"{part}{index}"
    for index in (1, 2, 3)
    for spelling, part in (
        (f"conv{index}", "conv"),
        (f"bn{index}", "bn"),
        # A sequence with an activation after each normalisation.
        (f"residual_function.{3 * index - 3}", "conv"),
        (f"residual_function.{3 * index - 2}", "bn"),
        (f"layer.{index - 1}.convolution", "conv"),
        (f"layer.{index - 1}.normalization", "bn"),
    )
}
_PARAMETERS = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def load_state_dict(network: Network, path: PathLike) -> None:
    """Gives a network the weights of a PyTorch network of the same architecture.

    Tensors are told apart by what they are (stem, stage, block, part), whatever the code base calls
    them. All of them are checked before the first one is assigned.

    Args:
        network: CIFAR ResNet or ResNet of `models.build`, with `padding="torch"` unless the images
            have odd sizes in front of every stride.
        path: a file of tensors: `.safetensors`, `.npz`, or a state dict written
            by `torch.save`, which is read without PyTorch and without executing anything.

    Raises:
        ValueError: the file cannot be read, its tensors are not those of the network, or the
            network pads images otherwise than PyTorch does.
    """
    tensors = tensor_files.read(path)
    names = _places(tensors, path)
    variables = {
        f"{layer.name}.{_PARAMETERS.get(variable.name, variable.name)}": variable
        for layer in network.layers
        for variable in layer.weights
    }
    _check_classes(network, tensors, names, variables, path)
    missing = [place for place in variables if place not in names]
    unexpected = [name for place, name in names.items() if place not in variables]
    differing = [
        f"{name} of {tensors[name].shape} for {_torch_shape(variable)}"
        for place, variable in variables.items()
        if (name := names.get(place)) and tensors[name].shape != _torch_shape(variable)
    ]
    no_floats = [name for name in names.values() if tensors[name].dtype.kind != "f"]
    wrong = {
        "missing": missing,
        "unexpected": unexpected,
        "other shapes": differing,
        "no floating point": no_floats,
    }
    if any(wrong.values()):
        reasons = (f"{what}: {listed(which, most=4)}" for what, which in wrong.items() if which)
        raise ValueError(f"{str(path)!r} does not fit {network.name!r}: {'; '.join(reasons)}")
    _check_padding(network)
    for place, variable in variables.items():
        variable.assign(_to_keras(tensors[names[place]]))


def _places(tensors, path):
    """Place -> name, `stage1_block1_conv1.weight` -> `module.layer1.0.conv1.weight`.

    What has no place in any ResNet keeps its name as one.
    """
    names = {}
    for name in tensors:
        module, _, parameter = _WRAPPED.sub("", name).rpartition(".")
        if parameter == "num_batches_tracked":
            continue
        layer = _layer(module)
        place = f"{layer}.{parameter}" if layer else name
        if place in names:
            both = f"{shown(names[place])} and {shown(name)}"
            raise ValueError(f"{str(path)!r} must hold one network. Received: {both}")
        names[place] = name
    return names


def _layer(module):
    for pattern, first in _STAGES:
        match = pattern.fullmatch(module)
        if match and match[3] in _PARTS:
            stage, block = int(match[1]) + first, int(match[2]) + 1
            return f"stage{stage}_block{block}_{_PARTS[match[3]]}"
    return (_STEM | _HEAD).get(module)


def _torch_shape(variable):
    shape = tuple(variable.shape)
    if len(shape) == 4:  # height, width, in, out -> out, in, height, width
        return (shape[3], shape[2], *shape[:2])
    return shape[::-1]


def _to_keras(tensor):
    if tensor.ndim == 4:
        tensor = tensor.transpose(2, 3, 1, 0)
    elif tensor.ndim == 2:
        tensor = tensor.T
    return tensor.astype(np.float32)


def _check_classes(network, tensors, names, variables, path):
    if "logits.bias" in names and "logits.bias" in variables:
        theirs, ours = tensors[names["logits.bias"]].shape, variables["logits.bias"].shape
        if len(theirs) == 1 and theirs != ours:
            raise ValueError(
                f"{str(path)!r} must tell {ours[0]} classes apart, as {network.name!r} does. "
                f"Received: weights for {theirs[0]}"
            )


def _check_padding(network):
    """PyTorch pads a kernel of size k by k // 2 on each side; "same" may put fewer before."""
    for layer in network.layers:
        if isinstance(layer, layers.Conv2D):
            kernel = layer.kernel_size
        elif isinstance(layer, layers.MaxPooling2D):
            kernel = layer.pool_size
        else:
            continue
        sizes = layer.input.shape[1:3]
        if layer.padding == "same" and any(
            _before(*sides) != sides[1] // 2
            for sides in zip(sizes, kernel, layer.strides, strict=True)
        ):
            raise ArgumentError(
                "network",
                "images as PyTorch does: build it with padding='torch'",
                Words(
                    f"{network.name!r}, whose {layer.name!r} pads {sizes[0]}x{sizes[1]} pixels on "
                    "one side more than on the other"
                ),
                must="pad",
            )


def _before(size, kernel, stride):
    """Zeros that "same" puts in front of the first pixel."""
    return max((-(-size // stride) - 1) * stride + kernel - size, 0) // 2
