"""Which layers of a network are pruned, and how many of their weights are zero."""

import fnmatch
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from kdtoolkit import _keras
from kdtoolkit._checks import ArgumentError, Words, near
from kdtoolkit._types import Network
from kdtoolkit.data.wording import listed
from kdtoolkit.models.contract import check_kernels
from kdtoolkit.models.graph import name_apart, origin, returns_its_input
from kdtoolkit.models.kinds import CONVOLUTIONS, DEPTHWISE, SEPARABLE, TRANSPOSED

_CONVOLUTIONS = (*CONVOLUTIONS, *TRANSPOSED, *SEPARABLE)
_PRUNABLE = (layers.Dense, layers.EinsumDense, *DEPTHWISE, *_CONVOLUTIONS)
_SMALL_HEAD = 10_000  # weights


class Sparsity(NamedTuple):
    """How many of the weights in the kernels of a network are zero.

    Kernels are those of convolutions and dense layers, attention's included, and both of a
    separable convolution, of which pruning masks the pointwise one. Biases, normalisation,
    embeddings and other weights are not counted.

    Attributes:
        total: fraction of the weights of all the kernels together.
        layers: name of a layer -> fraction of its kernel's weights.
        size: how many weights the kernels have, of which `total` is a fraction.
    """

    total: float
    layers: dict[str, float]
    size: int


def sparsity(network: Network) -> Sparsity:
    """Counts the zeros in the kernels of a network's convolutions and dense layers.

    Args:
        network: built Keras model. A layer of a nested model, or of a layer, is called
            `model/layer`, such as `multi_head_attention/query`; a second one of that name
            `model/layer_1`. One that several models share counts once, as the first one's.

    Raises:
        ValueError: it has no such layers.
    """
    return zeros({name: _all_kernels(layer) for name, layer in _candidates(network).items()})


def zeros(kernels) -> Sparsity:
    """Counts the zeros of kernels: name -> list of variables."""
    counts = {}
    for name, variables in kernels.items():
        arrays = [keras.ops.convert_to_numpy(variable) for variable in variables]
        counts[name] = sum(map(np.count_nonzero, arrays)), sum(array.size for array in arrays)
    left, size = (sum(column) for column in zip(*counts.values(), strict=True))
    return Sparsity(1 - left / size, {name: 1 - n / of for name, (n, of) in counts.items()}, size)


def kernel(layer):
    """The variable of a layer that is pruned; of a separable convolution, the pointwise one."""
    return layer.pointwise_kernel if isinstance(layer, SEPARABLE) else layer.kernel


def _all_kernels(layer):
    if isinstance(layer, SEPARABLE):
        return [layer.depthwise_kernel, layer.pointwise_kernel]
    return [kernel(layer)]


def kernels(network):
    """Name -> kernel of every convolution and dense layer of a network.

    Raises:
        ValueError: it has none, or is not built.
    """
    return {name: kernel(layer) for name, layer in _candidates(network).items()}


def choose(network, chosen=None):
    """Returns the layers to prune: name -> layer.

    Args:
        network: built Keras model.
        chosen: as `layers` of `MagnitudePruning`.

    Raises:
        ValueError: something in `chosen` matches no layer, the network has none to choose from, or
            one whose kernel is no variable of floats.
    """
    check_kernels(network)
    candidates = _candidates(network)
    if chosen is None:
        found = _default(network, candidates)
        if not found:
            accepted = "which layers to prune, where all are left out by default"
            received = Words(f"layers=None, for {listed(candidates, most=8)}")
            raise ArgumentError("layers", accepted, received, must="say")
        return found
    several = isinstance(chosen, Sequence) and not isinstance(chosen, str)
    names = {
        name
        for choice in (chosen if several else [chosen])
        for name in _matching(candidates, choice, "layers")
    }
    if not names:
        raise ArgumentError("layers", "a layer", chosen, must="choose")
    return {name: layer for name, layer in candidates.items() if name in names}


def by_pattern(names, values, argument):
    """Name -> the value of the first pattern that matches it, for the names that one matches.

    Args:
        names: of layers.
        values: name pattern -> value.
        argument: the name that `values` has where it was passed.

    Raises:
        ValueError: a pattern matches no name.
    """
    names = dict.fromkeys(names)
    found = {}
    for pattern, value in values.items():
        for name in _matching(names, pattern, argument):
            found.setdefault(name, value)
    return found


def _candidates(network):
    found = {}
    seen = set()
    for name, layer in _prunable(network):
        if not layer.built:
            received = Words(f"{network.name!r}, whose layer {name!r} has no weights yet")
            raise ArgumentError("network", "built before it is pruned", received)
        if id(layer) not in seen:  # models may share it
            seen.add(id(layer))
            found[name_apart(name, found)] = layer  # two of one layer may have one name
    if not found:
        received = Words(f"{network.name!r}, which has {len(network.layers)} other layers")
        accepted = "convolutions or dense layers, and must be built"
        raise ArgumentError("network", accepted, received, must="have")
    return found


def _prunable(layer, prefix=""):
    """Pairs of the name and the layer, from inside of models, attention and others' layers too."""
    for inner in _keras.all_layers(layer, include_self=False, recursive=False):
        if isinstance(inner, _PRUNABLE):
            yield prefix + inner.name, inner
        else:
            yield from _prunable(inner, f"{prefix}{inner.name}/")


def _default(network, candidates):
    convolutions = [
        name
        for name, layer in candidates.items()
        if isinstance(layer, (*_CONVOLUTIONS, *DEPTHWISE))
    ]
    heads = {id(layer) for layer in _heads(network)}

    def is_small_head(layer):
        return id(layer) in heads and math.prod(kernel(layer).shape) < _SMALL_HEAD

    return {
        name: layer
        for name, layer in candidates.items()
        if name not in convolutions[:1]
        and not isinstance(layer, DEPTHWISE)
        and not is_small_head(layer)
    }


def _heads(network):
    """The layers whose outputs are the network's, up to an activation."""

    def passes_on(operation):
        activation = isinstance(operation, (layers.Softmax, layers.Activation))
        return activation or returns_its_input(operation)

    for output in getattr(network, "outputs", None) or ():
        yield origin(output, passes_on)


def _matching(candidates, choice, argument):
    """Names of the layers that a pattern, a type or a predicate chooses; at least one."""
    if isinstance(choice, str):
        found = fnmatch.filter(candidates, choice)
    elif isinstance(choice, type):
        found = [name for name, layer in candidates.items() if isinstance(layer, choice)]
    elif isinstance(choice, Callable):
        found = [name for name, layer in candidates.items() if choice(layer)]
    else:
        raise ArgumentError(argument, "name patterns, types of layers or predicates", choice)
    if not found:
        shown = getattr(choice, "__name__", str(choice))
        hint = near(shown, candidates) or f"There are {listed(candidates, most=8)}."
        received = Words(f"{shown!r}, which matches none")
        raise ArgumentError(argument, "layers that can be pruned", received, hint, must="match")
    return found
