"""From a trained multi-exit network to files that stop early, and whether they are worth it."""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import keras
import numpy as np

from kdtoolkit import files, models, report
from kdtoolkit._checks import ArgumentError, OneOf, Words, check
from kdtoolkit.data import Data
from kdtoolkit.edge import Certificate, EarlyExitClassifier
from kdtoolkit.edge.package import OperatingPoint
from kdtoolkit.export import early_exit_choice, early_exit_options, metadata, thresholds
from kdtoolkit.export.artefact import Exported
from kdtoolkit.export.early_exit import to_early_exit, to_one_stage
from kdtoolkit.export.early_exit_choice import Alone, Choice
from kdtoolkit.export.parity import ParityError, discard
from kdtoolkit.export.rows import MOST_IMAGES
from kdtoolkit.export.stage_timing import measured_costs
from kdtoolkit.training import distribution, evaluation

_CALIBRATION_IMAGES = 200
_TIMED_IMAGES = 500
_NEVER_TIMED = 20  # images that warm caches up


@dataclass(frozen=True)
class EarlyExitFile:
    """A file that stops early, run on the test images one at a time.

    Attributes:
        path: of the file.
        quantization: its kind.
        exported: what was written; None for a file that was removed, which has no figures.
        failure: how it differs from the network, in words; None if it does not.
        test_accuracy: fraction of correct decisions.
        milliseconds_per_image: mean over the images, without the first ones.
        mean_exit_cost: mean cost of an image, relative to the plain network's.
        full_test_accuracy, full_milliseconds_per_image: of the network without its exits in a file
            of the same kind, run image by image beside this one; None where that file is wrong.
        not_compared: how that file is wrong, in words; None if it is not.
    """

    path: Path
    quantization: str
    exported: Exported | None = None
    failure: str | None = None
    test_accuracy: float | None = None
    milliseconds_per_image: float | None = None
    mean_exit_cost: float | None = None
    full_test_accuracy: float | None = None
    full_milliseconds_per_image: float | None = None
    not_compared: str | None = None


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
    writer = _Writer(network, data, cost_unit, about)

    validation, truth = evaluation.predict(network, data.validation)
    test, test_truth = evaluation.predict(network, data.test)
    held_out = [validation[name] for name in names]
    chooses, tests = np.ones(len(truth), bool), None
    if certify is not None:
        chooses, tests = _halves(len(truth))
    choosing = [logits[chooses] for logits in held_out]
    temperatures = [thresholds.calibrate(logits, truth[chooses]) for logits in choosing]
    if cost_unit == "macs":
        costs = list(models.exit_costs(network).values())
        costs_alone = list(models.cut_costs(network).values())
    else:
        costs, costs_alone = _measured(writer, classifiers, data)
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
    certificate = None
    if tests is None:
        frontier = thresholds.operating_points(choosing, truth, temperatures, costs)
        points = thresholds.sweep(frontier if keep_beaten else thresholds.unbeaten(frontier, alone))
        choice = early_exit_choice.choose(
            points, alone, costs, max_accuracy_drop, budget, wide_heads_hint
        )
    else:
        points = thresholds.path(choosing, truth[chooses], temperatures, costs)
        testing = [logits[tests] for logits in held_out]
        found = thresholds.certify(
            *(testing, truth[tests], temperatures, points),
            limit=certify,  # type: ignore[arg-type]  # a number, where half of the images test
            confidence=confidence,
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
        written.append(_write_file(path, kind, writer, whole, decisions, data.test))
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


def _halves(count):
    """Which of so many images choose, and which test: bool `(count,)` each."""
    chooses = np.zeros(count, bool)
    chooses[np.random.default_rng(0).permutation(count)[: count // 2]] = True
    return chooses, ~chooses


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


class _Writer:
    """Writes a multi-exit network, and classifiers, as files for `kdtoolkit.edge`."""

    def __init__(self, network, data, cost_unit, about):
        self._network, self._data, self._cost_unit = network, data, cost_unit
        self._about = about
        self._calibration, _ = data.train.spread(_CALIBRATION_IMAGES)

    def exits(self, path, quantization="float32", **decisions):
        return self._write(
            to_early_exit, models.stages(self._network), path, quantization, **decisions
        )

    def classifier(self, network, path, quantization="float32"):
        return self._write(to_one_stage, network, path, quantization)

    def _write(self, write, network, path, quantization, **decisions):
        return write(
            network,
            path,
            self._data.preprocessing,
            labels=self._data.info.labels,
            cost_unit=self._cost_unit,
            quantization=quantization,
            calibration=self._calibration,
            about=self._about,
            **decisions,
        )


def _measured(writer, classifiers, data):
    """Costs in milliseconds, behind other exits and alone, on validation images."""
    images, _ = data.validation.pixels(_TIMED_IMAGES)
    count = len(classifiers)
    always = {"thresholds": [0.0] * (count - 1), "validation_accuracy": 0.0, "cost": 1.0}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "exits.tflite"
        decisions = {"temperatures": [1.0] * count, "costs": [1.0] * count}
        writer.exits(path, **decisions, operating_points=[always])
        network, alone = EarlyExitClassifier(path), []
        for name, classifier in classifiers.items():
            path = Path(scratch) / f"{name}.tflite"
            writer.classifier(classifier, path)
            alone.append(EarlyExitClassifier(path))
        return measured_costs(network, alone, images)


def _write_file(path, quantization, writer, whole, decisions, test):
    """Writes a file and runs it on the test images; returns its `EarlyExitFile`.

    Args:
        whole: the network without its exits, which it is compared with.
    """
    if quantization != "float32":  # whose decisions are others than those that were tested
        decisions = {**decisions, "certificate": None}
    try:
        exported = writer.exits(path, quantization, **decisions)
    except ParityError as error:
        discard(path, quantization, error)
        return EarlyExitFile(path, quantization, failure=str(error))
    with tempfile.TemporaryDirectory() as scratch:
        alone = Path(scratch) / f"whole-{quantization}.tflite"
        not_compared = None
        try:
            writer.classifier(whole, alone, quantization)
        except ParityError as error:
            not_compared = str(error)
        early = EarlyExitClassifier(path)
        classifiers = [early] if not_compared else [early, EarlyExitClassifier(alone)]
        predictions, labels = _predict(classifiers, test)
    cost_of = dict(zip(early.exits, decisions["costs"], strict=True))
    accuracy, milliseconds = _figures(predictions[0], labels)
    full = (None, None) if not_compared else _figures(predictions[1], labels)
    return EarlyExitFile(
        path=path,
        quantization=quantization,
        exported=exported,
        test_accuracy=accuracy,
        milliseconds_per_image=milliseconds,
        mean_exit_cost=float(np.mean([cost_of[p.exit] for p in predictions[0]])),
        full_test_accuracy=full[0],
        full_milliseconds_per_image=full[1],
        not_compared=not_compared,
    )


def _predict(classifiers, test):
    """The `Prediction`s of each classifier on the test images, interleaved, and the labels."""
    images, labels = test.spread(MOST_IMAGES)
    predictions = [[] for _ in classifiers]
    for image in images:
        for classifier, own in zip(classifiers, predictions, strict=True):
            own.append(classifier.predict(image))
    return predictions, labels


def _figures(predictions, labels):
    """Accuracy, and mean milliseconds per image."""
    right = [p.index == label for p, label in zip(predictions, labels, strict=True)]
    timed = predictions[min(_NEVER_TIMED, len(predictions) // 2) :]
    return float(np.mean(right)), float(np.mean([p.milliseconds for p in timed]))


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
