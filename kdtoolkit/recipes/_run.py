"""Flags and steps that recipes share: data, training settings, output, export."""

import contextlib
import dataclasses
import gc
import math
import os
import sys
from pathlib import Path

from kdtoolkit import cluster, files
from kdtoolkit.data import describe
from kdtoolkit.export.rows import MOST_IMAGES as EXPORT_IMAGES
from kdtoolkit.export.rows import file_facts, parity_facts
from kdtoolkit.models import registry
from kdtoolkit.recipes import _report, _smoke
from kdtoolkit.recipes._command import Done, RunError, UsageError, blaming, claim_output_dir
from kdtoolkit.training import compute
from kdtoolkit.training.schedules import SCHEDULES

_STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker")
EXPORT_COLUMNS = {
    "path": ("file", ""),
    "bytes": ("bytes", ",d"),
    "gzipped_bytes": ("gzipped", ",d"),
    "test_accuracy": ("test accuracy", ".2%"),
    "max_difference": ("largest difference", ".1e"),
    "check": ("check", ""),
    "milliseconds_per_image": ("ms/image", ".3f"),
}


def define_data(flags):
    group = "Data and network"
    flags.add(
        "string",
        group,
        "dataset",
        "digits",
        "digits (embedded), the name of a TensorFlow data set, a folder of class folders, "
        "Tiny-ImageNet's or CINIC-10's folder, or an .npz file.",
    )
    flags.add(
        "string",
        group,
        "data_dir",
        None,
        "Where TensorFlow data sets are prepared (default: their own, ~/tensorflow_datasets).",
    )
    flags.add(
        "integer",
        group,
        "image_size",
        None,
        "Height and width that images are scaled to (default: their own).",
    )
    flags.add(
        "integer",
        group,
        "train_examples",
        None,
        "Use only this many training images, the same share of each class (default: all).",
    )
    flags.add(
        "float",
        group,
        "validation_fraction",
        0.1,
        "Share of the training split held out for validation, in (0, 1); a data set's own "
        "validation split, where it has one beside its test split, is used in its place.",
    )
    flags.add(
        "boolean",
        group,
        "strict_data",
        False,
        "Stop at an image file that cannot be read; otherwise such files are counted, named and "
        "left out.",
    )


def define_network(flags):
    text = f"One of {', '.join(registry.names())}."
    flags.add("string", "Data and network", "model", "resnet8", text)


def define_training(flags):
    group = "Training"
    usual = "(default: the published one of the network's family: 128, 0.1, 1e-4 for CIFAR ResNets"
    usual += "; 64, 0.1, 1e-4 for digits)"
    flags.add(
        "integer",
        group,
        "epochs",
        None,
        "Epochs of each training; the learning rate drops at the same fractions of them (default: "
        "the published ones, 164 for CIFAR ResNets; 40 for digits).",
    )
    flags.add(
        "string",
        group,
        "schedule",
        None,
        f"Whose learning rate drops: {', '.join(SCHEDULES)} (default: the network's family's; in "
        "distill distillation, in compress fine_tuning; digits for digits).",
    )
    flags.add("integer", group, "batch_size", None, f"Images in a global batch {usual}.")
    flags.add("float", group, "learning_rate", None, f"The first learning rate {usual}.")
    flags.add("float", group, "weight_decay", None, f"Coupled L2 on every weight {usual}.")
    flags.add("integer", group, "seed", 0, "Of weights, data order and augmentation.")
    flags.add(
        "string",
        group,
        "strategy",
        "auto",
        "one_device, mirrored (all GPUs, or logical CPUs), multi_worker (all processes that "
        "TF_CONFIG or Slurm names; `kdtoolkit launch` starts some on one machine), or auto: "
        "multi_worker where TF_CONFIG names several workers, else mirrored where there is more "
        "than one GPU.",
    )
    flags.add(
        "string",
        group,
        "precision",
        "auto",
        "float32, bfloat16 (variables and logits stay float32, exported files compute in float32), "
        "or auto: bfloat16 on a GPU or CPU that has instructions for it, else float32. auto is "
        "decided anew at each start: a run that goes on on another kind of machine computes as "
        "suits that one, and ends with other weights than it would have here.",
    )
    flags.add(
        "string",
        group,
        "xla",
        "auto",
        "Compile training with XLA: true (one replica, not deterministic), false, or auto: on one "
        "GPU, and on a CPU for bfloat16 that it has no instructions for.",
    )
    flags.add(
        "integer",
        group,
        "steps_per_execution",
        1,
        "Training steps between two looks of the host, a divisor of an epoch's steps; above 1 not "
        "with several replicas.",
    )
    flags.add(
        "string",
        group,
        "data_on_device",
        "auto",
        "Keep the training images in the device's memory and augment them there: true (one "
        "replica; not streamed, not photographs), false, or auto: on a GPU with XLA, up to 2 GiB.",
    )
    flags.add(
        "string",
        group,
        "onednn",
        "auto",
        "oneDNN on a CPU: true, false, or auto: what TF_ENABLE_ONEDNN_OPTS says, else true.",
    )
    flags.add(
        "string",
        group,
        "deterministic",
        "auto",
        "The same run gives the same weights, interrupted or not: true, false, or auto: on a CPU "
        "without XLA, where that is free; on a GPU it is slower.",
    )


