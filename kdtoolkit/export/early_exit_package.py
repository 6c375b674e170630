"""From a trained multi-exit network to files that stop early, and whether they are worth it."""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import keras
import numpy as np

from kdtoolkit import files, models, report
from kdtoolkit._checks import ArgumentError, OneOf, Words, check
from kdtoolkit.data import Data
from kdtoolkit.edge import Certificate
from kdtoolkit.edge.package import OperatingPoint
from kdtoolkit.export import early_exit_choice, early_exit_options, metadata, thresholds
from kdtoolkit.export.early_exit_choice import Alone, Choice
from kdtoolkit.export.early_exit_files import (
    EarlyExitFile,
    Writer,
    costs_in_milliseconds,
    write_file,
)
from kdtoolkit.training import distribution, evaluation


@dataclass(frozen=True)
class EarlyExitPackage:
    """What `package_early_exit` found and wrote.

    Attributes:
        choice: what is recommended, and why.
        files: one for each kind; none where no operating point is good enough.
        classifier: the network of `choice.alone`, images to logits; it shares layers.
        alone: the classifiers without exits, with their figures.
        temperatures, costs: of the exits, shallow to deep.
        operating_points: in the files, by cost.
        certificate: of the operating points, where one was asked for; else None.
    """

    choice: Choice
    files: tuple[EarlyExitFile, ...]
    classifier: keras.Model
    alone: tuple[Alone, ...]
    temperatures: tuple[float, ...]
    costs: tuple[float, ...]
    operating_points: tuple[OperatingPoint, ...]
    certificate: Certificate | None = None


def package_early_exit(
    network: keras.Model,
    data: Data,
    directory: str | os.PathLike,
    *,
    baseline: keras.Model | None = None,
    quantizations: Sequence[str] = ("float32",),
    max_accuracy_drop: float = 0.005,
    budget: float | None = None,
    cost_unit: str = "macs",
    keep_beaten: bool = False,
    certify: float | None = None,
    confidence: float = 0.9,
    wide_heads_hint: str = early_exit_choice.WIDE_HEADS_HINT,
    about: metadata.About | None = None,
    before_file: Callable[[Path], object] | None = None,
) -> EarlyExitPackage:
    """Chooses temperatures and thresholds on validation images, and writes files for a device.

    Leaves in the directory the curve of accuracy against cost as `early_exit.json` and
    `early_exit.png`, and `early_exit-KIND.tflite` for `kdtoolkit.edge` where an operating point is
    good enough, with `labels.txt` beside. Each file is run on the test images, which choose
    nothing. Where early exit does not pay, `classifier` of what is returned is the network to
    export.

    Args:
        network: trained multi-exit network, as `kdtoolkit.models.add_exits` makes them.
        data: of `kdtoolkit.data.load`. Training images calibrate integers, validation images
            choose, test images measure.
        directory: made where it is not there; files in it are replaced.
        baseline: the plain network, trained on its own: it competes too. None if it was not.
        quantizations: kinds of files: `"float32"`, `"float16"`, `"dynamic_range"`, `"int8"`.
        max_accuracy_drop: in [0, 1): validation accuracy that stopping early may cost against the
            deepest exit, or the baseline where that is better. It picks the cheapest operating
            point, and the cheapest network without exits.
        budget: picks them by their cost in its place: the most accurate whose mean cost is at most
            this share, in (0, 1], of the plain network's.
        cost_unit: what costs are: `"macs"` (multiply-accumulates), or `"milliseconds"`, measured on
            this machine. Both are relative to the plain network's.
        keep_beaten: keeps operating points that a network without exits beats.
        certify: in place of `max_accuracy_drop` and `budget`: the largest share of decisions that
            may differ from the whole network's, in (0, 1), on all images like these and not only on
            those that chose. The validation images are split in two: one half finds temperatures
            and operating points, the other one tests them (`thresholds.certify`). The cheapest that
            is certified is picked.
        confidence: with which that is so, in (0, 1). The float32 file carries the certificate; one
            of rounded numbers has other decisions, see `python -m kdtoolkit.edge certify`.
        wide_heads_hint: ends the verdict where heads are too wide to save anything.
        about: name, author and licence, for the files' metadata.
        before_file: called with each file's path before it is written, which takes seconds.

    Returns:
        An `EarlyExitPackage`.

    Raises:
        ArgumentError: an option is not what is accepted, nothing keeps the budget, or there are no
            validation images.
        ValueError: `network` has no exits, or a connection bypasses one.
        ParityError: a float32 file differs from its network; it is removed. A quantised file that
            differs is removed too, and its `failure` says how.
    """
    _check(quantizations, max_accuracy_drop, budget, cost_unit, certify, confidence)
    names = models.exit_names(network)
    least = 1 if certify is None else 2
    if len(data.validation) < least:
        accepted, received = f"at least {least} validation images", Words(len(data.validation))
        raise ArgumentError("data", accepted, received, must="have")
    directory = Path(directory)
    files.make_directory(directory)
    network = distribution.local(network)
    classifiers = {name: models.cut(network, name) for name in names}
    whole = classifiers[names[-1]]
    writer = Writer(network, data, cost_unit, about)

    validation, truth = evaluation.predict(network, data.validation)
    test, test_truth = evaluation.predict(network, data.test)
    held_out = [validation[name] for name in names]
    chooses = np.ones(len(truth), bool) if certify is None else _half(len(truth))
    choosing = [logits[chooses] for logits in held_out]
    temperatures = [thresholds.calibrate(logits, truth[chooses]) for logits in choosing]
    if cost_unit == "macs":
        costs = list(models.exit_costs(network).values())
        costs_alone = list(models.cut_costs(network).values())
    else:
        costs, costs_alone = costs_in_milliseconds(writer, classifiers, data)
    if baseline is not None:
        classifiers["baseline"] = baseline = distribution.local(baseline)
        costs_alone.append(1.0)
        validation["baseline"], _ = evaluation.predict(baseline, data.validation)
        test["baseline"], _ = evaluation.predict(baseline, data.test)
    alone = [
        Alone(
            name,
            cost,
            evaluation.figures(validation[name], truth).accuracy,
            evaluation.figures(test[name], test_truth).accuracy,
        )
        for name, cost in zip(classifiers, costs_alone, strict=True)
    ]
    if certify is None:
        frontier = thresholds.operating_points(held_out, truth, temperatures, costs)
        points = thresholds.sweep(frontier if keep_beaten else thresholds.unbeaten(frontier, alone))
        certificate = None
        choice = early_exit_choice.choose(
            points, alone, costs, max_accuracy_drop, budget, wide_heads_hint
        )
    else:
        points = thresholds.path(choosing, truth[chooses], temperatures, costs)
        testing = [logits[~chooses] for logits in held_out]
        found = thresholds.certify(
            *(testing, truth[~chooses], temperatures, points), limit=certify, confidence=confidence
        )
        points, certificate = _certified(points, found)
        choice = early_exit_choice.choose_certified(alone, points, certificate)
    decisions = {
        "temperatures": temperatures,
        "costs": costs,
        "operating_points": [asdict(point) for point in points],
        "operating_point": choice.operating_point,
        "certificate": certificate,
    }
    test_logits = [test[name] for name in names]
    rows = _on_test_images(decisions, test_logits, test_truth)
    _write_curve(directory, cost_unit, names, decisions, rows, alone, choice)
    written = []
    for kind in quantizations if choice.operating_point is not None else ():
        path = directory / f"early_exit-{kind}.tflite"
        if before_file is not None:
            before_file(path)
        written.append(write_file(path, kind, writer, whole, decisions, data.test))
    if any(file.exported for file in written):
        metadata.write_labels(directory, data.info.labels)
    return EarlyExitPackage(
        choice=choice,
        files=tuple(written),
        classifier=classifiers[choice.alone],
        alone=tuple(alone),
        temperatures=tuple(temperatures),
        costs=tuple(costs),
        operating_points=tuple(points),
        certificate=certificate,
    )


