"""Makes a classifier as small or fast as its accuracy allows: tries all ways, chooses the file."""

import os
import sys
from pathlib import Path

from kdtoolkit import cluster, report
from kdtoolkit._checks import BELOW_1, POSITIVE, OneOf, check
from kdtoolkit.data.preprocessing import INPUTS
from kdtoolkit.front.choosing import OBJECTIVES
from kdtoolkit.front.plan import KINDS, NO_TIME
from kdtoolkit.models import registry
from kdtoolkit.recipes import _command, _flags, _outputs, _pretrained, _report, _smoke
from kdtoolkit.recipes._command import blaming_arguments
from kdtoolkit.recipes._session import Session
from kdtoolkit.training.schedules import SCHEDULES

_COLUMNS = {
    "name": ("file", ""),
    "mark": ("", ""),
    "validation_accuracy": ("validation", ".2%"),
    "test_accuracy": ("test accuracy", ".2%"),
    "milliseconds_per_image": ("ms/image", ".3f"),
    "bytes": ("bytes", ",d"),
    "gzipped_bytes": ("gzipped", ",d"),
    "macs": ("MACs", ",d"),
}
_TRIED = {"candidate": ("tried", ""), "seconds": ("seconds", ".0f"), "outcome": ("", "")}
_FIGURES = "report.html shows the front, results.json holds the figures."
_CHARTS = {"milliseconds_per_image": "milliseconds per image", "bytes": "bytes"}


def _define(flags):
    _flags.define_data(flags)
    group = "Classifier"
    flags.add(
        "string",
        group,
        "model",
        "resnet20",
        "A .keras file of a classifier or a recipe's output directory, which is taken as it is; or "
        f"a network to train first: one of {', '.join(registry.names())}, or keras:NAME of "
        "keras.applications.",
    )
    flags.add(
        "string",
        group,
        "model_input",
        "auto",
        "Pixel values that a network from a file was trained on: normalized (by this data set's "
        "mean and deviation), unit (0 to 1), bytes (0 to 255), or auto: those that its first "
        "layers scale, else normalized.",
    )
    _pretrained.define(flags, group, "model")
    group = "Search"
    flags.add(
        "string",
        group,
        "target",
        "ms",
        f"What is to be small: {', '.join(OBJECTIVES)}; ms are the milliseconds that the file "
        "takes for an image on this machine, on one thread.",
    )
    flags.add(
        "float",
        group,
        "max_accuracy_drop",
        0.01,
        "Share of the validation images that the file may lose against the classifier's own in "
        "float32.",
    )
    flags.add(
        "list",
        group,
        "candidates",
        list(KINDS),
        f"What is tried, separated by commas, in this order: {', '.join(KINDS)}; quantize always "
        "is, and weights where the target is gzipped_bytes.",
    )
    flags.add(
        "list",
        group,
        "students",
        None,
        "Names of networks that the classifier teaches, separated by commas (default: a small one "
        "for images of this size).",
    )
    flags.add(
        "float",
        group,
        "budget_minutes",
        None,
        "Minutes that all of it may take, over all starts. What has begun is finished, and the "
        "classifier and its files are always made; with more minutes the same command goes on with "
        "what there was no time for (default: no limit).",
    )
    flags.may_change("budget_minutes")
    _flags.define_training(flags)
    flags["epochs"].help = (
        "Epochs of each fine-tuning; the learning rate drops at the same fractions of them "
        "(default: those of --schedule). What starts from freshly drawn weights has "
        "--epochs_from_scratch."
    )
    flags.add(
        "integer",
        "Training",
        "epochs_from_scratch",
        None,
        "Epochs of what starts from freshly drawn weights: students, and the classifier without "
        "--weights; --epochs and the other flags are those of fine-tuning (default: the published "
        "ones, 164 for CIFAR ResNets, 240 for students; 40 for digits).",
    )
    _flags.define_output(flags)


