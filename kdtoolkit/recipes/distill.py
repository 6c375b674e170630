"""Teaches a small network by a large one, in one or several ways, and compares them over seeds."""

import dataclasses
import math
import os
import statistics
import sys

from kdtoolkit.data.preprocessing import INPUTS
from kdtoolkit.models import registry
from kdtoolkit.recipes import _command, _methods, _outputs, _report, _run, _smoke, _supervision
from kdtoolkit.recipes._command import UsageError

_EXPORTS = ("best", "none")
_COLUMNS = {
    "method": ("method", ""),
    "runs": ("runs", "d"),
    "test": ("test accuracy", ""),
    "gain": ("against plain", ""),
    "validation": ("validation", ""),
    "seconds": ("seconds", ".0f"),
}


def _define(flags):
    _run.define_data(flags)
    group = "Teacher and student"
    flags.add(
        "string",
        group,
        "teacher",
        "resnet20",
        "A .keras file of a classifier, a recipe's output directory, or the name of a network to "
        "train first.",
    )
    flags.add(
        "string",
        group,
        "teacher_input",
        "auto",
        "Pixel values that a teacher from a file was trained on: normalized (by this data set's "
        "mean and deviation), unit (0 to 1), bytes (0 to 255), or auto: those that its first "
        "layers scale, else normalized.",
    )
    flags.add(
        "integer",
        group,
        "teacher_epochs",
        None,
        "Epochs of a teacher that is trained first (default: those of the student).",
    )
    flags.add("integer", group, "teacher_seed", 0, "Of a teacher that is trained first.")
    accepted = ", ".join(registry.names())
    flags.add("string", group, "student", "resnet8", f"One of {accepted}.")
    group = "Method"
    flags.add(
        "list",
        group,
        "methods",
        "kd",
        f"Separated by commas: {', '.join(_methods.ALONE)}, or {', '.join(_methods.PARTS)}, which "
        "can be joined: probability_shift+focal.",
    )
    flags.add("string", group, "method", None, "One method; the same as --methods with one name.")
    flags.add(
        "float",
        group,
        "teacher_weight",
        0.9,
        "Weight of the teacher's logits against the labels, in [0, 1].",
    )
    flags.add(
        "float",
        group,
        "temperature",
        None,
        "Of the teacher's logits, positive (default: 4; 3 for self_distillation; 1 for "
        "label_smooth, to which none applies).",
    )
    flags.add(
        "list",
        group,
        "hint_layers",
        "stage2:stage2",
        "Layers of fitnet, STUDENT:TEACHER, separated by commas.",
    )
    flags.add("float", group, "hint_weight", 100.0, "Weight of fitnet, at least 0.")
    flags.add(
        "list",
        group,
        "attention_layers",
        None,
        "Layers of attention, STUDENT:TEACHER, separated by commas (default: the stages that both "
        "have).",
    )
    flags.add("float", group, "attention_weight", 1000.0, "Weight of attention, at least 0.")
    flags.add(
        "string",
        group,
        "peer",
        None,
        "Network that learns with the student in mutual (default: the student's kind).",
    )
    _supervision.define_numbers(flags)
    group = "Teacher cache"
    flags.add(
        "boolean",
        group,
        "cache_teacher",
        False,
        "Compute the teacher's outputs once, for --views fixed views of each image. That is "
        "another recipe than fresh crops in every epoch.",
    )
    flags.add("integer", group, "views", 8, "Fixed views of each image, positive.")
    _run.define_training(flags)
    flags.add(
        "list",
        "Training",
        "seeds",
        None,
        "Seeds of the students, separated by commas, in place of --seed.",
    )
    _run.define_output(flags)
    flags.add(
        "string",
        "Output",
        "export",
        "best",
        "What goes to SavedModel and LiteRT: best (the student with the highest validation "
        "accuracy) or none.",
    )


def _check(flags):
    from_file = _methods.teacher_is_file(flags)
    networks = ["student", "peer"] if from_file else ["teacher", "student", "peer"]
    most = {"teacher_epochs": 1, "seeds": 2, **({"views": 1} if flags.cache_teacher else {})}
    _smoke.shrink(flags, *networks, data=not from_file, **most)
    info = _run.check_data(flags)
    _run.check_network(flags, info, "student")
    methods = _check_methods(flags, info)
    trains_teacher = _check_teacher(flags, info, methods)
    if any(method.trainer == "mutual" for method in methods):
        if flags.peer is None:
            flags.peer = flags.student
        _run.check_network(flags, info, "peer")
    else:
        flags.require_use(False, "the method mutual", "peer")
    flags.require("views", flags.views > 0, "positive")
    flags.require_one_of("export", _EXPORTS)
    usual = _run.usual_schedule(flags, "distillation")
    _run.check_training(flags, usual)
    if trains_teacher and flags.teacher_epochs is None:
        flags.teacher_epochs = flags.epochs
    if trains_teacher:
        flags.require("teacher_epochs", flags.teacher_epochs > 0, "positive")
    seeds = _check_seeds(flags)
    _run.default_output_dir(
        flags,
        RECIPE.name,
        _outputs.name(flags.teacher),
        flags.student,
        ",".join(method.name for method in methods),
        ",".join(map(str, seeds)),
    )
    return usual, methods, seeds


