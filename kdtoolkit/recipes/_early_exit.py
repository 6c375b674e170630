"""From a trained multi-exit network to files that stop early: thresholds, curve, packages."""

import tempfile
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np

from kdtoolkit import analysis, files, models
from kdtoolkit import export as exporting
from kdtoolkit.edge import EarlyExitClassifier
from kdtoolkit.export import thresholds
from kdtoolkit.recipes import _run
from kdtoolkit.recipes._command import RunError, blaming
from kdtoolkit.training import distribution, evaluation

_CALIBRATION_IMAGES = 200
_TIMED_IMAGES = 500
_NEVER_TIMED = 20  # images that warm caches up


def stage_costs(network):
    """Returns the cost of stopping at each exit: MACs of all stages run, relative to the last."""
    macs = np.cumsum([models.macs(stage) for stage in models.stages(network)])
    return [float(cost) for cost in macs / macs[-1]]


def package(flags, network, data, output_dir):
    """Chooses thresholds on validation images and writes everything for a device.

    Leaves `export/early_exit-KIND.tflite`, the curve as `export/early_exit.json` and `.png`, and
    the shallowest exit that is accurate enough on its own as SavedModel and LiteRT.

    Returns:
        The rows of the files, as in `results.json`.
    """
    directory = output_dir / "export"
    directory.mkdir(exist_ok=True)
    network = distribution.local(network)
    stages = models.stages(network)
    calibration, _ = data.train.pixels(_CALIBRATION_IMAGES)
    labels = data.info.class_names or [str(index) for index in range(data.info.classes)]

    def write(path, kind="float32", of=stages, **decisions):
        try:
            return exporting.to_early_exit(
                of,
                path,
                data.preprocessing,
                labels=labels,
                cost_unit=flags.cost,
                quantization=kind,
                calibration=calibration,
                **decisions,
            )
        except exporting.ParityError as error:
            raise RunError(str(error)) from error

    validation, truth = evaluation.predict(network, data.validation)
    held_out = [validation[name] for name in models.exit_names(network)]
    temperatures = [thresholds.calibrate(logits, truth) for logits in held_out]
    costs = stage_costs(network)
    if flags.cost == "milliseconds":
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "timed.tflite"
            always = {"thresholds": [0.0] * (len(costs) - 1), "validation_accuracy": 0, "cost": 1}
            write(path, temperatures=temperatures, costs=costs, operating_points=[always])
            costs = _measured_costs(
                EarlyExitClassifier(path), data.validation.pixels(_TIMED_IMAGES)[0]
            )
    frontier = thresholds.operating_points(held_out, truth, temperatures, costs)
    points = thresholds.sweep(frontier)
    reference = evaluation.figures(held_out[-1], truth).accuracy
    if flags.budget is None:
        chosen = thresholds.within_accuracy(points, reference, flags.max_accuracy_drop)
    else:
        with blaming("budget"):
            chosen = thresholds.within_budget(points, flags.budget)
    decisions = {
        "temperatures": temperatures,
        "costs": costs,
        "operating_points": [asdict(point) for point in points],
        "operating_point": chosen,
    }
    _write_curve(flags, network, data, directory, decisions)

    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for kind in flags.quantize:
            path = directory / f"early_exit-{kind}.tflite"
            exported = write(path, kind, **decisions)
            # The network without the exits, as one stage: what stopping early is compared with.
            whole = Path(scratch) / f"whole-{kind}.tflite"
            deepest = models.cut(network, models.exit_names(network)[-1])
            stage = keras.Model(deepest.input, {"logits": deepest.output})
            alone = {"thresholds": [], "validation_accuracy": reference, "cost": 1.0}
            write(
                whole,
                kind,
                of=[stage],
                temperatures=temperatures[-1:],
                costs=[1.0],
                operating_points=[alone],
            )
            rows.append(_row(exported, whole, data.test, costs, output_dir))
    shallowest = next(
        name
        for name, logits in zip(models.exit_names(network), held_out, strict=True)
        if evaluation.figures(logits, truth).accuracy >= reference - flags.max_accuracy_drop
    )
    return rows + _run.export(models.cut(network, shallowest), shallowest, data, output_dir)


def _measured_costs(classifier, images):
    """Median milliseconds to each exit, relative to the last, images and exits interleaved."""
    count = len(classifier.exits)
    times = [[] for _ in range(count)]
    for image in images:
        for k in range(count):
            stop = [0.0 if index == k else thresholds.NEVER for index in range(count - 1)]
            classifier.thresholds = stop
            times[k].append(classifier.predict(image).milliseconds)
    # Noise must not make a deeper exit cheaper.
    medians = np.maximum.accumulate([np.median(t) for t in times])
    return [float(cost) for cost in medians / medians[-1]]


def _row(exported, whole, test, costs, output_dir):
    """Runs a package on the test images, and beside it the whole network, image by image."""
    early, full = EarlyExitClassifier(exported.path), EarlyExitClassifier(whole)
    predictions, references = [], []
    images, labels = test.pixels(_run.EXPORT_IMAGES)
    for image in images:
        predictions.append(early.predict(image))
        references.append(full.predict(image))
    expected = dict(zip(early.exits, costs, strict=True))

    def accuracy(of):
        return float(np.mean([p.index == label for p, label in zip(of, labels, strict=True)]))

    def milliseconds(of):
        return float(np.mean([p.milliseconds for p in of[min(_NEVER_TIMED, len(of) // 2) :]]))

    return {
        "path": str(exported.path.relative_to(output_dir)),
        "format": exported.format,
        "quantization": exported.quantization,
        "bytes": exported.bytes,
        "gzipped_bytes": exported.gzipped_bytes,
        "test_accuracy": accuracy(predictions),
        "milliseconds_per_image": milliseconds(predictions),
        "mean_exit_cost": float(np.mean([expected[p.exit] for p in predictions])),
        "full_test_accuracy": accuracy(references),
        "full_milliseconds_per_image": milliseconds(references),
    }


def _write_curve(flags, network, data, directory, decisions):
    """Writes every operating point with its figures on validation and on test images."""
    test, truth = evaluation.predict(network, data.test)
    rows = []
    for point in decisions["operating_points"]:
        accuracy, cost = thresholds.evaluate(
            [test[name] for name in models.exit_names(network)],
            truth,
            decisions["temperatures"],
            decisions["costs"],
            point["thresholds"],
        )
        rows.append({**point, "test_accuracy": accuracy, "test_cost": cost})
    chosen = rows[decisions["operating_point"]]
    curve = {
        "cost_unit": flags.cost,
        "exits": models.exit_names(network),
        "temperatures": decisions["temperatures"],
        "costs": decisions["costs"],
        "operating_points": rows,
        "operating_point": decisions["operating_point"],
    }
    files.write_json(directory / "early_exit.json", curve)
    analysis.plot_accuracy_against_cost(
        {
            "validation": [(row["cost"], row["validation_accuracy"]) for row in rows],
            "test": [(row["test_cost"], row["test_accuracy"]) for row in rows],
        },
        directory / "early_exit.png",
        marked={"operating point (test)": (chosen["test_cost"], chosen["test_accuracy"])},
        cost_label=f"mean cost of an image ({flags.cost}, whole network = 1)",
    )
