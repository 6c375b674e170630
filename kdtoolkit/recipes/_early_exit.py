"""From a trained multi-exit network to files that stop early: thresholds, curve, packages."""

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np

from kdtoolkit import analysis, files, models
from kdtoolkit import export as exporting
from kdtoolkit.edge import EarlyExitClassifier
from kdtoolkit.export import thresholds
from kdtoolkit.export.rows import file_facts, verdict
from kdtoolkit.recipes import _run
from kdtoolkit.recipes._command import RunError, blaming
from kdtoolkit.training import distribution, evaluation

_CALIBRATION_IMAGES = 200
_TIMED_IMAGES = 500
_SCALE = "plain network without heads = 1"
_NEVER_TIMED = 20  # images that warm caches up


@dataclass(frozen=True)
class Alone:
    """A classifier without exits: one cut at an exit, or the plain network.

    What is cut at the deepest exit is the plain network too, as it was trained with exits.

    Attributes:
        name: of the exit, or `"baseline"`.
        cost: relative to the plain network's.
        validation_accuracy, test_accuracy: fractions.
    """

    name: str
    cost: float
    validation_accuracy: float
    test_accuracy: float


def alone_costs(network):
    """Returns what each exit costs on its own: exit -> MACs relative to the plain network's."""
    names = models.exit_names(network)
    macs = {name: models.macs(models.cut(network, name)) for name in names}
    return {name: count / macs[names[-1]] for name, count in macs.items()}


def package(flags, network, baseline, data, output_dir):
    """Chooses thresholds on validation images and writes everything for a device.

    Leaves the curve as `export/early_exit.json` and `.png`; `export/early_exit-KIND.tflite`, where
    thresholds are worth it: see `decide`; and the classifier without exits that is the best of its
    kind, as SavedModel and LiteRT.

    Args:
        flags, data, output_dir: of the run.
        network: with exits.
        baseline: the plain network, trained on labels; None if it was not.

    Returns:
        `(rows, decision)`: of the files, as in `results.json`, and what is recommended there.
    """
    directory = output_dir / "export"
    directory.mkdir(exist_ok=True)
    network = distribution.local(network)
    names = models.exit_names(network)
    classifiers = {name: models.cut(network, name) for name in names}
    calibration, _ = data.train.pixels(_CALIBRATION_IMAGES)

    def write(path, kind="float32", of=None, **decisions):
        """Writes the stages, or the classifier `of`, as one stage."""
        if of is None:
            stages = models.stages(network)
        else:
            stages = [keras.Model(of.input, {"logits": of.output})]
            point = {"thresholds": [], "validation_accuracy": 0.0, "cost": 1.0}
            decisions = {"temperatures": [1.0], "costs": [1.0], "operating_points": [point]}
        return exporting.to_early_exit(
            stages,
            path,
            data.preprocessing,
            labels=data.info.labels,
            cost_unit=flags.cost,
            quantization=kind,
            calibration=calibration,
            **decisions,
        )

    validation, truth = evaluation.predict(network, data.validation)
    test, test_truth = evaluation.predict(network, data.test)
    held_out = [validation[name] for name in names]
    temperatures = [thresholds.calibrate(logits, truth) for logits in held_out]
    if flags.cost == "macs":
        costs = list(models.exit_costs(network).values())
        costs_alone = list(alone_costs(network).values())
    else:
        images, _ = data.validation.pixels(_TIMED_IMAGES)
        try:
            costs, costs_alone = _measured_costs(write, classifiers, images)
        except exporting.ParityError as error:
            raise RunError(str(error)) from error
    if baseline is not None:
        baseline = distribution.local(baseline)
        classifiers["baseline"] = baseline
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
    frontier = thresholds.operating_points(held_out, truth, temperatures, costs)
    # The figures of a smoke run mean nothing: it writes every file.
    points = thresholds.sweep(frontier if flags.smoke else thresholds.unbeaten(frontier, alone))
    with blaming("budget"):
        decision = decide(points, alone, costs, flags.max_accuracy_drop, flags.budget)
    decisions = {
        "temperatures": temperatures,
        "costs": costs,
        "operating_points": [asdict(point) for point in points],
        "operating_point": decision["operating_point"],
    }
    test_logits = [test[name] for name in names]
    _write_curve(flags, names, test_logits, test_truth, directory, decisions, alone, decision)

    rows = []
    if decision["operating_point"] is not None:
        with tempfile.TemporaryDirectory() as scratch:
            for kind in flags.quantize:
                path = directory / f"early_exit-{kind}.tflite"
                _run.say_exporting(path, output_dir)
                try:
                    exported = write(path, kind, **decisions)
                except exporting.ParityError as error:
                    _run.discard(path, kind, error)
                    of = {"path": str(path.relative_to(output_dir)), "quantization": kind}
                    rows.append({**of, **verdict(str(error))})
                    continue
                # The network without its exits: what stopping early is compared with.
                whole = Path(scratch) / f"whole-{kind}.tflite"
                try:
                    write(whole, kind, of=classifiers[names[-1]])
                except exporting.ParityError as error:
                    row = _row(exported, None, data.test, costs, output_dir)
                    rows.append({**row, "not_compared": str(error)})
                else:
                    rows.append(_row(exported, whole, data.test, costs, output_dir))
    name = decision["alone"]
    return rows + _run.export(classifiers[name], name, data, output_dir), decision