def _half(count):
    """Which of so many images choose, where the others test: bool `(count,)`."""
    chooses = np.zeros(count, bool)
    chooses[np.random.default_rng(0).permutation(count)[: count // 2]] = True
    return chooses


def _certified(points, certificate):
    """The points that are certified, and the certificate with its index among them."""
    if certificate.index is None:
        return [], certificate
    return points[certificate.index :], replace(certificate, index=0)


def _check(quantizations, max_accuracy_drop, budget, cost_unit, certify, confidence):
    kinds = OneOf(early_exit_options.QUANTIZATIONS)
    if not quantizations or isinstance(quantizations, str):
        raise ArgumentError("quantizations", f"at least {kinds}", quantizations)
    for kind in quantizations:
        check("quantizations", kind, kinds)
    check("max_accuracy_drop", max_accuracy_drop, early_exit_options.MAX_ACCURACY_DROP)
    if budget is not None:
        check("budget", budget, early_exit_options.BUDGET)
    check("cost_unit", cost_unit, early_exit_options.COST_UNIT)
    check("confidence", confidence, early_exit_options.CONFIDENCE)
    if certify is not None:
        check("certify", certify, early_exit_options.CERTIFY)
        if budget is not None:
            raise ArgumentError("budget", "left out beside `certify`", budget)


def _on_test_images(decisions, logits, labels):
    """The operating points with their figures on test images."""
    rows = []
    for point in decisions["operating_points"]:
        accuracy, cost = thresholds.evaluate(
            logits, labels, decisions["temperatures"], decisions["costs"], point["thresholds"]
        )
        rows.append({**point, "test_accuracy": accuracy, "test_cost": cost})
    return rows


def _write_curve(directory, cost_unit, names, decisions, rows, alone, choice):
    """Writes every operating point with its figures on validation and on test images."""
    curve = {
        "cost_unit": cost_unit,
        "exits": names,
        "temperatures": decisions["temperatures"],
        "costs": decisions["costs"],
        "alone": [asdict(one) for one in alone],
        "operating_points": rows,
        "operating_point": choice.operating_point,
        "recommended": choice.recommended,
        "verdict": choice.verdict,
        "certificate": decisions["certificate"] and asdict(decisions["certificate"]),
    }
    files.write_json(directory / "early_exit.json", curve)
    curves = {
        "validation": [(row["cost"], row["validation_accuracy"]) for row in rows],
        "test": [(row["test_cost"], row["test_accuracy"]) for row in rows],
    }
    marked = {f"{one} (test)": (one.cost, one.test_accuracy) for one in alone}
    if choice.operating_point is not None:
        chosen = rows[choice.operating_point]
        marked["operating point (test)"] = (chosen["test_cost"], chosen["test_accuracy"])
    report.plot_accuracy_against_cost(
        curves if rows else {},
        directory / "early_exit.png",
        marked=marked,
        cost_label=f"mean cost of an image ({cost_unit}, {early_exit_choice.SCALE})",
    )
