"""What a network costs as a LiteRT file on this machine: its bytes and its milliseconds."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdtoolkit._types import Network
from kdtoolkit.export import parity
from kdtoolkit.export.artefact import Exported
from kdtoolkit.export.classifier import image_shape
from kdtoolkit.export.litert import to_litert
from kdtoolkit.export.metadata import About
from kdtoolkit.export.quantizations import INTEGERS


@dataclass(frozen=True)
class FileCost:
    """Writes the file of a network, to a directory that is removed, and looks at it.

    The bytes of other weights differ a little: biases of nothing but zeros are not in a file.

    Attributes:
        preprocessing, quantization: of `to_litert`.
        images: uint8 `(n, height, width, channels)`, which the file is run on and which give
            integers their ranges; by default one of noise. Neither bytes nor milliseconds depend
            on what they show, so that a few do.
        prepare: maps the network to the one that is written, or None.
        labels, about: of `to_litert`: they take bytes too.
    """

    preprocessing: Callable[[Any], Any] | None = None
    quantization: str = "float32"
    images: np.ndarray | None = None
    prepare: Callable[[Network], Network] | None = None
    labels: Sequence[str] | None = None
    about: About | None = None

    def of(self, cost: str) -> Callable[[Network], float]:
        """Returns the function that measures a network: its `"bytes"` or its `"ms"`."""
        return {"bytes": self.bytes, "ms": self.milliseconds}[cost]

    def bytes(self, network: Network) -> int:
        """Returns the size of the network's file."""
        return self._written(network, lambda exported, images: exported.bytes)

    def milliseconds(self, network: Network) -> float:
        """Returns the median time of the file for an image, on one thread."""
        return self._written(network, _milliseconds)

    def _written(self, network, look: Callable[[Exported, np.ndarray], Any]):
        images = self.images
        if images is None:
            shape = (1, *image_shape(network))
            images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        written = self.prepare(network) if self.prepare else network
        calibration = images if self.quantization in INTEGERS else None
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "network.tflite"
            kind = self.quantization
            exported = to_litert(
                *(written, path, self.preprocessing, kind, calibration),
                labels=self.labels,
                about=self.about,
            )
            return look(exported, images)


def _milliseconds(exported, images):
    run, _ = parity.runner(exported.path, exported.format)
    return parity.milliseconds_per_image(run, images)