def define_output(flags):
    flags.add(
        "string",
        "Output",
        "output_dir",
        None,
        "Where everything is written; the same command again goes on where it stopped (default: "
        "saved_models/RECIPE-DATASET-MODEL-SEED).",
    )
    _smoke.define(flags)


def check_data(flags):
    """Checks the flags of `define_data`; returns the data set's `DatasetInfo`."""
    if flags.image_size is not None:
        flags.require("image_size", flags.image_size > 0, "positive")
    for flag in ("data_dir", "output_dir"):
        if flags[flag].value is not None:
            flags[flag].value = os.path.expanduser(flags[flag].value)
    if flags.data_dir is not None:
        flags.require("data_dir", os.path.isdir(flags.data_dir), "an existing directory")
    with blaming("dataset"):
        info = describe(flags.dataset, flags.data_dir, flags.image_size)
    flags.require("dataset", info.classes is None or info.classes > 1, "of at least two classes")
    if flags.train_examples is not None:
        flags.require("train_examples", flags.train_examples > 0, "positive")
    in_range = 0 < flags.validation_fraction < 1
    flags.require("validation_fraction", in_range, "in (0, 1)")
    return info


def check_network(flags, info, flag="model"):
    """Checks that a flag names a network for the data's images; returns its `Family`."""
    with blaming(flag):
        family = registry.validate(flags[flag].value)
    if info.image_shape is not None:
        height, width, _ = info.image_shape
        fits = min(height, width) >= family.smallest
        flags.require(
            flag,
            fits,
            f"a network for the images of --dataset={flags.dataset}, {height}x{width}; "
            f"{flags[flag].value} needs {family.smallest}x{family.smallest} at least, "
            "and --image_size enlarges them",
        )
    return family


def usual_schedule(flags, name):
    """Returns the `Schedule` that `--schedule` names, else `name`'s; digits have their own."""
    if flags.schedule is not None:
        flags.require_one_of("schedule", list(SCHEDULES))
        return SCHEDULES[flags.schedule]
    return SCHEDULES["digits" if flags.dataset == "digits" else name]


def check_training(flags, usual):
    """Checks the flags of `define_training` and fills in what the usual `Schedule` decides."""
    for flag, value in {
        "epochs": usual.epochs,
        "batch_size": usual.batch_size,
        "learning_rate": usual.learning_rate,
        "weight_decay": usual.weight_decay,
    }.items():
        if flags[flag].value is None:
            flags[flag].value = value
    flags.require("epochs", flags.epochs > 0, "positive")
    flags.require("batch_size", flags.batch_size > 0, "positive")
    flags.require("learning_rate", 0 < flags.learning_rate < math.inf, "positive")
    flags.require("weight_decay", 0 <= flags.weight_decay < math.inf, "at least 0")
    flags.require("seed", 0 <= flags.seed < 2**31, "from 0 to 2147483647")
    flags.require_one_of("strategy", _STRATEGIES)
    with blaming("strategy"):
        cluster.of_strategy(flags.strategy)
    flags.require_one_of("precision", compute.PRECISIONS)
    for flag in ("xla", "data_on_device", "onednn", "deterministic"):
        flags.require_one_of(flag, compute.SWITCHES)
    with blaming("xla"):
        compute.check_xla(flags.xla, flags.deterministic)
    flags.require("steps_per_execution", flags.steps_per_execution > 0, "positive")


