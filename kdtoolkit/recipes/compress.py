"""Prunes and quantises a trained classifier, and reports what that gains and costs."""

import dataclasses
import sys
import typing
from collections.abc import Sequence

from kdtoolkit import report
from kdtoolkit.compression import sensitivity_files
from kdtoolkit.compression.options import Options
from kdtoolkit.compression.target import Target
from kdtoolkit.data.preprocessing import INPUTS
from kdtoolkit.recipes import _command, _flags, _outputs, _report, _smoke
from kdtoolkit.recipes._command import blaming_arguments
from kdtoolkit.recipes._methods import MethodFlags
from kdtoolkit.recipes._session import Session

# By `plain` the fine-tuning is on labels alone.
_METHODS = MethodFlags(alone=("plain",))
_RENAMED = {
    "distill": "--methods=plain where it is false",
    "teacher_weight": "--kd_weight",
    "temperature": "--kd_temperature",
}
_KINDS = {
    str: "string",
    int: "integer",
    float: "float",
    float | None: "float",
    str | None: "string",
    Sequence[str]: "list",
    Sequence[str] | None: "list",
}
_COLUMNS = {
    "variant": ("variant", ""),
    "test_accuracy": ("test accuracy", ".2%"),
    "parameters": ("parameters", ",d"),
    "sparsity": ("zeros in kernels", ".1%"),
    "macs": ("MACs", ",d"),
    "bytes": ("bytes", ",d"),
    "gzipped_bytes": ("gzipped", ",d"),
    "milliseconds_per_image": ("ms/image", ".3f"),
    "max_difference": ("largest difference", ".1e"),
    "mean_difference": ("mean", ".1e"),
    "agreement": ("same decisions", ".1%"),
    "check": ("check", ""),
}
_CHARTS = {"gzipped_bytes": "bytes, gzipped", "milliseconds_per_image": "milliseconds per image"}


def _define(flags):
    _flags.define_data(flags)
    group = "Network"
    flags.add(
        "string",
        group,
        "model",
        None,
        "A .keras file of a classifier, of this package or any other, or a recipe's output "
        "directory.",
    )
    flags.add(
        "string",
        group,
        "model_input",
        "auto",
        "Pixel values that it was trained on: normalized (by this data set's mean and deviation), "
        "unit (0 to 1), bytes (0 to 255), or auto: those that its first layers scale, else "
        "normalized. Networks that are written take normalized ones.",
    )
    flags.add(
        "string",
        group,
        "exit",
        None,
        "Exit to keep of a multi-exit network (default: the deepest).",
    )
    kinds = typing.get_type_hints(Options)
    for option in dataclasses.fields(Options):
        default = option.default
        default = list(default) if isinstance(default, tuple) else default
        kind = _KINDS[kinds[option.name]]
        flags.add(kind, "Compression", option.name, default, option.metadata["text"])
    flags.add(
        "boolean",
        "Compression",
        "sensitivity",
        False,
        "First prune each group of channels alone, and round each layer alone, without training: "
        "sensitivity.json holds what that costs on validation images, sensitivity.svg shows it.",
    )
    _METHODS.define(flags, "kd", "How the uncompressed network teaches while it is fine-tuned")
    _flags.define_training(flags)
    _flags.define_output(flags)


def chosen_methods(flags):
    """The methods of fine-tuning; none on labels alone."""
    return () if flags.methods == "plain" else _METHODS.parse(flags, flags.methods)


def _options(flags):
    return {option.name: flags[option.name].value for option in dataclasses.fields(Options)}


def _check(flags):
    _smoke.shrink(flags, data=False, calibration_images=8)
    info = _flags.check_data(flags)
    flags.require("model", flags.model is not None, "given: a .keras file or an output directory")
    _outputs.check_network(flags, "model")
    flags.require_one_of("model_input", INPUTS)
    with blaming_arguments(flags):
        options = Options(**_options(flags))
    flags.structure, flags.sparsity = options.structure, options.sparsity
    chosen = chosen_methods(flags)
    if flags.schedule is None:
        flags.schedule = "fine_tuning"
    usual = _flags.usual_schedule(flags, flags.schedule)
    if not options.trains:
        _check_untrained(flags, usual)
    _METHODS.check(flags, chosen, info.classes)
    _flags.check_training(flags, usual)
    accepted = f"1 for --structure={flags.structure}: weights are masked between the steps"
    fits = not options.masks or flags.steps_per_execution == 1
    flags.require("steps_per_execution", fits, accepted)
    goal = options.target.replace("=", "-") if options.target else f"{options.sparsity:g}"
    kept = f"{flags.structure}-{goal}" if options.prunes else "none"
    kinds = "+".join(flags.quantize)
    _flags.default_output_dir(
        flags, RECIPE.name, _outputs.name(flags.model), kept, kinds, flags.seed
    )
    return usual


