"""Prunes and quantises a trained classifier, and reports what that gains and costs."""

import dataclasses
import sys

from kdtoolkit import cluster
from kdtoolkit.data.preprocessing import INPUTS
from kdtoolkit.recipes import _command, _outputs, _report, _run, _smoke
from kdtoolkit.recipes._command import UsageError, blaming
from kdtoolkit.recipes._methods import MethodFlags

# By `plain` the fine-tuning is on labels alone.
_METHODS = MethodFlags(alone=("plain",))
_RENAMED = {
    "distill": "--methods=plain where it is false",
    "teacher_weight": "--kd_weight",
    "temperature": "--kd_temperature",
}
STRUCTURES = ("weights", "channels", "2:4", "none")
QUANTIZATIONS = ("float32", "float16", "dynamic_range", "int8", "uint8", "qat")
SCOPES = ("layer", "global")
# What each structure prunes by default; 2:4 is a half by its nature.
_SPARSITIES = {"weights": 0.8, "channels": 0.5, "2:4": 0.5, "none": 0.0}
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
    _run.define_data(flags)
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
    group = "Compression"
    flags.add(
        "string",
        group,
        "structure",
        "weights",
        f"What is pruned: {', '.join(STRUCTURES)}. Only channels make the network smaller and "
        "faster by themselves; zeros among weights are smaller when the file is compressed.",
    )
    flags.add(
        "float",
        group,
        "sparsity",
        None,
        "Share that is pruned, in [0, 1) (default: 0.8 of the weights, 0.5 of the channels).",
    )
    flags.add(
        "list",
        group,
        "layers",
        None,
        "Patterns of the names of the layers to prune, separated by commas (default: all that can "
        "lose channels; for weights all convolutions and dense layers but the first convolution, "
        "depthwise ones and small heads).",
    )
    flags.add(
        "string",
        group,
        "threshold",
        "layer",
        "Whether weights are compared within each layer or over all of them: layer or global.",
    )
    flags.add(
        "list",
        group,
        "quantize",
        "int8",
        f"Kinds of files, separated by commas: {', '.join(QUANTIZATIONS)} (int8 after training "
        "that knows of it).",
    )
    flags.add(
        "integer", group, "calibration_images", 256, "Training images that give int8 its ranges."
    )
    _METHODS.define(flags, "kd", "How the uncompressed network teaches while it is fine-tuned")
    _run.define_training(flags)
    _run.define_output(flags)


def chosen_methods(flags):
    """The methods of fine-tuning; none on labels alone."""
    return () if flags.methods == "plain" else _METHODS.parse(flags, flags.methods)


def _check(flags):
    _smoke.shrink(flags, data=False, calibration_images=8)
    info = _run.check_data(flags)
    flags.require("model", flags.model is not None, "given: a .keras file or an output directory")
    _outputs.check_network(flags, "model")
    flags.require_one_of("model_input", INPUTS)
    flags.require_one_of("structure", STRUCTURES)
    flags.require_one_of("threshold", SCOPES)
    if flags.threshold == "global" and flags.structure != "weights":
        raise UsageError("--threshold=global applies to --structure=weights")
    if flags.sparsity is None:
        flags.sparsity = _SPARSITIES[flags.structure]
    flags.require("sparsity", 0 <= flags.sparsity < 1, "in [0, 1)")
    fixed = _SPARSITIES[flags.structure] if flags.structure in ("2:4", "none") else flags.sparsity
    accepted = f"{fixed:g} for --structure={flags.structure}"
    flags.require("sparsity", flags.sparsity == fixed, accepted)
    if flags.sparsity == 0:
        flags.structure = "none"
    for kind in flags.quantize:
        if kind not in QUANTIZATIONS:
            raise UsageError(
                f"--quantize must be among {', '.join(QUANTIZATIONS)}. Received: {kind}"
            )
    flags.require("quantize", len(set(flags.quantize)) == len(flags.quantize), "different kinds")
    nothing = flags.structure == "none" and flags.quantize in ([], ["float32"])
    flags.require("quantize", not nothing, "more than float32 where nothing is pruned")
    flags.require("calibration_images", flags.calibration_images > 0, "positive")
    _METHODS.check(flags, chosen_methods(flags), info.classes)
    if flags.schedule is None:
        flags.schedule = "fine_tuning"
    usual = _run.usual_schedule(flags, flags.schedule)
    _run.check_training(flags, usual)
    masked = flags.structure in ("weights", "2:4")
    accepted = f"1 for --structure={flags.structure}: weights are masked between the steps"
    flags.require("steps_per_execution", not masked or flags.steps_per_execution == 1, accepted)
    kept = f"{flags.structure}-{flags.sparsity:g}" if flags.structure != "none" else "none"
    kinds = "+".join(flags.quantize)
    _run.default_output_dir(flags, RECIPE.name, _outputs.name(flags.model), kept, kinds, flags.seed)
    return usual


