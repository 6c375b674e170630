"""What stopping at each exit costs in milliseconds on this machine."""

from collections.abc import Sequence

import numpy as np

from kdtoolkit.edge import EarlyExitClassifier
from kdtoolkit.export import thresholds


def measured_costs(
    network: EarlyExitClassifier, alone: Sequence[EarlyExitClassifier], images: np.ndarray
) -> tuple[list[float], list[float]]:
    """Times stopping at each exit, behind the heads before it and cut off on its own.

    Medians; images, exits and files interleaved.

    Args:
        network: with all exits; its thresholds are changed.
        alone: a classifier for each exit, shallow to deep, cut there. The last is the plain
            network.
        images: uint8 `(n, height, width, channels)`, at least one.

    Returns:
        `(costs, costs alone)`, one float for each exit, relative to the plain network's.
    """
    last = len(alone) - 1
    stops = [
        [0.0 if index == k else thresholds.NEVER for index in range(last)] for k in range(last + 1)
    ]
    timed = [(network, stop) for stop in stops] + [(classifier, []) for classifier in alone]
    times: list[list[float]] = [[] for _ in timed]
    for image in images:
        for (classifier, stop), own in zip(timed, times, strict=True):
            classifier.thresholds = stop
            own.append(classifier.predict(image).milliseconds)
    behind, apart = np.split(np.median(times, axis=1), 2)
    return relative_costs(behind, apart)


def relative_costs(
    behind: Sequence[float] | np.ndarray, alone: Sequence[float] | np.ndarray
) -> tuple[list[float], list[float]]:
    """Costs relative to the last alone, from milliseconds behind other exits and alone.

    Noise must not make a deeper exit cheaper, or one that runs alone dearer.
    """
    rising = np.maximum.accumulate(np.asarray(behind))
    apart = np.minimum(np.asarray(alone), rising)
    return (rising / apart[-1]).tolist(), (apart / apart[-1]).tolist()