def decide(points, alone, costs, max_drop, budget=None):
    """Chooses between thresholds and classifiers without exits, on validation images.

    Args:
        points: `OperatingPoint`s that no classifier alone beats, by cost.
        alone: an `Alone` for each exit, shallow to deep, and for the plain network if it was
            trained.
        costs: of stopping at each exit of the network with all heads.
        max_drop: the cheapest is chosen whose accuracy is at most this below that of going on to
            the end: of the deepest exit, or the plain network where that was trained and is better.
        budget: in its place the most accurate is chosen that costs at most this; or None.

    Returns:
        dict of `operating_point`, the index of a point, None where none of them is good enough;
        `alone`, the name of the best classifier without exits; `recommended`, the better of the
        two: that name, or `"early_exit"`; `verdict`, a sentence that says so and why.

    Raises:
        ValueError: nothing keeps the budget.
    """
    reference = max(choice.validation_accuracy for choice in alone[len(costs) - 1 :])

    def best(candidates):
        accuracies = [candidate.validation_accuracy for candidate in candidates]
        order = thresholds.frontier(accuracies, [candidate.cost for candidate in candidates])
        kept = [candidates[index] for index in order]
        if budget is None:
            return kept[thresholds.within_accuracy(kept, reference, max_drop)]
        return kept[thresholds.within_budget(kept, budget)]

    single = best(alone)
    try:
        point = best(points) if points else None
    except ValueError:
        point = None
    candidates = [single] if point is None else [single, point]
    pays = best(candidates) is point
    facts = f"{_alone_text(single)} {_figures(single)}"
    if pays:
        verdict = f"Early exit pays ({_SCALE}): the operating point {_figures(point)}; {facts}."
    else:
        nearest = point or (points[-1 if budget is None else 0] if points else None)
        verdict = f"Early exit does not pay here ({_SCALE}): {facts}; {_reason(nearest, costs)}."
    return {
        "operating_point": None if point is None else points.index(point),
        "alone": single.name,
        "recommended": "early_exit" if pays else single.name,
        "verdict": verdict,
    }


def _alone_text(alone):
    return "the plain network" if alone.name == "baseline" else f"{alone.name} alone"


def _figures(choice):
    return (
        f"costs {choice.cost:.3f}, with {choice.validation_accuracy:.2%} of the validation images "
        "right"
    )


def _reason(nearest, costs):
    """Why no thresholds are better than a classifier alone: the nearest point is not, if any."""
    if costs[0] >= 1:
        return (
            f"with heads this wide even stopping at exit_1 costs {costs[0]:.3f}; --head_width sets "
            "their width"
        )
    if nearest is not None:
        return f"the nearest operating point {_figures(nearest)}"
    return (
        "with any thresholds that are as accurate, too few images stop early to make up for the "
        f"heads on their way ({costs[-1]:.3f} for going on to the end)"
    )


