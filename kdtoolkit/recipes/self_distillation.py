"""Trains a network whose deepest exit teaches the others, and packs it to stop early."""

import dataclasses
import sys

from kdtoolkit import cluster
from kdtoolkit._checks import ArgumentError
from kdtoolkit.export.early_exit_options import (
    BUDGET,
    COST_UNIT,
    MAX_ACCURACY_DROP,
    QUANTIZATIONS,
)
from kdtoolkit.export.rows import early_exit_facts
from kdtoolkit.recipes import _command, _report, _run, _smoke
from kdtoolkit.recipes._command import RunError, UsageError, blaming, blaming_arguments
from kdtoolkit.recipes._methods import MethodFlags

# Be Your Own Teacher's; its embedding's weight is the method's own.
METHODS = MethodFlags({"kd_weight": 0.3, "kd_temperature": 3.0})
_RENAMED = {
    "distillation_weight": "--kd_weight",
    "feature_weight": "--embedding_weight",
    "temperature": "--kd_temperature",
    "adjustment": "--methods=probability_shift+embedding or --methods=label_smooth+embedding",
    "dynamic_temperature": "--methods=focal+embedding or --methods=student_max+embedding",
    "temperature_slope": "--focal_slope or --student_max_slope",
}
_HEADS = ("bottleneck", "attention")
_EXPORTS = ("early_exit", "none")
# Trained in this order: directory, what it is called in the table, and its flag.
_VARIANTS = ("baseline", "deep_supervision", "self_distillation")
_FILE_COLUMNS = {
    **_run.EXPORT_COLUMNS,
    "mean_exit_cost": ("mean cost", ".3f"),
    "full_milliseconds_per_image": ("full ms/image", ".3f"),
}


def _define(flags):
    _run.define_data(flags)
    _run.define_network(flags)
    group = "Self-distillation"
    flags.add(
        "list",
        group,
        "exits",
        None,
        "Names of the layers that get an exit, shallow to deep, separated by commas (default: the "
        "network's stages).",
    )
    flags.add("string", group, "head", "bottleneck", f"Of the exits: {' or '.join(_HEADS)}.")
    flags.add(
        "integer",
        group,
        "head_width",
        None,
        "Channels inside the heads; the paper has 128 (default: each head's own, the widest of 128 "
        "to 8 that costs at most an eighth of the operations that stopping there saves).",
    )
    flags.add("boolean", group, "baseline", False, "Also train the network without exits.")
    flags.add(
        "boolean", group, "deep_supervision", False, "Also train the exits on the labels alone."
    )
    METHODS.define(flags, "kd+embedding", "How the deepest exit teaches the others")
    _run.define_training(flags)
    group = "Early exit"
    flags.add(
        "float",
        group,
        "max_accuracy_drop",
        0.005,
        "Validation accuracy that stopping early may cost against the deepest exit, or the plain "
        "network where --baseline trains it and it is better, a fraction. It picks the cheapest "
        "operating point, and the cheapest network without exits that is exported.",
    )
    flags.add(
        "float",
        group,
        "budget",
        None,
        "Picks them by their cost in place of their accuracy: the most accurate whose mean cost is "
        "at most this fraction of the plain network's, which has no heads.",
    )
    flags.add(
        "string",
        group,
        "cost",
        "macs",
        "What costs are, relative to the plain network's: macs, or milliseconds measured on this "
        "machine.",
    )
    flags.add(
        "list",
        group,
        "quantize",
        "float32",
        f"Kinds of files, separated by commas: {', '.join(QUANTIZATIONS)}.",
    )
    _run.define_output(flags)
    flags.add("string", "Output", "export", "early_exit", f"One of {', '.join(_EXPORTS)}.")


def _check(flags):
    _smoke.shrink(flags, "model", head_width=8)
    info = _run.check_data(flags)
    family = _run.check_network(flags, info)
    flags.require_one_of("head", _HEADS)
    flags.require("head_width", flags.head_width is None or flags.head_width > 0, "positive")
    METHODS.check(flags, METHODS.parse(flags, flags.methods), info.classes)
    in_range = flags.max_accuracy_drop in MAX_ACCURACY_DROP
    flags.require("max_accuracy_drop", in_range, MAX_ACCURACY_DROP)
    flags.require("budget", flags.budget is None or flags.budget in BUDGET, BUDGET)
    flags.require_one_of("cost", COST_UNIT.names)
    flags.require_one_of("export", _EXPORTS)
    flags.require("quantize", any(flags.quantize), "at least one kind")
    for kind in flags.quantize:
        if kind not in QUANTIZATIONS:
            raise UsageError(
                f"--quantize must be among {', '.join(QUANTIZATIONS)}. Received: {kind}"
            )
    usual = _run.usual_schedule(flags, family.schedule)
    _run.check_training(flags, usual)
    _run.default_output_dir(flags, RECIPE.name, flags.model, flags.seed)
    return usual