def _check(flags):
    given = _outputs.is_path(flags.model)
    _shrink_for_smoke(flags, given)
    info = _flags.check_data(flags)
    flags.require_one_of("model_input", INPUTS)
    if given:
        _outputs.check_network(flags, "model")
        flags.require_use(False, "a classifier that is trained here", "weights")
        family = None
    else:
        family = _flags.check_network(flags, info)
        usual = flags.model_input in ("auto", "normalized")
        flags.require("model_input", usual, "normalized for a classifier that is trained here")
        _pretrained.check(flags, info, family, "model")
    _check_search(flags, info)
    if flags.schedule is None:
        flags.schedule = _pretrained.SCHEDULE
    usual = _flags.usual_schedule(flags, flags.schedule)
    _flags.check_training(flags, usual)
    _pretrained.check_epochs(flags, flags.epochs)
    scratch = "student" in flags.candidates or not (given or flags.weights)
    accepted = "students, and a classifier that is trained here without --weights"
    flags.require_use(scratch or flags.smoke, accepted, "epochs_from_scratch")
    number = flags.epochs_from_scratch
    flags.require("epochs_from_scratch", number is None or number > 0, "positive")
    alone = cluster.of_strategy(flags.strategy) is None
    flags.require("strategy", alone, "of one process: a search has no workers")
    _flags.default_output_dir(
        flags, RECIPE.name, _outputs.name(flags.model), flags.target, flags.seed
    )
    return usual, family


def _shrink_for_smoke(flags, given):
    own = given or flags.weights is not None  # which fit their own images
    networks = () if own else ("model", "students")
    _smoke.shrink(flags, *networks, data=not own, freeze_epochs=1, students=1)
    if flags.smoke:
        flags.epochs_from_scratch = 1


def _check_search(flags, info):
    flags.require_one_of("target", OBJECTIVES)
    flags.require("max_accuracy_drop", flags.max_accuracy_drop in BELOW_1, BELOW_1)
    minutes = flags.budget_minutes
    flags.require("budget_minutes", minutes is None or minutes in POSITIVE, POSITIVE)
    with blaming_arguments(flags):
        for kind in flags.candidates:
            check("candidates", kind, OneOf(KINDS))
    names = flags.students or ()
    _flags.check_networks(flags, info, "students", names)
    flags.require("students", len(set(names)) == len(names), "different names")
    taught = "student" in flags.candidates
    flags.require_use(taught, "the candidate student", "students")


def _run_recipe(flags, checked):
    usual, family = checked
    session = Session(RECIPE.name, flags, usual)
    data, output_dir, given = session.data, session.output_dir, {}
    path = _outputs.fetch(flags, "model") if family is None else None

    from kdtoolkit import front

    def claim():
        if family is None:  # else the classifier was trained in the directory
            session.begin()
            given["model"] = _outputs.remember(flags, "model", path, output_dir)

    pace = None
    if family is not None:
        classifier, pace = _trained(flags, session, family, given)
    else:
        with session.compute.policy():
            classifier = _outputs.loader(flags, "model", path, data)
    renamed = {"objective": "target", "classifier": "model", "network": "model"}
    with session.guarded(), blaming_arguments(flags, **renamed, quantize="model"):
        found = front.search(
            classifier,
            data,
            output_dir,
            objective=flags.target,
            max_accuracy_drop=flags.max_accuracy_drop,
            candidates=flags.candidates,
            students=flags.students,
            budget_minutes=flags.budget_minutes,
            pace=pace,
            schedule=session.schedule,
            epochs=flags.epochs,
            student_schedule=_from_scratch(flags, "distillation"),
            student_epochs=flags.epochs_from_scratch,
            batch_size=flags.batch_size,
            seed=flags.seed,
            strategy=session.strategy,
            compute=session.compute,
            about=_flags.about(flags),
            claim=claim,
        )
    parts = {
        "given": given,
        "images": found.images,
        "files_tried": found.rows,
        "tried": found.tried,
        "chosen": found.chosen,
        "verdict": found.verdict,
    }

    def export():
        return [{**found.chosen, "path": found.path.relative_to(output_dir).as_posix()}]

    return session.finish(parts, export)


