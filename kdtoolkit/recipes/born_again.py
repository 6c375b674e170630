"""Trains a patriarch and generations of students, and exports the last one for the edge."""

import sys

from kdtoolkit import report
from kdtoolkit.losses.strengths import (
    ADAPTIVE,
    PATRIARCHS,
    TOP_K_SHARE,
    check_primary_score,
    check_tolerance,
    usual_top_k,
)
from kdtoolkit.recipes import _command, _flags, _pretrained, _report, _session, _smoke
from kdtoolkit.recipes._command import blaming_arguments
from kdtoolkit.recipes._methods import MethodFlags

_MOST_GENERATIONS = 1000
# D(0.6, 0.6): Eqn 4 has no temperature. An option may have a value for each student, by commas.
_METHODS = MethodFlags({"kd_weight": 0.6, "kd_temperature": 1.0})
_RENAMED = {
    "teacher_weight": "--kd_weight",
    "temperature": "--kd_temperature",
    "confidence_weighted": "--methods=cwtm",
    "permute_secondary": "--methods=dkpp",
    "adjustment": "--methods=probability_shift or --methods=label_smooth",
    "dynamic_temperature": "--methods=focal or --methods=student_max",
    "temperature_slope": "--focal_slope or --student_max_slope",
}
_EXPORTS = ("student", "ensemble", "none")
_COLUMNS = {
    "generation": ("generation", "d"),
    "test_accuracy": ("test accuracy", ".2%"),
    "ensemble_test_accuracy": ("ensemble 0..g", ".2%"),
    "validation_accuracy": ("validation", ".2%"),
    "test_loss": ("test loss", ".4f"),
    "primary_score": ("primary score", ".3f"),
    "seconds": ("seconds", ".0f"),
    "images_per_second": ("images/s", ".0f"),
}


def _define(flags):
    _flags.define_data(flags)
    _flags.define_network(flags)
    _pretrained.define(flags, "Data and network", "model")
    group = "Generations"
    flags.add("integer", group, "generations", 2, "Number of students after the patriarch.")
    flags.add("string", group, "patriarch", "tolerant", f"One of {', '.join(PATRIARCHS)}.")
    flags.add(
        "float",
        group,
        "primary_score",
        0.6,
        "The patriarch's largest probability at the optimum of its loss, in (1/top_k, 1], or "
        "(1/2, 1] where that is adaptive; 1 trains "
        "it plainly. A tolerant one is for networks that fit their training images and are sure of "
        "them (a plain one's primary score there is above 0.9); others are tolerant already: see "
        "docs/evidence.md.",
    )
    flags.add(
        "string",
        group,
        "top_k",
        None,
        "Number of scores that a tolerant patriarch compares, or adaptive: for each image those of "
        "at least --top_k_share of the largest, two at least (default: 5, or all classes if there "
        "are fewer).",
    )
    text = "Share of the largest score that others have with --top_k=adaptive, in (0, 1)."
    flags.add("float", group, "top_k_share", TOP_K_SHARE, text)
    text = (
        "How each generation teaches the next (an option has one value, or one for each "
        "student, separated by commas)"
    )
    _METHODS.define(flags, "kd", text)
    _flags.define_training(flags)
    _flags.define_output(flags)
    flags.add(
        "string",
        "Output",
        "export",
        "student",
        "What goes to SavedModel and LiteRT: student (the last one), ensemble (of all generations) "
        "or none.",
    )


def _check(flags):
    if flags.weights is None:
        _smoke.shrink(flags, "model", generations=1)
    else:  # which fit their own network and images
        _smoke.shrink(flags, data=False, generations=1, freeze_epochs=1)
    if flags.smoke:
        _METHODS.shrink(flags)
    info = _flags.check_data(flags)
    family = _flags.check_network(flags, info)
    _pretrained.check(flags, info, family, "model")
    in_range = 0 <= flags.generations <= _MOST_GENERATIONS
    flags.require("generations", in_range, f"from 0 to {_MOST_GENERATIONS}")
    flags.require_one_of("patriarch", PATRIARCHS)
    flags.require_use(flags.patriarch != "plain", "a patriarch that is softened", "primary_score")
    accepted = "a tolerant patriarch, --primary_score below 1"
    flags.require_use(_compares_scores(flags), accepted, "top_k")
    flags.require_use(_top_k(flags) == ADAPTIVE, f"--top_k={ADAPTIVE}", "top_k_share")
    check_classes(flags, info.classes)
    _check_methods(flags, info.classes)
    _flags.check_export(flags, _EXPORTS)
    usual = _flags.usual_schedule(
        flags, family.schedule if flags.weights is None else _pretrained.SCHEDULE
    )
    _flags.check_training(flags, usual)
    _pretrained.check_epochs(flags, flags.epochs)
    _flags.default_output_dir(flags, RECIPE.name, flags.model, flags.seed)
    return usual


