"""What the exits of a network see: their features in two dimensions, and how classes part there."""

import keras
import numpy as np

from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit._types import Network
from kdtoolkit.analysis.numbers import Projection
from kdtoolkit.data import Split
from kdtoolkit.edge.decisions import class_indices
from kdtoolkit.models.exits import features as with_features
from kdtoolkit.models.precision import in_float32


def features_by_exit(
    network: Network, split: Split, batch_size: int = 250
) -> dict[str, np.ndarray]:
    """Returns what the method `embedding` compares: the pooled features of every exit.

    Args:
        network: a multi-exit network.
        split: images, normalised as the network takes them.
        batch_size: of the forward passes.

    Returns:
        Name of an exit, shallow to deep -> float32 `(n, width)`, in the order of the split.

    Raises:
        ValueError: the network has no exits.
    """
    probe = with_features(network)
    probe = keras.Model(probe.input, probe.output["features"])
    with in_float32(network):
        found = probe.predict(split.batches(batch_size).map(lambda x, y: x), verbose=0)
    return {name: found[name] for name in probe.output}


def principal_components(features: np.ndarray) -> Projection:
    """Projects features on their first two principal components, by a singular value decomposition.

    The sign of an axis, which is arbitrary, is such that its largest weight is positive.

    Args:
        features: `(n, width)`, n and width at least 2.

    Raises:
        ArgumentError: the features have another shape, or do not vary.
    """
    x = np.asarray(features, np.float64)
    if x.ndim != 2 or min(x.shape) < 2:
        received = Words(f"shape {x.shape}")
        raise ArgumentError("features", "shape (n, width) of 2 at least", received, must="have")
    _, sizes, axes = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    if not sizes[0] > 0:
        raise ArgumentError("features", "with a variance", Words("the same n times"))
    axes = axes[:2]
    axes *= np.sign(axes[np.arange(2), np.abs(axes).argmax(axis=1)])[:, None]
    first, second = sizes[:2] ** 2 / np.sum(sizes**2)
    return Projection((x - x.mean(axis=0)) @ axes.T, (float(first), float(second)))


def scatter_ratio(features: np.ndarray, labels: np.ndarray) -> float:
    """Returns the scatter within classes over that between them (Zhang et al., ICCV 2019, Fig. 6).

        SSE / SSB = sum_i ||x_i - m_{y_i}||^2 / sum_c n_c ||m_c - m||^2

    Args:
        features: `(n, width)`.
        labels: class indices `(n,)`, of at least two classes.

    Raises:
        ArgumentError: the means of all classes are the same.
    """
    x = np.asarray(features, np.float64)
    _, index = np.unique(class_indices(labels, len(x)), return_inverse=True)
    counts = np.bincount(index)
    means = np.zeros((len(counts), x.shape[-1]))
    np.add.at(means, index, x)
    means /= counts[:, None]
    between = float(counts @ ((means - x.mean(axis=0)) ** 2).sum(axis=1))
    if not between > 0:
        raise ArgumentError("labels", "classes whose features differ", Words("none that do"))
    return float(((x - means[index]) ** 2).sum()) / between
