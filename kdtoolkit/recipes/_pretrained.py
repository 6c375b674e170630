"""Trained weights that networks of a run start from: the flags, their checks, what was loaded.

Nothing here imports TensorFlow or Keras before a network is built.
"""

import math
import os
import sys
from pathlib import Path

from kdtoolkit import cluster
from kdtoolkit.models import registry
from kdtoolkit.models.choices import IMAGENET, check_weights
from kdtoolkit.recipes import _outputs
from kdtoolkit.recipes._command import blaming, blaming_arguments

SCHEDULE = "fine_tuning"
"""Of networks that start from trained weights, unless `--schedule` names another one."""


def define(flags, group: str, network: str, prefix: str = "") -> None:
    """Adds the flags `weights`, `freeze_epochs` and `backbone_learning_rate`.

    Args:
        flags: of a recipe.
        group: of the flags.
        network: flag that names the network.
        prefix: of the flags' names.
    """
    flags.add(
        "string",
        group,
        f"{prefix}weights",
        None,
        f"Trained weights that --{network}=keras:NAME starts from, its classifier being new: "
        "imagenet, which Keras downloads, or a file of the application's weights, .weights.h5 "
        "or .h5, with or without a classifier (default: freshly drawn ones).",
    )
    flags.add(
        "integer",
        group,
        f"{prefix}freeze_epochs",
        0,
        f"First epochs of a network with --{prefix}weights in which its head alone is trained, and "
        "its backbone stays as it was, batch normalisation too.",
    )
    flags.add(
        "float",
        group,
        f"{prefix}backbone_learning_rate",
        None,
        "The first learning rate of that backbone in the epochs after these (default: that of the "
        "head, --learning_rate).",
    )


def check(flags, info, family, network: str, prefix: str = "") -> None:
    """Checks the flags of `define`, but for what the number of epochs says.

    Args:
        flags, network, prefix: of `define`.
        info: of the data set.
        family: of the network.

    Raises:
        UsageError: the weights are no file, or are not for this network or these images.
    """
    flag = f"{prefix}weights"
    trained = flags[flag].value is not None
    names = [f"{prefix}{name}" for name in ("freeze_epochs", "backbone_learning_rate")]
    flags.require_use(trained, f"networks that start from --{flag}", *names)
    if not trained:
        return
    frozen, rate = (flags[name].value for name in names)
    flags.require(names[0], frozen >= 0, "at least 0")
    flags.require(names[1], rate is None or 0 < rate < math.inf, "positive")
    applies = f"networks of keras.applications, --{network}=keras:NAME"
    flags.require_use(family.trained, applies, flag)
    colours = info.image_shape is None or info.image_shape[-1] == 3
    flags.require_use(colours, "images of three channels", flag)
    flags[flag].value = os.path.expanduser(flags[flag].value)
    with blaming("strategy"):
        sees = cluster.is_chief(flags.strategy)
    if sees:
        with blaming_arguments(flags, weights=flag):
            check_weights(flags[flag].value)


def check_epochs(flags, epochs: int, prefix: str = "") -> None:
    """Checks that no more epochs are frozen than there are."""
    name = f"{prefix}freeze_epochs"
    flags.require(name, flags[name].value <= epochs, f"at most the number of epochs, {epochs}")


class Start:
    """Where the networks of a flag start, and how they are trained from there.

    Args:
        flags, network, prefix: of `define`.
        data: of the run.

    Attributes:
        options: of `kdtoolkit.models.build`.
        transfer: a `kdtoolkit.training.Transfer`, or None where they start without weights.
    """

    def __init__(self, flags, data, network: str, prefix: str = ""):
        self.flags, self.flag, self.path = flags, f"{prefix}weights", None
        self.options: dict = {}
        self.transfer = None
        weights = flags[self.flag].value
        if weights is None:
            return
        if weights != IMAGENET:
            self.path = _outputs.fetch(flags, self.flag)
            weights = str(self.path)
        from kdtoolkit.training import Transfer

        self.options = {"weights": weights, "preprocessing": data.preprocessing}
        self.transfer = Transfer(
            flags[f"{prefix}freeze_epochs"].value, flags[f"{prefix}backbone_learning_rate"].value
        )
        name, classes = flags[network].value, data.info.classes
        with blaming_arguments(flags, weights=self.flag):
            example = registry.build(name, data.info.image_shape, classes, **self.options)
        if cluster.is_chief(flags.strategy):
            self._say(example, name, classes)

    def _say(self, example, name, classes):
        from kdtoolkit.models import keras_weights

        loaded = sum(bool(layer.weights) for layer in example.layers) - 1
        source = IMAGENET
        if self.path is not None:
            more = keras_weights.count(self.path) - loaded
            source = Path(self.flags[self.flag].value).name
            source += f", which has {more} more" if more else ""
        print(
            f"--{self.flag}: the {loaded} layers of {name} before its classifier are those of "
            f"{source}; the classifier, of {classes} classes, is new",
            file=sys.stderr,
        )

    def remember(self, output_dir: Path, given: dict) -> None:
        """Notes which file it was, in the directory and among what the run was given."""
        if self.path is not None:
            given[self.flag] = _outputs.remember(self.flags, self.flag, self.path, output_dir)