def _check_methods(flags, info):
    if flags.method is not None:
        if flags["methods"].present:
            raise UsageError("--method and --methods exclude each other. Received: both")
        flags.methods, flags.method = [flags.method], None
    methods = [_methods.parse(name) for name in flags.methods]
    flags.require("methods", len(set(flags.methods)) == len(methods) > 0, "different names")
    flags.require("teacher_weight", 0 <= flags.teacher_weight <= 1, "in [0, 1]")
    for flag in _methods.WEIGHTS.values():
        flags.require(flag, 0 <= flags[flag].value < math.inf, "at least 0")
    kinds = {method.features for method in methods}
    by_logits = any(method.by_logits for method in methods)
    by_exits = any(method.trainer == "self_distillation" for method in methods)
    flags.require_use(by_logits, "methods that teach by logits", "teacher_weight")
    flags.require_use(by_logits or by_exits, "methods that teach by logits", "temperature")
    flags.require_use("hint" in kinds, "the method fitnet", "hint_layers", "hint_weight")
    flags.require_use("attention" in kinds, "attention", "attention_layers", "attention_weight")
    for method in methods:
        _supervision.check(
            flags,
            _methods.temperature(flags, method),
            info.classes,
            adjustment=method.adjustment,
            dynamic_temperature=method.dynamic_temperature,
        )
    for kind in _methods.LAYERS:
        _methods.layer_pairs(flags, kind)
    return methods


def _check_teacher(flags, info, methods):
    """Returns whether a teacher is trained."""
    flags.require_one_of("teacher_input", INPUTS)
    flags.require("teacher_seed", 0 <= flags.teacher_seed < 2**31, "from 0 to 2147483647")
    flags.teacher = os.path.expanduser(flags.teacher)
    if _methods.teacher_is_file(flags):
        _outputs.check_network(flags, "teacher")
    else:
        _run.check_network(flags, info, "teacher")
        usual = flags.teacher_input in ("auto", "normalized")
        flags.require("teacher_input", usual, "normalized for a teacher that is trained here")
    taught = any(method.needs_teacher for method in methods)
    trains = taught and not _methods.teacher_is_file(flags)
    flags.require_use(trains, "a teacher that is trained here", "teacher_epochs")
    flags.require_use(taught, "methods that have a teacher", "cache_teacher")
    flags.require_use(flags.cache_teacher, "--cache_teacher", "views")
    return trains


def _check_seeds(flags):
    if flags.seeds is None:
        return [flags.seed]
    try:
        seeds = [int(seed) for seed in flags.seeds]
    except ValueError as error:
        raise UsageError(f"--seeds must be integers. Received: {','.join(flags.seeds)}") from error
    in_range = all(0 <= seed < 2**31 for seed in seeds) and len(set(seeds)) == len(seeds) > 0
    flags.require("seeds", in_range, "different integers from 0 to 2147483647")
    flags.require("seed", flags.seed in (0, seeds[0]), f"left out beside --seeds={seeds}")
    flags.seed = seeds[0]
    return seeds


