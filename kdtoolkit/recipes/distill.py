"""Teaches a small network by a large one, in one or several ways, and compares them over seeds."""

import sys

from kdtoolkit import report
from kdtoolkit._checks import check_seeds
from kdtoolkit.data.preprocessing import INPUTS
from kdtoolkit.methods import ways as teaching
from kdtoolkit.models import registry
from kdtoolkit.recipes import _command, _flags, _outputs, _pretrained, _report, _smoke
from kdtoolkit.recipes._command import UsageError, blaming_arguments
from kdtoolkit.recipes._methods import MethodFlags
from kdtoolkit.recipes._session import Session

_METHODS = MethodFlags(alone=teaching.NAMES)
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
    _flags.define_data(flags)
    group = "Teacher and student"
    flags.add(
        "string",
        group,
        "teacher",
        "resnet20",
        "A .keras file of a classifier, a recipe's output directory, or the name of a network to "
        "train first. One from a file that was made for images of another size sees the student's, "
        "resized.",
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
    _pretrained.define(flags, group, "teacher", "teacher_")
    accepted = ", ".join(registry.names())
    flags.add("string", group, "student", "resnet8", f"One of {accepted}.")
    flags.add(
        "string",
        group,
        "peer",
        None,
        "Network that learns with the student in mutual (default: the student's kind).",
    )
    _METHODS.define(flags, "kd", "Ways to teach, separated by commas", "list")
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
    _flags.define_training(flags)
    _flags.define_protocol(flags)
    flags.add(
        "list",
        "Training",
        "seeds",
        None,
        "Seeds of the students, separated by commas, in place of --seed.",
    )
    _flags.define_output(flags)
    flags.add(
        "string",
        "Output",
        "export",
        None,
        "What goes to SavedModel and LiteRT: best (the student with the highest validation "
        "accuracy) or none (default: best, or none where several were not validated).",
    )


def _check(flags):
    from_file = _outputs.is_path(flags.teacher)
    own = from_file or flags.teacher_weights is not None  # which fit their own images
    networks = ["student", "peer"] if own else ["teacher", "student", "peer"]
    most = {"teacher_epochs": 1, "teacher_freeze_epochs": 1, "seeds": 2}
    most |= {"views": 1} if flags.cache_teacher else {}
    _smoke.shrink(flags, *networks, data=not own, **most)
    _flags.check_protocol(flags)
    info = _flags.check_data(flags)
    family = _flags.check_network(flags, info, "student")
    ways = _check_ways(flags, info)
    trains_teacher = _check_teacher(flags, info, ways)
    if any(way.trainer == "mutual" for way in ways):
        if flags.peer is None:
            flags.peer = flags.student
        _flags.check_network(flags, info, "peer")
    else:
        flags.require_use(False, "the method mutual", "peer")
    flags.require("views", flags.views > 0, "positive")
    usual = _flags.benchmark_schedule(flags, family)
    usual = usual or _flags.usual_schedule(flags, "distillation")
    _flags.check_training(flags, usual)
    if trains_teacher and flags.teacher_epochs is None:
        flags.teacher_epochs = flags.epochs
    if trains_teacher:
        flags.require("teacher_epochs", flags.teacher_epochs > 0, "positive")
        _pretrained.check_epochs(flags, flags.teacher_epochs, "teacher_")
    seeds = _check_seeds(flags)
    _check_export(flags, len(ways) * len(seeds))
    _flags.default_output_dir(
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
    make = _METHODS.maker(flags)
    with blaming_arguments(flags, teaching.NAMES):
        ways = [teaching.parse_way(name, make) for name in flags.methods]
    _METHODS.check(flags, (method for way in ways for method in way.methods), info.classes)
    return ways


def _check_teacher(flags, info, ways):
    """Returns whether a teacher is trained."""
    flags.require_one_of("teacher_input", INPUTS)
    flags.require("teacher_seed", 0 <= flags.teacher_seed < 2**31, "from 0 to 2147483647")
    if _outputs.is_path(flags.teacher):
        _outputs.check_network(flags, "teacher")
    else:
        family = _flags.check_network(flags, info, "teacher")
        _pretrained.check(flags, info, family, "teacher", "teacher_")
        usual = flags.teacher_input in ("auto", "normalized")
        flags.require("teacher_input", usual, "normalized for a teacher that is trained here")
    taught = any(way.needs_teacher for way in ways)
    flags.require_use(taught or flags.smoke, "methods that have a teacher", "teacher")
    trains = taught and not _outputs.is_path(flags.teacher)
    own = ("epochs", "weights", "freeze_epochs", "backbone_learning_rate")
    flags.require_use(trains, "a teacher that is trained here", *(f"teacher_{x}" for x in own))
    flags.require_use(taught, "methods that have a teacher", "cache_teacher")
    seeded = trains or flags.cache_teacher
    accepted = "a teacher that is trained here, or --cache_teacher"
    flags.require_use(seeded, accepted, "teacher_seed")
    flags.require_use(flags.cache_teacher, "--cache_teacher", "views")
    if flags.cache_teacher:
        for name in ("mixup", "cutmix"):
            accepted = "0 with --cache_teacher: which images are mixed is drawn anew in each epoch"
            flags.require(name, flags[name].value == 0, accepted)
    return trains


def _check_export(flags, students):
    """What goes to files is chosen on validation images, where there is a choice."""
    can_choose = flags.protocol != "benchmark" or students == 1
    if flags.export is None:
        flags.export = "best" if can_choose else "none"
    _flags.check_export(flags, _EXPORTS)
    accepted = "none with --protocol=benchmark, where nothing may choose among several students"
    flags.require("export", can_choose or flags.export == "none", accepted)


def _check_seeds(flags):
    if flags.seeds is None:
        return [flags.seed]
    try:
        seeds = [int(seed) for seed in flags.seeds]
    except ValueError as error:
        raise UsageError(f"--seeds must be integers. Received: {','.join(flags.seeds)}") from error
    with blaming_arguments(flags):
        check_seeds(seeds)
    flags.require("seed", flags.seed in (0, seeds[0]), f"left out beside --seeds={seeds}")
    flags.seed = seeds[0]
    return seeds


def _run_recipe(flags, checked):
    usual, ways, seeds = checked
    session = Session(RECIPE.name, flags, usual)
    data, output_dir = session.data, session.output_dir

    from kdtoolkit import models
    from kdtoolkit.comparison import compare, summarise

    from_file = _outputs.is_path(flags.teacher) and any(way.needs_teacher for way in ways)
    path = _outputs.fetch(flags, "teacher") if from_file else None
    start = _pretrained.Start(flags, data, "teacher", "teacher_")
    strategy, compute, given = session.strategy, session.compute, {}

    def build(name, **options):
        return lambda: models.build(name, data.info.image_shape, data.info.classes, **options)

    def claim():
        session.begin()
        start.remember(output_dir, given)
        if from_file:
            given["teacher"] = _outputs.remember(flags, "teacher", path, output_dir)

    with compute.policy():
        teacher = build(flags.teacher, **start.options)
        if from_file:
            teacher = _outputs.loader(flags, "teacher", path, data, resize=True)()
    with session.guarded(), blaming_arguments(flags, cached_views="cache_teacher"):
        result = compare(
            build(flags.student),
            data,
            output_dir,
            teacher=teacher,
            ways=ways,
            peer=build(flags.peer),
            seeds=seeds,
            cached_views=flags.views if flags.cache_teacher else None,
            teacher_epochs=flags.teacher_epochs,
            teacher_seed=flags.teacher_seed,
            teacher_transfer=start.transfer,
            schedule=session.schedule,
            epochs=flags.epochs,
            batch_size=flags.batch_size,
            strategy=strategy,
            compute=compute,
            claim=claim,
        )
    parts = {
        "given": given,
        "seeds": seeds,
        "teacher": result.teacher_results,
        "methods": result.rows,
        "summary": summarise(result.rows),
        "best": result.best,
    }

    def export():
        return session.export(result.best_network, "student")

    return session.finish(parts, export)


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
        chosen = ", the best on validation images" if len(results["methods"]) > 1 else ""
        lines.append(f"\nExported: {best['method']}, seed {best['seed']}{chosen}")
    return "\n".join([*lines, _report.exports_table(results, flags.output_dir)])


def _page(flags, results, directory):
    from kdtoolkit.intervals import t_interval
    from kdtoolkit.report import pictures

    accuracies: dict[str, list[float]] = {}
    for row in results["methods"]:
        accuracies.setdefault(row["method"], []).append(row["test_accuracy"])
    rows = [(name, own, t_interval(own)) for name, own in accuracies.items()]
    caption = "Test accuracy of each student (point) and their mean (bar)"
    if len(results["seeds"]) > 1:
        caption += ", with the 95% interval of the mean over other seeds (Student's t)"
    parts = [
        report.Table.of(_printed(results["summary"]), _COLUMNS),
        report.Picture(pictures.seeds(rows, "test accuracy (%)"), f"{caption}."),
    ]
    teacher, who = results["teacher"], flags["student"]
    if teacher is not None:
        who = f"{flags['teacher']} to {who}"
        parts.insert(0, f"Teacher: {teacher['test_accuracy']:.2%} of the test images right.")
    return f"{who} on {flags['dataset']}", [report.Section("Students", parts)]


def _printed(summary):
    def accuracy(row, key):
        if row[key] is None:
            return None
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
    page=_page,
    renamed=_RENAMED,
)

if __name__ == "__main__":
    sys.exit(RECIPE.main())