def check_classes(flags, classes):
    """Checks what depends on the number of classes, once that is known, and sets the default."""
    if classes is None:
        return
    if flags.top_k is None and _compares_scores(flags):
        flags.top_k = str(usual_top_k(classes))
    with blaming_arguments(flags):
        if _compares_scores(flags):
            check_tolerance(flags.primary_score, _top_k(flags), flags.top_k_share, classes)
        else:
            check_primary_score(flags.primary_score, classes)


def _compares_scores(flags):
    """Whether the patriarch's loss is Eqn 3, not the plain one that it is at 1."""
    return flags.patriarch == "tolerant" and flags.primary_score != 1


def _top_k(flags):
    """What the flag's text stands for: an integer of at least 2, or `ADAPTIVE`; None as it is."""
    text = flags.top_k
    if text in (ADAPTIVE, None):
        return text
    try:
        top_k = int(text)
    except ValueError:
        top_k = 0
    flags.require("top_k", top_k >= 2, f"an integer of at least 2, or {ADAPTIVE}")
    return top_k


def _check_methods(flags, classes):
    """Returns the methods of each student, checked."""
    chosen = [
        _METHODS.parse(flags, flags.methods, student=(number, flags.generations))
        for number in range(flags.generations)
    ]
    _METHODS.check(flags, (method for own in chosen for method in own), classes)
    if not flags.generations:
        _METHODS.parse(flags, flags.methods)  # for its mistakes alone
    return chosen


def _run(flags, usual):
    session = _session.Session(RECIPE.name, flags, usual)
    shape, classes = session.data.info.image_shape, session.data.info.classes
    check_classes(flags, classes)

    from kdtoolkit import models
    from kdtoolkit.generations import train_generations

    chosen = _check_methods(flags, classes)
    start, given = _pretrained.Start(flags, session.data, "model"), {}

    def claim():
        session.begin()
        start.remember(session.output_dir, given)

    with session.guarded(), blaming_arguments(flags):
        lineage = train_generations(
            lambda: models.build(flags.model, shape, classes, **start.options),
            session.data,
            session.output_dir,
            generations=flags.generations,
            primary_score=flags.primary_score,
            methods=lambda number: chosen[number - 1],
            top_k=_top_k(flags),
            top_k_share=flags.top_k_share,
            patriarch=flags.patriarch,
            schedule=session.schedule,
            epochs=flags.epochs,
            batch_size=flags.batch_size,
            seed=flags.seed,
            strategy=session.strategy,
            compute=session.compute,
            transfer=start.transfer,
            claim=claim,
        )
        networks = [generation.network for generation in lineage]

        def export():
            last = models.Ensemble(networks) if flags.export == "ensemble" else networks[-1]
            return session.export(last, flags.export)

        return session.finish(
            {"given": given, "generations": [generation.results for generation in lineage]}, export
        )


def _show(flags, results):
    score = 1 if flags.patriarch == "plain" else flags.primary_score
    weights = (flags.kd_weight or "0.6") if flags.generations else "0"
    process = f"D({score:g}, {weights})" if flags.methods == "kd" else flags.methods
    return (
        f"\n{flags.model} on {flags.dataset}, {process}, "
        f"{flags.patriarch} patriarch, "
        f"{flags.epochs} epochs a generation, seed {flags.seed} (one run)\n\n"
        f"{_report.table(results['generations'], _COLUMNS)}\n"
        f"{_report.exports_table(results, flags.output_dir)}"
    )


def _page(flags, results, directory):
    from kdtoolkit.analysis.pictures import energy
    from kdtoolkit.report import pictures

    rows = results["generations"]
    accuracies = {"alone": "test_accuracy", "ensemble of 0 to here": "ensemble_test_accuracy"}
    curves = {name: [100 * row[key] for row in rows] for name, key in accuracies.items()}
    scores = {
        f"generation {row['generation']}": row["sorted_confidences"]
        for row in rows
        if "sorted_confidences" in row
    }
    parts = [
        report.Table.of(rows, _COLUMNS),
        report.Picture(
            pictures.by_generation(curves, "test accuracy (%)"),
            "Test accuracy of each generation, and of the mean of the probabilities up to it.",
        ),
    ]
    if scores:
        parts.append(
            report.Picture(
                energy(scores),
                "How sure generations are on test images: mean of the largest probability, of the "
                "second largest, and so on. A tolerant one leaves more to second choices.",
            )
        )
    title = f"{flags['model']} in generations on {flags['dataset']}"
    return title, [report.Section("Generations", parts)]


RECIPE = _command.Recipe(
    name="born_again",
    summary=__doc__.strip(),
    define=_define,
    check=_check,
    run=_run,
    show=_show,
    page=_page,
    renamed=_RENAMED,
)

if __name__ == "__main__":
    sys.exit(RECIPE.main())