def _example(work):
    """A network as it will be fine-tuned, and the callbacks; they say what cannot be pruned."""
    try:
        example = work.pruned()
        return example, work.pruning(example)
    except UsageError:
        raise
    except ValueError as error:
        flag = "layers" if "`layers`" in str(error) else "structure"
        raise UsageError(f"--{flag}: {error}") from error


def _run_recipe(flags, usual):
    data = _run.load(flags)
    path = _outputs.fetch(flags, "model")

    from kdtoolkit import analysis
    from kdtoolkit.recipes._compression import Compression
    from kdtoolkit.training import loop, progress

    kinds = [kind for kind in flags.quantize if kind != "float32"]
    trains = [flags.structure != "none", "qat" in kinds]
    bar = progress.Progress(sum(trains) * flags.epochs)
    settings = _run.settings(flags, usual, data, bar)
    with settings.compute.policy():
        work = Compression(flags, path, data, chosen_methods(flags))
        example, callbacks = _example(work)
    if "qat" in kinds:
        with blaming("quantize"):
            work.quantization_aware(example)
    work.check_export()
    output_dir = _run.begin(flags, data, settings.compute)
    given = {"model": _outputs.remember(flags, "model", path, output_dir)}

    def fine_tune(directory, build, callbacks, schedule, done):
        training = loop.Training(
            output_dir / directory,
            dataclasses.replace(
                settings, schedule=schedule, callbacks=[*callbacks, *settings.callbacks]
            ),
            log_dir=output_dir / "logs" / directory,
            name=directory,
        )
        with _run.one_line_errors(data):
            return training.complete(
                build,
                lambda: work.trainer(build()),
                data,
                lambda network: {"variant": directory},
                lambda: bar.begin(directory, done),
            )

    rows = []

    def measure(variant, network, kind, *trained):
        if cluster.is_chief(flags.strategy):
            rows.append(work.measure(variant, network, kind, output_dir, *trained))

    name, network, seconds = "original", work.original, 0.0
    measure(name, network, "float32")
    if trains[0]:
        if "int8" in kinds:  # what rounding alone costs
            measure(f"{name}, int8", network, "int8")
        network, results = fine_tune("pruned", work.pruned, callbacks, settings.schedule, 0)
        name, seconds = f"{100 * flags.sparsity:g}% {flags.structure}", results["seconds"]
        measure(name, network, "float32", "pruned", seconds)
    for kind in kinds:
        directory, trained = "pruned" if trains[0] else None, network
        if kind == "qat":
            directory = "quantized"
            slow = settings.schedule.learning_rate / 10  # that of the last epochs before
            trained, results = fine_tune(
                directory,
                lambda: work.quantization_aware(network),
                work.keep_zeros(network),
                dataclasses.replace(settings.schedule, learning_rate=slow),
                trains[0] * flags.epochs,
            )
            seconds = results["seconds"]
        measure(f"{name}, {kind}", trained, kind, directory, seconds)

    def export():
        exports = [*_run.export(network, "saved_model", data, output_dir, ["saved_model"]), *rows]
        facts = _report.facts(RECIPE.name, flags.arguments, flags.seed)
        failed = _report.failures(rows, "variant").items()
        facts |= {f"FAILED: {variant}": failure for variant, failure in failed}
        page = output_dir / "report.html"
        analysis.write_report(page, _title(flags), facts, rows, _COLUMNS, _CHARTS)
        return exports

    trained = [
        name for name, happens in zip(("pruned", "quantized"), trains, strict=True) if happens
    ]
    parts = {"given": given, "variants": rows, "network": trained[0] if trained else None}
    return _run.finish(RECIPE.name, flags, output_dir, data, parts, export)


def _title(flags):
    return f"{flags.model} on {flags.dataset}"


def _show(flags, results):
    rows = results["variants"]
    figures = "report.html shows it, results.json holds the figures."
    return (
        f"\n{_title(flags)}, {flags.epochs} epochs a step, seed {flags.seed} (one run)\n\n"
        f"{_report.table(rows, _COLUMNS)}\n"
        f"{_run.ending(rows, 'variant', flags.output_dir, figures)}"
    )


RECIPE = _command.Recipe(
    name="compress",
    summary=__doc__.strip(),
    define=_define,
    check=_check,
    run=_run_recipe,
    show=_show,
    renamed=_RENAMED,
)

if __name__ == "__main__":
    sys.exit(RECIPE.main())
