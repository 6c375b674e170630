"""How long the files of a finished run take for an image, in a process of its own.

python -m kdtoolkit.study.timing RECIPE MILLISECONDS.json --flag=value ...
"""

import importlib
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kdtoolkit import _errors, files
from kdtoolkit.study.worker import end_with_parent

if TYPE_CHECKING:
    from kdtoolkit import data

_IMAGES = 1000
_REPEATS = 3

# A function of an image, uint8 `(height, width, channels)`: how many milliseconds it took.
Timed = Callable[[np.ndarray], float]


def milliseconds(directory: Path, results: dict, splits: "data.Data") -> dict[str, float]:
    """Measures the files of a finished run on test images, one at a time, on one thread.

    Files are run by turns, image by image, so that what else the machine does blurs all alike. Of
    the repeats the median counts, for each image; of the images the mean.

    Args:
        directory: of the run.
        results: its `results.json`.
        splits: the data that it was run on.

    Returns:
        Outcome -> milliseconds an image; of runs whose files have no outcomes none.
    """
    images, _ = splits.test.pixels(_IMAGES)
    make = _OF.get(results["recipe"], lambda *_: {})
    with tempfile.TemporaryDirectory() as scratch:
        timed = make(directory, results, splits, Path(scratch))
        return mean_milliseconds(timed, images) if timed else {}


def mean_milliseconds(
    timed: Mapping[str, Timed], images: np.ndarray, repeats: int = _REPEATS
) -> dict[str, float]:
    """Returns the mean over the images of the median of the repeats.

    Args:
        timed: name -> function of an image that returns its milliseconds.
        images: uint8 `(n, height, width, channels)`.
        repeats: of each image.
    """
    taken = [[[run(image) for run in timed.values()] for image in images] for _ in range(repeats)]
    return dict(zip(timed, np.median(taken, axis=0).mean(axis=0).tolist(), strict=True))


def _of_compress(directory, results, splits, scratch):
    from kdtoolkit.export import parity

    def timed(row):
        run, _ = parity.runner(directory / row["path"], row["format"])

        def one(image):
            start = time.perf_counter()
            run(image[None])
            return 1e3 * (time.perf_counter() - start)

        return one

    return {row["variant"]: timed(row) for row in results["variants"] if not row["failure"]}


def _of_self_distillation(directory, results, splits, scratch):
    import keras

    from kdtoolkit import models
    from kdtoolkit.edge import EarlyExitClassifier
    from kdtoolkit.export.early_exit import to_one_stage
    from kdtoolkit.study.outcomes import EARLY_EXIT_FILE, WHOLE, early_exit_points

    points = early_exit_points(directory)
    if not points:
        return {}
    network = keras.models.load_model(directory / "self_distillation" / "network.keras")
    cut = models.cut(network, models.exit_names(network)[-1])
    path = scratch / "whole.tflite"
    to_one_stage(cut, path, splits.preprocessing, labels=splits.info.labels)
    whole = EarlyExitClassifier(path)
    early = EarlyExitClassifier(directory / EARLY_EXIT_FILE)

    def timed(point):
        def one(image):
            early.thresholds = point["thresholds"]
            return early.predict(image).milliseconds

        return one

    return {
        WHOLE: lambda image: whole.predict(image).milliseconds,
        **{name: timed(point) for name, point in points.items()},
    }


_OF = {"compress": _of_compress, "self_distillation": _of_self_distillation}


def main(argv: Sequence[str] | None = None) -> int:
    """Measures the files of a finished run, and writes what they take; returns the exit status."""
    name, path, *arguments = sys.argv[1:] if argv is None else argv
    recipe = importlib.import_module(f"kdtoolkit.recipes.{name}").RECIPE
    return _errors.guarded("study", lambda: _write(recipe, Path(path), arguments))


def _write(recipe, path, arguments):
    from kdtoolkit.recipes import _command, _session

    flags, _ = recipe.parse(arguments)
    _command.import_libraries(flags["onednn"].value)
    directory = Path(flags["output_dir"].value)
    results = files.read_record(directory / "results.json")
    files.write_record(path, milliseconds(directory, results, _session.load(flags)))
    return 0


if __name__ == "__main__":
    end_with_parent()
    sys.exit(main())
