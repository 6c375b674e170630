"""Teaches a small network by a large one, in one or several ways, and compares them over seeds."""

import dataclasses
import os
import statistics
import sys

from kdtoolkit.data.preprocessing import INPUTS
from kdtoolkit.models import registry
from kdtoolkit.recipes import _command, _outputs, _report, _run, _smoke, _ways
from kdtoolkit.recipes._command import UsageError, blaming_arguments

_RENAMED = {
    "teacher_weight": "--kd_weight",
    "temperature": "--kd_temperature",
    "hint_layers": "--fitnet_layers",
    "hint_weight": "--fitnet_weight",
    "temperature_slope": "--focal_slope or --student_max_slope",
}
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
    flags.add(
        "string",
        group,
        "peer",
        None,
        "Network that learns with the student in mutual (default: the student's kind).",
    )
    _ways.FLAGS.define(flags, "kd", "Ways to teach, separated by commas", "list")
    flags.add(
        "string", "Methods", "method", None, "One of them; the same as --methods with one name."
    )
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
    from_file = _teacher_is_file(flags)
    networks = ["student", "peer"] if from_file else ["teacher", "student", "peer"]
    most = {"teacher_epochs": 1, "seeds": 2, **({"views": 1} if flags.cache_teacher else {})}
    _smoke.shrink(flags, *networks, data=not from_file, **most)
    info = _run.check_data(flags)
    _run.check_network(flags, info, "student")
    ways = _check_ways(flags, info)
    trains_teacher = _check_teacher(flags, info, ways)
    if any(way.trainer == "mutual" for way in ways):
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
        ",".join(way.name for way in ways),
        ",".join(map(str, seeds)),
    )
    return usual, ways, seeds


def _check_ways(flags, info):
    if flags.method is not None:
        if flags["methods"].present:
            raise UsageError("--method and --methods exclude each other. Received: both")
        flags.methods, flags.method = [flags.method], None
    flags.require("methods", len(set(flags.methods)) == len(flags.methods) > 0, "different names")
    ways = [_ways.parse(flags, name) for name in flags.methods]
    _ways.check(flags, ways, info.classes)
    return ways


def _check_teacher(flags, info, ways):
    """Returns whether a teacher is trained."""
    flags.require_one_of("teacher_input", INPUTS)
    flags.require("teacher_seed", 0 <= flags.teacher_seed < 2**31, "from 0 to 2147483647")
    flags.teacher = os.path.expanduser(flags.teacher)
    if _teacher_is_file(flags):
        _outputs.check_network(flags, "teacher")
    else:
        _run.check_network(flags, info, "teacher")
        usual = flags.teacher_input in ("auto", "normalized")
        flags.require("teacher_input", usual, "normalized for a teacher that is trained here")
    taught = any(way.needs_teacher for way in ways)
    trains = taught and not _teacher_is_file(flags)
    flags.require_use(trains, "a teacher that is trained here", "teacher_epochs")
    flags.require_use(taught, "methods that have a teacher", "cache_teacher")
    flags.require_use(flags.cache_teacher, "--cache_teacher", "views")
    return trains


def _teacher_is_file(flags):
    """Whether the teacher is a file or a directory, not the name of a network."""
    path = flags.teacher
    return path.endswith(".keras") or os.sep in path or os.path.isdir(path)


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
    usual, ways, seeds = checked
    data = _run.load(flags)

    from kdtoolkit.recipes._teaching import Teaching
    from kdtoolkit.training import loop, progress

    taught = any(way.needs_teacher for way in ways)
    trains_teacher = taught and not _teacher_is_file(flags)
    path = _outputs.fetch(flags, "teacher") if taught and not trains_teacher else None
    teaching = Teaching(flags, data, path)
    before = flags.teacher_epochs if trains_teacher else 0
    bar = progress.Progress(before + len(ways) * len(seeds) * flags.epochs)
    settings = _run.settings(flags, usual, data, bar)
    with settings.compute.policy():
        example = teaching.example_teacher() if taught else None
        # Whatever is wrong with a method is said before any training.
        for way in ways:
            with blaming_arguments():
                teaching.trainer(way, example, seeds[0])
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
            teaching.cache(teacher, ways, output_dir / "teacher_cache", settings.strategy)

    rows, networks = [], {}
    for seed in seeds:
        for way in ways:
            network, row = complete(
                f"{way.name}/seed_{seed}",
                dataclasses.replace(settings, seed=seed),
                1,
                lambda way=way: teaching.build(way),
                lambda way=way, seed=seed: teaching.trainer(way, teacher, seed),
                teaching.taught if way.needs_teacher else teaching.data,
                before + len(rows) * flags.epochs,
                f"{way.name}, seed {seed}",
                method=way.name,
                seed=seed,
            )
            rows.append(row)
            networks[way.name, seed] = network
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
    renamed=_RENAMED,
)

if __name__ == "__main__":
    sys.exit(RECIPE.main())