def _run_recipe(flags, checked):
    usual, methods, seeds = checked
    data = _run.load(flags)

    from kdtoolkit.recipes._teaching import Teaching
    from kdtoolkit.training import loop, progress

    taught = any(method.needs_teacher for method in methods)
    trains_teacher = taught and not _methods.teacher_is_file(flags)
    path = _outputs.fetch(flags, "teacher") if taught and not trains_teacher else None
    teaching = Teaching(flags, data, path)
    before = flags.teacher_epochs if trains_teacher else 0
    bar = progress.Progress(before + len(methods) * len(seeds) * flags.epochs)
    settings = _run.settings(flags, usual, data, bar)
    with settings.compute.policy():
        example = teaching.example_teacher() if taught else None
        # Whatever is wrong with a method is said before any training.
        for method in methods:
            teaching.trainer(method, example, seeds[0])
    output_dir = _run.begin(flags, data, settings.compute)

    given = {}
    if path is not None:
        given["teacher"] = _outputs.remember(flags, "teacher", path, output_dir)

    def complete(path, settings, generation, build, make_trainer, data, done, name, **labels):
        training = loop.Training(
            output_dir / path, settings, generation, output_dir / "logs" / path, path
        )

        def evaluate(network):
            return {**labels, **teaching.figures(network)}

        with _run.one_line_errors(data):
            return training.complete(
                build, make_trainer, data, evaluate, lambda: bar.begin(name, done)
            )

    teacher, teacher_row = None, None
    if trains_teacher:
        own = dataclasses.replace(settings, epochs=flags.teacher_epochs, seed=flags.teacher_seed)
        teacher, teacher_row = complete(
            "teacher", own, 0, teaching.build_teacher, teaching.teacher_trainer, data, 0, "teacher"
        )
    elif taught:
        teacher, teacher_row = example, teaching.figures(example)
    if flags.cache_teacher:
        with _run.one_line_errors(data):
            teaching.cache(teacher, methods, output_dir / "teacher_cache", settings.strategy)

    rows, networks = [], {}
    for seed in seeds:
        for method in methods:
            network, row = complete(
                f"{method.name}/seed_{seed}",
                dataclasses.replace(settings, seed=seed),
                1,
                lambda method=method: teaching.build(method),
                lambda method=method, seed=seed: teaching.trainer(method, teacher, seed),
                teaching.taught if method.needs_teacher else teaching.data,
                before + len(rows) * flags.epochs,
                f"{method.name}, seed {seed}",
                method=method.name,
                seed=seed,
            )
            rows.append(row)
            networks[method.name, seed] = network
    best = max(rows, key=lambda row: row["validation_accuracy"])

    def export():
        network = teaching.classifier(networks[best["method"], best["seed"]])
        return _run.export(network, "student", data, output_dir)

    summary = summarise(rows)
    parts = {
        "given": given,
        "seeds": seeds,
        "teacher": teacher_row,
        "methods": rows,
        "summary": summary,
        "best": best,
    }
    return _run.finish(
        RECIPE.name, flags, output_dir, data, parts, export if flags.export != "none" else None
    )


def _show(flags, results):
    teacher, seeds, best = results["teacher"], results["seeds"], results["best"]
    who, source = flags.student, ""
    if teacher is not None:
        who = f"{flags.teacher} to {flags.student}"
        source = f", teacher {teacher['test_accuracy']:.2%}"
    runs = "one run" if len(seeds) == 1 else "means and standard deviations over them"
    lines = [
        f"\n{who} on {flags.dataset}{source}; {flags.epochs} epochs, "
        f"seeds {', '.join(map(str, seeds))} ({runs})\n",
        _report.table(_printed(results["summary"]), _COLUMNS),
    ]
    if results["exports"]:
        lines.append(
            f"\nExported: {best['method']}, seed {best['seed']}, the best on validation images"
        )
    return "\n".join([*lines, _run.exports_table(results, flags.output_dir)])


def summarise(rows):
    """Returns a row per method: mean and sample deviation over the seeds.

    `deviation` is None for one seed. `gain` is the mean difference to `plain`, seed by seed.
    """
    plain = {row["seed"]: row["test_accuracy"] for row in rows if row["method"] == "plain"}
    summary = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        gains = [row["test_accuracy"] - plain[row["seed"]] for row in own if plain]
        summary.append(
            {
                "method": method,
                "runs": len(own),
                **_mean(own, "test_accuracy"),
                **_mean(own, "validation_accuracy"),
                "gain": statistics.mean(gains) if gains and method != "plain" else None,
                "seconds": statistics.mean(row["seconds"] for row in own),
            }
        )
    return summary


def _mean(rows, key):
    values = [row[key] for row in rows]
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {key: statistics.mean(values), f"{key}_deviation": deviation}


def _printed(summary):
    def accuracy(row, key):
        deviation = row[f"{key}_deviation"]
        return f"{row[key]:.2%}" + ("" if deviation is None else f" ± {100 * deviation:.2f}")

    return [
        {
            **row,
            "test": accuracy(row, "test_accuracy"),
            "validation": accuracy(row, "validation_accuracy"),
            "gain": None if row["gain"] is None else f"{100 * row['gain']:+.2f}",
        }
        for row in summary
    ]


RECIPE = _command.Recipe(
    name="distill",
    summary=__doc__.strip(),
    define=_define,
    check=_check,
    run=_run_recipe,
    show=_show,
)

if __name__ == "__main__":
    sys.exit(RECIPE.main())