def _measured_costs(write, classifiers, images):
    """Milliseconds to each exit, behind the others and alone, relative to the plain network's.

    Medians; images, exits and files interleaved.

    Args:
        write: of `package`.
        classifiers: exit -> the classifier cut there, shallow to deep.
        images: uint8.
    """
    count = len(classifiers)
    always = {"thresholds": [0.0] * (count - 1), "validation_accuracy": 0.0, "cost": 1.0}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "exits.tflite"
        decisions = {"temperatures": [1.0] * count, "costs": [1.0] * count}
        write(path, **decisions, operating_points=[always])
        behind = EarlyExitClassifier(path)
        stops = [
            [0.0 if index == k else thresholds.NEVER for index in range(count - 1)]
            for k in range(count)
        ]
        timed = [(behind, stop) for stop in stops]
        for name, classifier in classifiers.items():
            path = Path(scratch) / f"{name}.tflite"
            write(path, of=classifier)
            timed.append((EarlyExitClassifier(path), []))
    times = [[] for _ in timed]
    for image in images:
        for (classifier, stop), own in zip(timed, times, strict=True):
            classifier.thresholds = stop
            own.append(classifier.predict(image).milliseconds)
    return _relative(np.median(times, axis=1))


def _relative(milliseconds):
    """Costs from the medians of all exits behind the others, and then of all alone."""
    behind, alone = np.split(np.asarray(milliseconds), 2)
    # Noise must not make a deeper exit cheaper, or one that runs alone dearer.
    behind = np.maximum.accumulate(behind)
    alone = np.minimum(alone, behind)
    return (behind / alone[-1]).tolist(), (alone / alone[-1]).tolist()


def _row(exported, whole, test, costs, output_dir):
    """Runs a package on the test images, and beside it the whole network, image by image.

    Args:
        whole: path of the whole network's file; None for no comparison.
    """
    early = EarlyExitClassifier(exported.path)
    expected = dict(zip(early.exits, costs, strict=True))
    classifiers = [early] if whole is None else [early, EarlyExitClassifier(whole)]
    predictions = [[] for _ in classifiers]
    images, labels = test.pixels(_run.EXPORT_IMAGES)
    for image in images:
        for classifier, own in zip(classifiers, predictions, strict=True):
            own.append(classifier.predict(image))

    def figures(of, prefix=""):
        right = [p.index == label for p, label in zip(of, labels, strict=True)]
        timed = of[min(_NEVER_TIMED, len(of) // 2) :]
        return {
            f"{prefix}test_accuracy": float(np.mean(right)),
            f"{prefix}milliseconds_per_image": float(np.mean([p.milliseconds for p in timed])),
        }

    return {
        **file_facts(exported, output_dir),
        **verdict(None),
        **figures(predictions[0]),
        "mean_exit_cost": float(np.mean([expected[p.exit] for p in predictions[0]])),
        **(figures(predictions[1], "full_") if len(predictions) > 1 else {}),
    }


def _write_curve(flags, names, test, truth, directory, decisions, alone, decision):
    """Writes every choice with its figures on validation and on test images."""
    rows = []
    for point in decisions["operating_points"]:
        accuracy, cost = thresholds.evaluate(
            test, truth, decisions["temperatures"], decisions["costs"], point["thresholds"]
        )
        rows.append({**point, "test_accuracy": accuracy, "test_cost": cost})
    curve = {
        "cost_unit": flags.cost,
        "exits": names,
        "temperatures": decisions["temperatures"],
        "costs": decisions["costs"],
        "alone": [asdict(choice) for choice in alone],
        "operating_points": rows,
        "operating_point": decision["operating_point"],
        "recommended": decision["recommended"],
        "verdict": decision["verdict"],
    }
    files.write_json(directory / "early_exit.json", curve)
    curves = {
        "validation": [(row["cost"], row["validation_accuracy"]) for row in rows],
        "test": [(row["test_cost"], row["test_accuracy"]) for row in rows],
    }
    marked = {f"{_alone_text(one)} (test)": (one.cost, one.test_accuracy) for one in alone}
    if decision["operating_point"] is not None:
        chosen = rows[decision["operating_point"]]
        marked["operating point (test)"] = (chosen["test_cost"], chosen["test_accuracy"])
    analysis.plot_accuracy_against_cost(
        curves if rows else {},
        directory / "early_exit.png",
        marked=marked,
        cost_label=f"mean cost of an image ({flags.cost}, {_SCALE})",
    )
