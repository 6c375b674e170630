"""A file of each variant, and what it does with the test images."""

import sys
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from kdtoolkit import export, files, models
from kdtoolkit.compression.layers import sparsity
from kdtoolkit.compression.options import Options
from kdtoolkit.data.loading import Data
from kdtoolkit.export import rows
from kdtoolkit.export.metadata import write_labels
from kdtoolkit.export.parity import discard
from kdtoolkit.models.cost import trainable_parameters
from kdtoolkit.training import evaluation
from kdtoolkit.training.distribution import local

_CHOOSING = 2_000  # Validation images, at most, that choose what stays in float.


@dataclass(frozen=True)
class VariantFiles:
    """Writes and measures a file of each variant.

    Attributes:
        output_dir: files go to `export` in it.
        data: whose test images the files are run on.
        options: how the network is compressed.
        about: name, author and licence, or None.
        calibration_images: uint8 images that give integers their ranges.
        show_progress: print what is being done to standard error.
    """

    output_dir: Path
    data: Data
    options: Options
    about: export.About | None
    calibration_images: np.ndarray
    show_progress: bool

    def row(self, variant: str, network: keras.Model, kind: str) -> dict:
        """Exports a network and runs the file on the test images; returns the parts of its row.

        Args:
            variant: what it is called.
            network: that returns logits.
            kind: of file, one of the options'.

        Raises:
            ParityError: a file of float32 does not compute what its network computes.
        """
        data, network = self.data, local(network)
        quantization = "int8" if kind == "qat" else kind
        name = variant.replace(", ", "-").replace(" ", "-").replace("%", "")
        name = name.replace(":", "-").replace("=", "-")
        path = self.output_dir / "export" / f"{name}.tflite"
        files.make_directory(path.parent)
        if self.show_progress:
            print(f"Exporting and checking {path.relative_to(self.output_dir)}", file=sys.stderr)
        calibration = self.options.calibration(kind, self.calibration_images)
        exported, described = self._exported(network, path, quantization, calibration)
        images, labels = data.test.spread(rows.MOST_IMAGES)
        parity = export.measure(exported, network, data.preprocessing, images, labels)
        if parity.failure:
            error = export.ParityError(f"{path} ({quantization}) {parity.failure}")
            discard(path, quantization, error)
        write_labels(path.parent, data.info.labels)
        return {
            "validation_accuracy": validated(network, data).accuracy,
            "parameters": trainable_parameters(network),
            "sparsity": sparsity(network).total,
            "macs": models.macs(network),
            **rows.file_facts(exported, self.output_dir),
            **rows.parity_facts(parity),
            **described,
        }

    def _exported(self, network, path, quantization, calibration):
        """The file, written, and what there is to say of how it was made."""
        data = self.data
        about = {"labels": data.info.labels, "about": self.about}
        if quantization != "mixed":
            given = network, path, data.preprocessing, quantization, calibration
            return export.to_litert(*given, **about), {}
        mixed = export.to_mixed(
            *(network, path, data.preprocessing, calibration),
            *data.validation.spread(_CHOOSING),
            self.options.max_accuracy_drop,
            **about,
        )
        return mixed.exported, {"mixed": rows.mixed_facts(mixed)}


def validated(network: keras.Model, data: Data) -> evaluation.Figures:
    """Returns a network's figures on the validation images."""
    return evaluation.figures(*evaluation.predict(network, data.validation))