def _trained(flags, session, family, given):
    """The classifier that is trained first, and its `Pace`."""
    from kdtoolkit import generations, models, training

    data, output_dir = session.data, session.output_dir
    start = _pretrained.Start(flags, data, "model")

    def build():
        info = data.info
        return models.build(flags.model, info.image_shape, info.classes, **start.options)

    schedule, epochs = session.schedule, flags.epochs
    if start.transfer is None:
        schedule, epochs = _from_scratch(flags, family.schedule), flags.epochs_from_scratch
    strategy, compute = session.strategy, session.compute
    session.begin()
    start.remember(output_dir, given)
    with session.guarded(), blaming_arguments(flags):
        (made,) = generations.train_generations(
            build,
            data,
            output_dir / "classifier",
            generations=0,
            patriarch="plain",
            schedule=schedule,
            epochs=epochs,
            batch_size=flags.batch_size,
            seed=flags.seed,
            strategy=strategy,
            compute=compute,
            transfer=start.transfer,
        )
    results = made.results
    return made.network, training.Pace(results["seconds"], results["images_per_second"])


def _from_scratch(flags, name):
    """The `Schedule` of networks that start from freshly drawn weights."""
    return SCHEDULES["digits" if flags.dataset == "digits" else name]


def _marked(rows):
    """The rows, with what is said of each in a word."""

    def mark(row):
        return "chosen" if row["chosen"] else "front" if row["on_front"] else ""

    return [{**row, "mark": mark(row)} for row in rows]


def _show(flags, results):
    rows = results["files_tried"]
    lines = [
        f"\n{flags.model} on {flags.dataset}, seed {flags.seed} (one run); accuracy of the "
        f"files, of validation on {results['images']:,} images\n",
        _report.table(_marked(rows), _COLUMNS),
        "",
        _report.table(_outcomes(results), _TRIED),
        "",
        results["verdict"],
        *_more_time(results["tried"]),
        *_how_to_run(flags, results),
        _report.ending(rows, "name", flags.output_dir, _FIGURES),
    ]
    return "\n".join(lines)


def _outcomes(results):
    """What was tried, with what came of it in words."""

    def outcome(row):
        of = [file for file in results["files_tried"] if file["candidate"] == row["candidate"]]
        return row["outcome"] or f"{len(of)} file{'s' * (len(of) != 1)}"

    return [{**row, "outcome": outcome(row)} for row in results["tried"]]


def _more_time(tried):
    names = [row["candidate"] for row in tried if row["outcome"] == NO_TIME]
    if names:
        yield f"No time for {', '.join(names)}: a larger --budget_minutes goes on with them."


def _how_to_run(flags, results):
    (row,) = results["exports"]
    yield f"It is {os.path.join(flags.output_dir, row['path'])}; run it with"
    yield f"    {_report.how_to_run(row, Path(flags.output_dir))}"


def _page(flags, results, directory):
    from kdtoolkit.report import pictures

    rows = _marked(results["files_tried"])
    fronts = [
        report.Picture(
            pictures.front(
                rows, key, label, name="name", height="validation_accuracy", named="mark"
            ),
            f"Validation accuracy against {label}; what is named is on the front.",
        )
        for key, label in _CHARTS.items()
    ]
    sections = [
        report.Section("Files", [results["verdict"], report.Table.of(rows, _COLUMNS), *fronts]),
        report.Section("What was tried", [report.Table.of(_outcomes(results), _TRIED)]),
    ]
    return f"{flags['model']} made small, on {flags['dataset']}", sections


RECIPE = _command.Recipe(
    name="shrink",
    summary=__doc__.strip(),
    define=_define,
    check=_check,
    run=_run_recipe,
    show=_show,
    page=_page,
)

if __name__ == "__main__":
    sys.exit(RECIPE.main())
