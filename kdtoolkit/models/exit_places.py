"""Where exits may be attached to a network whose stages have no names."""

import math
from collections.abc import Iterator

import keras

from kdtoolkit._types import Network, Tensor
from kdtoolkit.models.cost import uses
from kdtoolkit.models.graph import flatten


def exit_places(network: Network) -> list[str]:
    """Returns names of layers, shallow to deep, that `add_exits` takes: one for each size of image.

    Of the layers whose output alone is seen by all that comes after them, those whose images are
    half as high as the network's, a quarter, and so on, but for the deepest size, are looked at;
    of each size the last one with the fewest channels is taken: the end of an inverted residual,
    say, not its inside.

    Args:
        network: functional or sequential Keras model of images.
    """
    network = flatten(network)
    height = network.input_shape[1]
    sizes: dict[int, list[tuple[int, str]]] = {}
    for name, output in _passed_by_all(network):
        if len(output.shape) == 4:
            halvings = round(math.log2(height / output.shape[1]))
            sizes.setdefault(halvings, []).append((output.shape[-1], name))
    taken = []
    for halvings in [number for number in sorted(sizes) if number > 0][:-1]:
        fewest = min(channels for channels, _ in sizes[halvings])
        taken.append([name for channels, name in sizes[halvings] if channels == fewest][-1])
    return taken


def _passed_by_all(network) -> Iterator[tuple[str, Tensor]]:
    """Pairs of a layer's name and its output, of layers past which nothing leads."""
    nodes = uses(network.outputs)
    readers = {id(x): number for number, node in enumerate(nodes) for x in node.input_tensors}
    awaited = 0  # until there something reads what was made before
    for number, node in enumerate(nodes):
        layer, outputs = node.operation, node.output_tensors
        inner = isinstance(layer, keras.Layer) and not isinstance(layer, keras.layers.InputLayer)
        if inner and awaited <= number and len(outputs) == 1:
            yield layer.name, outputs[0]
        awaited = max(awaited, *(readers.get(id(x), 0) for x in outputs))