def _run_recipe(flags, usual):
    data = _run.load(flags)

    from kdtoolkit import export as exporting
    from kdtoolkit import models, training
    from kdtoolkit.training import evaluation, loop, progress

    shape, classes = data.info.image_shape, data.info.classes

    def plain():
        return models.build(flags.model, shape, classes)

    def with_exits():
        return models.add_exits(plain(), flags.exits, flags.head, flags.head_width)

    with blaming("exits"):
        example = with_exits()
    if flags.budget is not None and flags.cost == "macs":
        alone = models.cut_costs(example)
        cheapest = min(alone, key=alone.get)
        accepted = f"at least {alone[cheapest]:.3f}, the cost of {cheapest} alone"
        flags.require("budget", flags.budget >= alone[cheapest], accepted)
    chosen = METHODS.parse(flags, flags.methods)
    METHODS.check(flags, chosen, classes)
    options = {"weight_decay": flags.weight_decay, "seed": flags.seed}

    def taught(network):
        return training.SelfDistillation(network, chosen, **options)

    with blaming_arguments():
        taught(example)
    asked = {"baseline": flags.baseline, "deep_supervision": flags.deep_supervision}
    variants = [name for name in _VARIANTS if asked.get(name, True)]
    bar = progress.Progress(len(variants) * flags.epochs)
    settings = _run.settings(flags, usual, data, bar)
    output_dir = _run.begin(flags, data, settings.compute)
    costs = models.exit_costs(example)
    dear = [f"{name} ({cost:.2f})" for name, cost in list(costs.items())[:-1] if cost >= 1]
    if dear and cluster.is_chief(flags.strategy):
        print(
            f"Stopping at {', '.join(dear)} costs as much as the plain network (1) or more: heads "
            "this wide teach, and save nothing; --head_width sets their width",
            file=sys.stderr,
        )
    trainers = {
        "baseline": lambda: training.Patriarch(plain(), "plain", **options),
        "deep_supervision": lambda: training.SelfDistillation(with_exits(), (), **options),
        "self_distillation": lambda: taught(with_exits()),
    }
    networks, rows = {}, []
    for number, name in enumerate(variants):
        trained = loop.Training(output_dir / name, settings, 0, output_dir / "logs" / name, name)
        build = plain if name == "baseline" else with_exits

        def begin(name=name, number=number):
            bar.begin(name.replace("_", " "), number * flags.epochs)

        def evaluate(network, name=name):
            test, labels = evaluation.predict(network, data.test)
            validation, validation_labels = evaluation.predict(network, data.validation)
            rows = evaluation.exit_figures(test, labels, validation, validation_labels)
            return {"method": name, "exits": rows}

        with _run.one_line_errors(data):
            network, results = trained.complete(build, trainers[name], data, evaluate, begin)
        networks[name] = network
        rows.append(results)

    network = networks["self_distillation"]
    exits = models.exit_names(network)
    alone = models.cut_costs(network)
    parts = {
        "exits": rows,
        "macs": models.macs(models.cut(network, exits[-1])),
        "exit_costs": costs,
        "speedups": {name: 1 / cost for name, cost in alone.items()},
    }

    def export():
        with blaming("budget", ArgumentError):
            try:
                package = exporting.package_early_exit(
                    network,
                    data,
                    output_dir / "export",
                    baseline=networks.get("baseline"),
                    quantizations=flags.quantize,
                    max_accuracy_drop=flags.max_accuracy_drop,
                    budget=flags.budget,
                    cost_unit=flags.cost,
                    keep_beaten=flags.smoke,  # whose figures mean nothing: it writes every file
                    wide_heads_hint="--head_width sets their width",
                    before_file=lambda path: _run.say_exporting(path, output_dir),
                )
            except exporting.ParityError as error:
                raise RunError(str(error)) from error
        parts["early_exit"] = dataclasses.asdict(package.choice)
        rows = [early_exit_facts(file, output_dir) for file in package.files]
        return rows + _run.export(package.classifier, package.choice.alone, data, output_dir)

    return _run.finish(
        RECIPE.name, flags, output_dir, data, parts, export if flags.export != "none" else None
    )


def _show(flags, results):
    alone = {name: 1 / speedup for name, speedup in results["speedups"].items()}
    lines = [
        f"\n{flags.model} on {flags.dataset}, {len(alone)} exits, {flags.epochs} epochs, "
        f"seed {flags.seed} (one run): test accuracy\n",
        _report.table(*_paper_table(results["exits"], list(alone))),
        "\nMultiply-accumulates of stopping at an exit, the plain network without heads "
        f"({results['macs']:,}) = 1\n",
        _report.table(*_cost_table(alone, results["exit_costs"])),
        _run.exports_table(results, flags.output_dir, _FILE_COLUMNS),
    ]
    for row in results["exports"]:
        if "not_compared" in row:
            lines.append(
                f"{row['path']} is right, and not compared with the whole network in a file of the "
                f"same kind, which is wrong: {row['not_compared']}"
            )
    if "early_exit" in results:
        lines.append(results["early_exit"]["verdict"])
    return "\n".join(lines)


def _paper_table(rows, exits):
    """Rows and columns as the paper prints them: a method a row, an exit a column."""
    count = len(exits)
    columns = {"method": ("method", "")}
    columns |= {name: (f"{k}/{count}", ".2%") for k, name in enumerate(exits, start=1)}
    columns |= {"ensemble": ("ensemble", ".2%"), "seconds": ("seconds", ".0f")}
    table = []
    for row in rows:
        accuracies = {name: figures["test_accuracy"] for name, figures in row["exits"].items()}
        if "network" in accuracies:  # the baseline has one output, as deep as the last exit
            accuracies[exits[-1]] = accuracies.pop("network")
        method = row["method"].replace("_", " ")
        table.append({"method": method, "seconds": row["seconds"], **accuracies})
    return table, columns


def _cost_table(alone, behind):
    """Rows and columns: what exits cost on their own, and behind the heads before them."""
    columns = {"run": ("run", "")}
    columns |= {name: (f"{k}/{len(alone)}", ".3f") for k, name in enumerate(alone, start=1)}
    return [{"run": "cut there", **alone}, {"run": "with the heads before it", **behind}], columns


RECIPE = _command.Recipe(
    name="self_distillation",
    summary=__doc__.strip(),
    define=_define,
    check=_check,
    run=_run_recipe,
    show=_show,
    renamed=_RENAMED,
)

if __name__ == "__main__":
    sys.exit(RECIPE.main())
