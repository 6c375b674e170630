"""Flags that recipes share, of data, network, training and output, and their checks.

Nothing here imports TensorFlow or Keras.
"""

import dataclasses
import math
import os
from pathlib import Path

from kdtoolkit import cluster
from kdtoolkit._checks import AT_LEAST_0
from kdtoolkit.data import describe
from kdtoolkit.data.augmentations import AUGMENTATIONS
from kdtoolkit.models import registry
from kdtoolkit.recipes import _smoke
from kdtoolkit.recipes._command import blaming, blaming_arguments
from kdtoolkit.training import compute
from kdtoolkit.training.schedules import SCHEDULES

_PROTOCOLS = ("held_out", "benchmark")


def define_data(flags):
    group = "Data and network"
    flags.add(
        "string",
        group,
        "dataset",
        "digits",
        "digits (embedded), the name of a TensorFlow data set, a folder of class folders, "
        "Tiny-ImageNet's or CINIC-10's folder, an .npz file, or package.module:function, data of "
        "your own: the module is imported, and the function returns a kdtoolkit.data.Source.",
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
        "string",
        group,
        "label",
        None,
        "What is learned, where the examples of a TensorFlow data set have several labels: for "
        "cifar100 label, or coarse_label, its 20 superclasses (default: label).",
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

    flags.add(
        "string",
        group,
        "augmentation",
        None,
        "Of the training images: crop (shifted by a few pixels, mirrored), photograph (crops of "
        "random size, mirrored, in other colours) or randaugment (two of fourteen operations, and "
        "the crops that suit). Default: photograph for ImageNet and for folders of colour images "
        "of at least 96 pixels, else crop, where characters are not mirrored.",
    )
    for name, text in (
        ("mixup", "Training images are blended with others, labels too; shares of Beta(a, a)"),
        ("cutmix", "Training images get a box of others, labels a share of theirs; of Beta(a, a)"),
    ):
        flags.add("float", group, name, 0.0, f"{text} with this a; 0 for none.")


def define_network(flags):
    text = f"One of {', '.join(registry.names())}, or keras:NAME of keras.applications."
    flags.add("string", "Data and network", "model", "resnet8", text)


def define_training(flags):
    group = "Training"
    usual = "(default: that of --schedule: 128, 0.1, 1e-4 of cifar_resnet; 64, 0.1, 1e-4 of digits)"
    flags.add(
        "integer",
        group,
        "epochs",
        None,
        "Epochs of each training; the learning rate drops at the same fractions of them (default: "
        "those of --schedule: 164 of cifar_resnet, 40 of digits).",
    )
    flags.add(
        "string",
        group,
        "schedule",
        None,
        f"Whose learning rate drops: {', '.join(SCHEDULES)} (default: the network's family's; in "
        "distill distillation, in compress and with --weights fine_tuning; digits for digits).",
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
        "replica; not streamed, nor augmented by more than crops and mirrors), false, or auto: on "
        "a GPU with XLA, up to 2 GiB.",
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


def define_output_dir(flags):
    flags.add(
        "string",
        "Output",
        "output_dir",
        None,
        "Where everything is written; the same command again goes on where it stopped (default: "
        "saved_models/RECIPE-DATASET-MODEL-SEED).",
    )


def define_output(flags):
    define_output_dir(flags)
    for name, what in (("author", "who made it"), ("license", "its licence")):
        text = f"What the metadata of every .tflite file says: {what} (default: nothing)."
        flags.add("string", "Output", name, None, text)
    _smoke.define(flags)


def check_export(flags, names):
    """Checks `--export`, one of `names` that end with `none`, and what the files are to say."""
    flags.require_one_of("export", names)
    written = ", ".join(f"--export={name}" for name in names[:-1])
    flags.require_use(flags.export != "none", written, "author", "license")


def about(flags):
    """Returns what the flags say of the files for their metadata, an `About`; None for nothing."""
    from kdtoolkit.export import About

    given = {name: flags[name].value for name in ("author", "license") if flags[name].value}
    return About(**given) if given else None


def check_data(flags):
    """Checks the flags of `define_data`; returns the data set's `DatasetInfo`."""
    if flags.image_size is not None:
        flags.require("image_size", flags.image_size > 0, "positive")
    for flag in ("dataset", "data_dir", "output_dir"):
        if flags[flag].value is not None:
            flags[flag].value = os.path.expanduser(flags[flag].value)
    if flags.data_dir is not None:
        flags.require("data_dir", os.path.isdir(flags.data_dir), "an existing directory")
    with blaming("dataset"), blaming_arguments(flags, name="dataset"):
        info = describe(flags.dataset, flags.data_dir, flags.image_size, flags.label)
    flags.require("dataset", info.classes is None or info.classes > 1, "of at least two classes")
    if flags.augmentation is not None:
        flags.require_one_of("augmentation", AUGMENTATIONS.names)
    for name in ("mixup", "cutmix"):
        flags.require(name, flags[name].value in AT_LEAST_0, str(AT_LEAST_0))
    if flags.train_examples is not None:
        flags.require("train_examples", flags.train_examples > 0, "positive")
    if not _by_benchmark(flags):
        in_range = 0 < flags.validation_fraction < 1
        flags.require("validation_fraction", in_range, "in (0, 1)")
    return info


def check_network(flags, info, flag="model"):
    """Checks that a flag names a network for the data's images; returns its `Family`."""
    return check_networks(flags, info, flag, [flags[flag].value])[0]


def check_networks(flags, info, flag, names):
    """As `check_network`, of a flag with several names; returns their families."""
    families = []
    for name in names:
        with blaming_arguments(flags, name=flag):
            families.append(registry.validate(name))
        if info.image_shape is not None:
            height, width, _ = info.image_shape
            smallest = families[-1].smallest
            flags.require(
                flag,
                min(height, width) >= smallest,
                f"a network for the images of --dataset={flags.dataset}, {height}x{width}; "
                f"{name} needs {smallest}x{smallest} at least, and --image_size enlarges them",
            )
    return families


def usual_schedule(flags, name):
    """Returns the `Schedule` that `--schedule` names, else `name`'s; digits have their own."""
    if flags.schedule is not None:
        flags.require_one_of("schedule", list(SCHEDULES))
        return SCHEDULES[flags.schedule]
    return SCHEDULES["digits" if flags.dataset == "digits" else name]


def define_protocol(flags):
    """Adds `--protocol`."""
    flags.add(
        "string",
        "Training",
        "protocol",
        "held_out",
        "held_out: some training images are held out, and only they choose. benchmark: that of the "
        "field's benchmark of distillation, whose figures it is for: all training images, nothing "
        "held out and nothing chosen, the last epoch, its schedule, momentum without Nesterov.",
    )


def check_protocol(flags):
    """Checks `--protocol`, and sets what it decides."""
    flags.require_one_of("protocol", _PROTOCOLS)
    if not _by_benchmark(flags):
        return
    applies = "--protocol=held_out, where images are held out"
    flags.require_use(False, applies, "validation_fraction", "schedule")
    flags.validation_fraction = 0.0


def benchmark_schedule(flags, family):
    """The `Schedule` of `--protocol=benchmark` for a student's family; None for other protocols."""
    if not _by_benchmark(flags):
        return None
    mobile = family.schedule == "distillation_mobile"
    usual = SCHEDULES["distillation_mobile" if mobile else "distillation"]
    return dataclasses.replace(usual, nesterov=False)


def _by_benchmark(flags):
    return "protocol" in flags and flags.protocol == "benchmark"


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
    flags.require_one_of("strategy", cluster.STRATEGIES)
    with blaming("strategy"):
        cluster.of_strategy(flags.strategy)
    flags.require_one_of("precision", compute.PRECISIONS)
    for flag in ("xla", "data_on_device", "onednn", "deterministic"):
        flags.require_one_of(flag, compute.SWITCHES)
    with blaming_arguments(flags):
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
