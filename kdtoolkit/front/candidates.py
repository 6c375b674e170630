"""How each kind of candidate is tried: calls of the package, in a directory of the candidate's."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kdtoolkit import comparison, compression, export, models
from kdtoolkit._checks import ArgumentError
from kdtoolkit._types import Network
from kdtoolkit.data import Data
from kdtoolkit.edge import EarlyExitClassifier
from kdtoolkit.export import parity
from kdtoolkit.front.plan import Candidate
from kdtoolkit.models.cost import trainable_parameters
from kdtoolkit.models.exit_places import exit_places
from kdtoolkit.training import SelfDistillation, Settings, Training, distribution, progress
from kdtoolkit.training.schedules import Schedule

_ROUNDED = ("float16", "int8")  # files of a network that was trained, beside that of float32
_RANKINGS = 10  # the better way where channels are compared over all layers and much goes


class NothingGainedError(Exception):
    """A candidate that is no better than the classifier in anything; the message says why."""


@dataclass(frozen=True)
class Setting:
    """What all candidates share.

    Attributes:
        classifier: it teaches, and is not changed.
        copy: returns a new copy of it, as `compression.compress` takes it.
        data: of `kdtoolkit.data.load`.
        images, truth: validation images, uint8, and their classes: every file is run on them.
        settings: of trainings that start from the classifier's weights.
        student_schedule, student_epochs: of those that start from none.
        max_accuracy_drop: that a file may lose.
        about: for the files' metadata, or None.
        show_progress: whether trainings say how far they are.
    """

    classifier: Network
    copy: Callable[[], Network]
    data: Data
    images: np.ndarray
    truth: np.ndarray
    settings: Settings
    student_schedule: Schedule
    student_epochs: int
    max_accuracy_drop: float
    about: export.About | None
    show_progress: bool

    def epochs(self, candidate: Candidate) -> int:
        """Returns how many epochs a candidate is trained for."""
        if not candidate.trains:
            return 0
        return self.student_epochs if candidate.kind == "student" else self.settings.epochs

    def arguments(self, **changed) -> dict[str, Any]:
        """Returns the arguments of a call that trains."""
        names = ("schedule", "epochs", "batch_size", "strategy", "compute")
        given = {name: getattr(self.settings, name) for name in names}
        return {**given, "show_progress": self.show_progress, **changed}


def run(candidate: Candidate, setting: Setting, directory: Path) -> list[dict]:
    """Tries a candidate, or goes on where that stopped; returns a row for each of its files.

    A row has `quantization`, the `path`, `validation_accuracy` of the file on the setting's images,
    `test_accuracy`, `milliseconds_per_image`, `bytes`, `gzipped_bytes`, `macs` and `failure`, None
    for a file that computes what its network computes.

    Raises:
        ArgumentError: it does not suit the classifier.
        NothingGainedError, NonFiniteError, ParityError: it came to nothing.
    """
    others = {"student": _student, "early_exit": _early_exit}
    return others.get(candidate.kind, _of_classifier)(candidate, setting, directory)


def _options(candidate, setting):
    """How `compress` makes files of the classifier, by the kind of candidate."""
    if candidate.kind == "quantize":  # with the file in float32, which others are compared with
        return {"structure": "none", "quantize": ("float16", "dynamic_range", "int8")}
    options = {
        "mixed": {
            "structure": "none",
            "quantize": ("mixed",),
            "max_accuracy_drop": setting.max_accuracy_drop,
        },
        "channels": {
            "structure": "channels",
            "threshold": "global",
            "rankings": _RANKINGS,
            "target": f"macs={candidate.option}",
            "quantize": _ROUNDED,
        },
        "weights": {"structure": "weights", "quantize": ("int8",)},
    }
    return {**options[candidate.kind], "with_original": False}


def _of_classifier(candidate, setting, directory):
    return _compressed(setting, setting.copy, directory, **_options(candidate, setting))


def _student(candidate, setting, directory):
    info = setting.data.info

    def build():
        return models.build(candidate.option, info.image_shape, info.classes)

    with setting.settings.compute.policy():
        _check_smaller(build(), setting.classifier)
    taught = comparison.compare(
        build,
        setting.data,
        directory,
        teacher=setting.classifier,
        ways=("kd",),
        seeds=(setting.settings.seed,),
        **setting.arguments(schedule=setting.student_schedule, epochs=setting.student_epochs),
    )
    student = distribution.local(taught.best_network)
    files = directory / "files"
    return _compressed(setting, student, files, structure="none", quantize=_ROUNDED)


def _check_smaller(student, classifier):
    sizes = models.macs, trainable_parameters
    if all(size(student) >= size(classifier) for size in sizes):
        raise NothingGainedError(f"{student.name} is not smaller than the classifier")


def _compressed(setting, network, directory, **options):
    """The rows of a call of `compress`."""
    made = compression.compress(
        network,
        setting.data,
        directory,
        **options,
        **setting.arguments(),
        seed=setting.settings.seed,
        about=setting.about,
    )
    rows = []
    for row in made.rows:
        path, accuracy = directory / row["path"], None
        if row["failure"] is None:
            decided = parity.decisions(path, row["format"], setting.images)
            accuracy = float(np.mean(decided == setting.truth))
        figures = ("test_accuracy", "milliseconds_per_image", "bytes", "gzipped_bytes", "macs")
        rows.append(
            {
                "quantization": row["quantization"],
                "path": path,
                "validation_accuracy": accuracy,
                **{name: row[name] for name in figures},
                "failure": row["failure"],
            }
        )
    return rows


def _early_exit(candidate, setting, directory):
    settings = setting.settings
    with settings.compute.policy():
        at = _places(setting.copy())

    def build():
        return models.add_exits(setting.copy(), at)

    bar = progress.shown(settings.epochs, settings.strategy, setting.show_progress)
    training = Training(
        directory / "network",
        replace(settings, callbacks=[bar] if bar else []),
        log_dir=directory / "logs" / "network",
        name=candidate.name,
    )
    options = {"weight_decay": settings.schedule.weight_decay, "seed": settings.seed}
    network, _ = training.complete(
        build,
        lambda: SelfDistillation(build(), **options),
        setting.data,
        lambda network: {},
        lambda: bar and bar.begin(candidate.name, 0),
    )
    package = export.package_early_exit(
        network,
        setting.data,
        directory / "export",
        baseline=setting.classifier,
        quantizations=("float32", "int8"),
        max_accuracy_drop=setting.max_accuracy_drop,
        about=setting.about,
    )
    if not package.files:
        raise NothingGainedError(package.choice.verdict)
    whole = models.macs(setting.classifier)
    return [_stopping_early(file, setting, whole) for file in package.files]


def _places(network):
    """Where exits are attached: None for the stages of a network that has some."""
    if _takes_exits(network, None):
        return None
    places = [name for name in exit_places(network) if _takes_exits(network, [name])]
    if not places:
        raise NothingGainedError(f"{network.name} has no place where an exit saves anything")
    return places


def _takes_exits(network, at):
    try:
        models.add_exits(network, at)
    except ArgumentError:  # a head costs as much there as going on to the end would
        return False
    return True


def _stopping_early(file, setting, whole):
    """The row of a file that stops early, whose time and operations are those of validation images.

    An image takes the median time of those that stop where it does: one that the machine was slow
    for says nothing.
    """
    row = {"quantization": file.quantization, "path": file.path, "failure": file.failure}
    if file.exported is None:
        return row
    classifier = EarlyExitClassifier(file.path)
    predictions = [classifier.predict(image) for image in setting.images]
    exits = np.array([prediction.exit for prediction in predictions])
    milliseconds = np.array([prediction.milliseconds for prediction in predictions])
    shares = {name: float(np.mean(exits == name)) for name in classifier.exits}
    costs = dict(zip(classifier.exits, classifier.costs, strict=True))
    right = [p.index == label for p, label in zip(predictions, setting.truth, strict=True)]
    return {
        **row,
        "validation_accuracy": float(np.mean(right)),
        "test_accuracy": file.test_accuracy,
        "milliseconds_per_image": sum(
            share * float(np.median(milliseconds[exits == name]))
            for name, share in shares.items()
            if share
        ),
        "bytes": file.exported.bytes,
        "gzipped_bytes": file.exported.gzipped_bytes,
        "macs": round(whole * sum(share * costs[name] for name, share in shares.items())),
    }