def default_output_dir(flags, recipe, *parts):
    """Fills in the output directory, named after the recipe, the data set and `parts`."""
    if flags.output_dir is None:
        parts = (recipe, Path(flags.dataset).name, *parts, *(["smoke"] if flags.smoke else []))
        flags.output_dir = f"saved_models/{'-'.join(map(str, parts))}"


def schedule(flags, usual):
    """Returns the `Schedule` of a run whose flags were checked against the usual one."""
    return dataclasses.replace(
        usual,
        batch_size=flags.batch_size,
        learning_rate=flags.learning_rate,
        weight_decay=flags.weight_decay,
    )


def prepare_process(flags):
    """Settles what holds for a whole process, before TensorFlow computes anything in it.

    Operations are deterministic where the flags say so: a kernel that was made before keeps to what
    held then. And workers have met.

    Raises:
        RunError: another worker ended.
    """
    import tensorflow as tf

    if _choose(flags).deterministic:
        tf.config.experimental.enable_op_determinism()
    if cluster.of_strategy(flags.strategy):
        from kdtoolkit.training import distribution

        with losing_workers():
            distribution.strategy(flags.strategy)


def load(flags):
    """Loads the data into a prepared process; what is wrong with them is a `UsageError`."""
    from kdtoolkit import data

    prepare_process(flags)
    try:
        return data.load(
            flags.dataset,
            flags.data_dir,
            image_size=flags.image_size,
            validation_fraction=flags.validation_fraction,
            train_examples=flags.train_examples,
            strict_data=flags.strict_data,
        )
    except ValueError as error:
        own = ("train_examples", "validation_fraction", "image_size", "data_dir")
        flag = next((name for name in own if f"`{name}`" in str(error)), "dataset")
        raise UsageError(f"--{flag}: {error}") from error


@contextlib.contextmanager
def losing_workers():
    """Ends a run that has lost a worker with one line."""
    from kdtoolkit.training.distribution import WorkerLostError

    try:
        yield
    except WorkerLostError as error:
        raise RunError(str(error)) from error


def settings(flags, usual, data, bar):
    """Returns the `Settings` of the trainings of a run, after checking that its batches fit it."""
    from kdtoolkit.training import distribution, loop

    chosen = strategy(flags, data)
    return loop.Settings(
        schedule=schedule(flags, usual),
        epochs=flags.epochs,
        batch_size=flags.batch_size,
        seed=flags.seed,
        strategy=chosen,
        callbacks=[bar] if distribution.is_chief(chosen) else [],
        compute=computing(flags, data, chosen),
    )


def strategy(flags, data):
    """Returns the `tf.distribute` strategy of a run, after checking that its batches fit it."""
    from kdtoolkit.training import distribution, loop

    chosen = distribution.strategy(flags.strategy)
    with blaming("batch_size"):
        loop.check_last_batch(len(data.train), flags.batch_size, chosen.num_replicas_in_sync)
    return chosen


def computing(flags, data, strategy):
    """Returns the `Compute` of a run, after checking that its strategy and epochs fit it."""
    from kdtoolkit.training import distribution

    try:
        replicas, images = strategy.num_replicas_in_sync, data.train.bytes_for_device
        chosen = _choose(flags, replicas, data_on_device=flags.data_on_device, data_bytes=images)
        chosen.check_epoch(data.train.steps_per_epoch(flags.batch_size))
    except ValueError as error:
        own = ("xla", "data_on_device")
        flag = next((name for name in own if f"`{name}`" in str(error)), "steps_per_execution")
        raise UsageError(f"--{flag}: {error}") from error
    # Workers on machines of several kinds train one network.
    with losing_workers():
        fields = distribution.from_chief(strategy, lambda: dataclasses.asdict(chosen))
    return dataclasses.replace(chosen, **fields)


def _choose(flags, replicas=1, **options):
    return compute.choose(
        replicas=replicas,
        precision=flags.precision,
        xla=flags.xla,
        steps_per_execution=flags.steps_per_execution,
        deterministic=flags.deterministic,
        **options,
    )


def begin(flags, data, chosen):
    """Makes the output directory the run's own, says on what data and how it computes.

    Args:
        flags, data: of the run.
        chosen: of `computing`.
    """
    output_dir = claim_output_dir(flags)
    if cluster.is_chief(flags.strategy):
        print(_report.data_line(_report.data_facts(data)), file=sys.stderr)
        print(chosen.summary, file=sys.stderr)
    return output_dir


