"""What a finished run of a recipe has to show, on every test image."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from kdtoolkit import data, files
from kdtoolkit.edge.decisions import decide, log_probabilities
from kdtoolkit.export import parity
from kdtoolkit.export.rows import MOST_IMAGES
from kdtoolkit.study.plan import RECIPES
from kdtoolkit.training import evaluation

EARLY_EXIT_FILE = Path("export", "early_exit-float32.tflite")
WHOLE = "whole network"
_BUDGETS = [tenths / 10 for tenths in range(3, 11)]


class Outcome(NamedTuple):
    """A network, or several together, of a run.

    Attributes:
        figures: name -> fraction of 1, seconds, bytes, or cost. The seconds of a training are
            those of the first of its outcomes alone, so that they add up. Milliseconds are None
            where `kdtoolkit.study.timing` is to measure them.
        correct: booleans `(images,)`: whether each test image was classified correctly.
    """

    figures: dict[str, float]
    correct: np.ndarray


def outcomes(directory: Path, results: dict, splits: data.Data) -> dict[str, Outcome]:
    """Returns the outcomes of a finished run by their names.

    Args:
        directory: of the run.
        results: its `results.json`.
        splits: the data that it was run on.

    Raises:
        DamagedFileError: the accuracies are not those that the run wrote down.
    """
    return dict(_OF[results["recipe"]](directory, results, splits))


def _born_again(directory, results, splits) -> Iterator[tuple[str, Outcome]]:
    probabilities = []
    for row in results["generations"]:
        number = row["generation"]
        path = directory / f"generation_{number}" / "network.keras"
        network = keras.models.load_model(path)
        logits, labels = evaluation.predict(network, splits.test)
        log_f = log_probabilities(logits)
        probabilities.append(np.exp(log_f))
        correct = log_f.argmax(axis=-1) == labels
        _check(path, correct, row["test_accuracy"])
        # How sure a teacher is of what it has seen: on training images as they are.
        seen = evaluation.figures(*evaluation.predict(network, splits.train))
        figures = {
            **_figures(row),
            "primary_score": row["primary_score"],
            "train_accuracy": seen.accuracy,
            "train_primary_score": seen.primary_score,
        }
        yield f"generation {number}", Outcome(figures, correct)
        if number:
            correct = np.mean(probabilities, axis=0).argmax(axis=-1) == labels
            _check(path, correct, row["ensemble_test_accuracy"])
            figures = {"test_accuracy": row["ensemble_test_accuracy"], "cost": number + 1.0}
            yield f"ensemble 0..{number}", Outcome(figures, correct)


def _self_distillation(directory, results, splits) -> Iterator[tuple[str, Outcome]]:
    costs = results["exit_costs"]
    costs = {**costs, "ensemble": max(costs.values()), "network": 1.0}
    for row in results["exits"]:
        path = directory / row["method"] / "network.keras"
        logits, labels = evaluation.predict(keras.models.load_model(path), splits.test)
        for number, (name, each) in enumerate(evaluation.with_ensemble(logits).items()):
            correct = each.argmax(axis=-1) == labels
            _check(path, correct, row["exits"][name]["test_accuracy"])
            figures = _figures({**row, **row["exits"][name]}, counted=number > 0)
            figures["cost"] = costs[name]
            yield " ".join((row["method"].replace("_", " "), name)), Outcome(figures, correct)
        if row["method"] == "self_distillation":
            yield from _early_exit(directory, row["exits"], logits, labels)


def _early_exit(directory, exits, logits, labels):
    points = early_exit_points(directory)
    if not points:
        return
    curve = files.read_json(directory / "export" / "early_exit.json")
    names, temperatures = curve["exits"], curve["temperatures"]
    figures = {**_figures(exits[names[-1]]), "cost": 1.0, "milliseconds_per_image": None}
    yield WHOLE, Outcome(figures, logits[names[-1]].argmax(axis=-1) == labels)
    by_exit = [logits[name] for name in names]
    for name, point in points.items():
        decisions, _ = decide(by_exit, temperatures, point["thresholds"])
        correct = decisions == labels
        _check(directory / EARLY_EXIT_FILE, correct, point["test_accuracy"])
        figures = {**_figures(point), "cost": point["test_cost"], "milliseconds_per_image": None}
        yield name, Outcome(figures, correct)


def early_exit_points(directory: Path) -> dict[str, dict]:
    """Returns what early exit is asked for, outcome -> operating point, of a finished run.

    Operating points differ from seed to seed; a mean cost that they may have does not. Of each
    tenth of the plain network's cost it is the point that is most accurate on validation images
    and costs at most that, there too. There are none where the run has written no float32 file.

    Args:
        directory: of a run of self_distillation.

    Returns:
        Name -> its row in `early_exit.json`.
    """
    if not (directory / EARLY_EXIT_FILE).exists():
        return {}
    rows = files.read_json(directory / "export" / "early_exit.json")["operating_points"]
    found = {}
    for budget in _BUDGETS:
        affordable = [row for row in rows if row["cost"] <= budget]
        if affordable:  # by increasing cost and accuracy
            found[f"early exit at {budget:.1f}"] = affordable[-1]
    return found


def _compress(directory, results, splits) -> Iterator[tuple[str, Outcome]]:
    images, labels = splits.test.spread(MOST_IMAGES)
    whole = results["variants"][0]["macs"]
    trained = {None}  # directories whose seconds are counted
    for row in results["variants"]:
        if row["failure"]:  # its file was not kept
            continue
        path = directory / row["path"]
        correct = parity.decisions(path, row["format"], images) == labels
        _check(path, correct, row["test_accuracy"])
        figures = {
            **_figures(row, counted=row["directory"] in trained),
            "cost": row["macs"] / whole,
            **{key: row[key] for key in _OF_FILES},
        }
        trained.add(row["directory"])
        yield row["variant"], Outcome(figures, correct)


def _distill(directory, results, splits) -> Iterator[tuple[str, Outcome]]:
    for row in results["methods"]:
        path = directory / row["method"] / f"seed_{row['seed']}" / "network.keras"
        logits, labels = evaluation.predict(keras.models.load_model(path), splits.test)
        if isinstance(logits, dict):
            logits = logits[max(logits)]  # of the deepest exit, which the run chose by
        correct = logits.argmax(axis=-1) == labels
        _check(path, correct, row["test_accuracy"])
        yield row["method"], Outcome(_figures(row), correct)


_OF: dict[str, Callable] = dict(
    zip(RECIPES, (_born_again, _compress, _distill, _self_distillation), strict=True)
)
_OF_FILES = ("parameters", "sparsity", "macs", "bytes", "gzipped_bytes", "milliseconds_per_image")


def _figures(row, counted=False):
    """Of a row, without the seconds of a training that was counted before."""
    keys = ("test_accuracy", "validation_accuracy", *([] if counted else ["seconds"]))
    return {key: row[key] for key in keys if row.get(key) is not None}


def _check(path, correct, written):
    # Batches of another size may turn a tie.
    if not math.isclose(correct.mean(), written, abs_tol=2.5 / len(correct)):
        raise files.DamagedFileError(
            f"{path} is right on {correct.mean():.2%} of the test images, and its run wrote "
            f"{written:.2%}"
        )