def _check_untrained(flags, usual):
    """Checks that no flag was set that a training alone heeds.

    What the usual schedule says stands in `config.flags`, and what `--smoke` says: nobody set it.
    """
    numbers = () if flags.smoke else ("epochs", "learning_rate", "weight_decay")
    changed = [name for name in numbers if flags[name].value != getattr(usual, name)]
    applies = "what is trained: a --structure that is pruned, or --quantize=qat"
    flags.require_use(False, applies, *changed, "methods", *_METHODS.options(flags))


def _run_recipe(flags, usual):
    session = Session(RECIPE.name, flags, usual)
    data, output_dir = session.data, session.output_dir
    path = _outputs.fetch(flags, "model")

    from kdtoolkit import compression

    strategy, compute, given = session.strategy, session.compute, {}

    def claim():
        session.begin()
        given["model"] = _outputs.remember(flags, "model", path, output_dir)

    with compute.policy():
        build = _outputs.loader(flags, "model", path, data, flags.exit)
    with session.guarded(), blaming_arguments(flags, network="model"):
        result = compression.compress(
            build,
            data,
            output_dir,
            **_options(flags),
            sensitivity=flags.sensitivity,
            methods=chosen_methods(flags),
            schedule=session.schedule,
            epochs=flags.epochs,
            batch_size=flags.batch_size,
            seed=flags.seed,
            strategy=strategy,
            compute=compute,
            about=_flags.about(flags),
            claim=claim,
        )
    rows = result.rows

    def export():
        name = "saved_model"
        return [*session.export(result.network, name, [name]), *rows]

    trained = next((row["directory"] for row in rows if row["directory"]), None)
    parts = {"given": given, "variants": rows, "network": trained, "rounds": result.rounds}
    return session.finish(parts, export)


def _findings(goal, results):
    """Pairs of a name and what the table does not say of it.

    Args:
        goal: the flag `--target`, or None.
        results: of the run.
    """
    yield from _towards(goal, results.get("rounds", ()))
    yield from _mixtures(results["variants"])


def _towards(goal, rounds):
    """Pairs of a round's name and what was measured on its way to the target."""
    target = Target.parse(goal) if rounds else None
    for number, row in enumerate(rounds, 1):
        whole, most, found = (target.shown(row[name]) for name in ("whole", "most", "found"))
        name = f"{goal}, round {number}" if len(rounds) > 1 else goal
        words = f"{found} of {whole} {target.unit}, asked for {most}"
        yield name, f"{words}; {row['measured']} networks measured"


def _mixtures(rows):
    """Pairs of a mixed file's name and what stays in float in it."""
    for row in rows:
        if "mixed" not in row:
            continue
        found = row["mixed"]
        floats = [each for each in found["operations"] if each["floating"]]
        accuracies = (found[name] for name in ("accuracy", "int8_accuracy", "float32_accuracy"))
        ours, rounded, whole = (f"{accuracy:.2%}" for accuracy in accuracies)
        names = ", ".join(f"{each['operator']} {each['short_name']}" for each in floats)
        yield (
            row["variant"],
            f"{len(floats)} of {len(found['operations'])} operations stay in float32; {ours} on "
            f"{found['images']:,} validation images, int8 {rounded}, float32 {whole}"
            f"{': ' * bool(names)}{names}",
        )


def _show(flags, results):
    rows = results["variants"]
    found = _findings(flags.target, results)
    figures = _report.FIGURES
    if flags.sensitivity:
        figures += " sensitivity.svg shows what each part costs alone."
    return (
        f"\n{flags.model} on {flags.dataset}, {flags.epochs} epochs a step, seed {flags.seed} "
        "(one run)\n\n"
        f"{_report.table(rows, _COLUMNS)}\n"
        f"{''.join(f'{name}: {words}{chr(10)}' for name, words in found)}"
        f"{_report.ending(rows, 'variant', flags.output_dir, figures)}"
    )


def _page(flags, results, directory):
    from kdtoolkit.report import pictures

    rows = results["variants"]
    parts = [
        report.Table.of(rows, _COLUMNS),
        *(
            report.Picture(pictures.front(rows, key, label), f"Test accuracy against {label}.")
            for key, label in _CHARTS.items()
        ),
    ]
    failed = _report.failures(rows, "variant").items()
    parts += [f"FAILED: {variant}: {failure}" for variant, failure in failed]
    parts += [f"{name}: {words}" for name, words in _findings(flags.get("target"), results)]
    sections = [report.Section("Variants", parts)]
    alone = sensitivity_files.picture(directory) if flags["sensitivity"] == "true" else None
    if alone is not None:
        words = "What each part of the network costs when it alone is pruned or rounded."
        sections.append(report.Section("Sensitivity", [report.Picture(alone, words)]))
    return f"{flags['model']} compressed, on {flags['dataset']}", sections


RECIPE = _command.Recipe(
    name="compress",
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