@contextlib.contextmanager
def one_line_errors(data):
    """Turns a training that failed for a reason that a person can act on into one line."""
    from kdtoolkit.data import DamagedDataError, reading
    from kdtoolkit.export import ParityError
    from kdtoolkit.training.step import NonFiniteError

    try:
        with losing_workers(), reading(data.info):
            yield
    except (DamagedDataError, ParityError) as error:
        raise RunError(str(error)) from error
    except NonFiniteError as error:
        raise RunError(f"{error} (counted from 0). {_advice(error)}") from error


def _advice(error):
    """What helps a training that met NaN or infinity, by where they came from."""
    from kdtoolkit.training import step

    if isinstance(error, step.NonFiniteInputError | step.UnknownClassError):
        return "It is the data that are wrong, or what is done to them: no other training helps"
    if isinstance(error, step.NonFiniteLossError) and (error.epoch, error.step) == (0, 0):
        return (
            "No step had been taken yet, so that --learning_rate is not the cause: a network that "
            "was given may be, or another flag of the loss"
        )
    return (
        "A lower --learning_rate may help, in another --output_dir: this one goes on with its own "
        "flags"
    )


def say_exporting(path, output_dir):
    """Says what takes the next seconds: converting a network, and running the file."""
    print(f"Exporting and checking {path.relative_to(output_dir)}", file=sys.stderr)


def discard(path, quantization, failure):
    """Removes a file that does not compute what its network computes.

    Args:
        path: of what was exported.
        quantization: its kind.
        failure: how it differs, in words.

    Raises:
        RunError: it is of float32, where nothing was rounded: a conversion that is wrong.
    """
    files.remove(path)
    if quantization == "float32":
        raise RunError(str(failure))


def export(network, name, data, output_dir, formats=("saved_model", "litert")):
    """Exports to the formats, runs each on the test images; returns their rows."""
    from kdtoolkit import export as exporting
    from kdtoolkit.training import distribution

    network = distribution.local(network)
    images, labels = data.test.pixels(EXPORT_IMAGES)
    directory = output_dir / "export"
    directory.mkdir(exist_ok=True)
    gc.collect()  # training's graphs, before the converter makes its own
    rows = []
    writers = {
        "saved_model": (exporting.to_saved_model, directory / "saved_model"),
        "litert": (exporting.to_litert, directory / f"{name}.tflite"),
    }
    for write, path in map(writers.get, formats):
        say_exporting(path, output_dir)
        exported = write(network, path, data.preprocessing)
        try:
            parity = exporting.check(exported, network, data.preprocessing, images, labels)
        except exporting.ParityError as error:
            discard(path, exported.quantization, error)
        rows.append({**file_facts(exported, output_dir), **parity_facts(parity)})
    return rows


def finish(recipe, flags, output_dir, data, parts, export=None):
    """Writes the results, exports, and writes them again with what was exported.

    Args:
        recipe: its name.
        flags, output_dir, data: of the run.
        parts: of `results.json`.
        export: called without arguments, returns the rows of the files; None for no export.

    Returns:
        The results: `parts`, the rows as `exports`, when the run was `finished`, and the SHA-256 of
        the `files` that it left, by which a later start knows it again.

    Raises:
        Done: this is a worker that does not write.
    """
    if not cluster.is_chief(flags.strategy):
        raise Done
    facts = _report.data_facts(data)

    def write(**more):
        return _report.write_results(
            output_dir, recipe, flags.arguments, flags.seed, data=facts, **parts, **more
        )

    write()
    exports = export() if export is not None else []
    return write(exports=exports, finished=_report.now(), files=_report.left(output_dir))


def exports_table(results, output_dir, columns=None):
    """Returns what a recipe ends with: the table of the files, and where everything is."""
    rows = results["exports"]
    table = f"\n{_report.table(rows, columns or EXPORT_COLUMNS)}\n" if rows else ""
    return table + ending(rows, "path", output_dir, "results.json holds these figures.")


def ending(rows, name, output_dir, figures):
    """Returns the last lines of a recipe: the files that failed, and where all others are.

    Args:
        rows: of the files.
        name: key in them of what a file is called.
        output_dir: of the run.
        figures: where they are, the end of the last line.
    """
    failed = _report.failures(rows, name).items()
    lines = [f"\nFAILED, and not kept: {which}: {failure}\n" for which, failure in failed]
    which = "Everything else" if failed else "Everything"
    return "".join([*lines, f"\n{which} is in {output_dir}; {figures}"])
