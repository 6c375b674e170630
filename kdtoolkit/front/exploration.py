"""The whole way from a trained classifier to the file that a device gets."""

import dataclasses
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from kdtoolkit import export, files, models
from kdtoolkit._checks import (
    BELOW_1,
    POSITIVE,
    ArgumentError,
    OneOf,
    check,
    positive_integer,
    suiting,
)
from kdtoolkit._claim import described_data, fingerprint, held
from kdtoolkit._types import PathLike
from kdtoolkit.data import Data
from kdtoolkit.export.metadata import write_labels
from kdtoolkit.front import candidates as trying
from kdtoolkit.front import choosing, plan
from kdtoolkit.front.budget import Budget
from kdtoolkit.models.copies import copier
from kdtoolkit.training import NonFiniteError, Pace, Settings, distribution, loop
from kdtoolkit.training.compute import BY_KERAS, Compute
from kdtoolkit.training.schedules import SCHEDULES, Schedule

_CHOOSING = 2_000  # Validation images, at most, that files are run on.
_RECORD = "candidate.json"


@dataclass(frozen=True)
class Front:
    """What a search found.

    Attributes:
        rows: a dict for each file: `name`; `candidate`, what was tried; `quantization`; `path`
            below the output directory; `validation_accuracy` of the file; `test_accuracy`,
            `milliseconds_per_image`, `bytes`, `gzipped_bytes`, `macs`; `failure`, in words, of a
            file that is wrong and was removed, else None; `on_front`, whether no other is better
            in accuracy, milliseconds and bytes; `chosen`. The first is the classifier's own in
            float32, which the others are compared with.
        tried: a dict for each candidate: `candidate`, its `seconds`, and `outcome`, why it has no
            files, in words, or None.
        chosen: the row that is chosen.
        path: of its copy.
        verdict: a sentence that says why.
        images: how many validation images chose.
    """

    rows: list[dict]
    tried: list[dict]
    chosen: dict
    path: Path
    verdict: str
    images: int


def search(
    classifier: keras.Model | Callable[[], keras.Model],
    data: Data,
    output_dir: PathLike,
    *,
    objective: str = "ms",
    max_accuracy_drop: float = 0.01,
    candidates: Sequence[str] = plan.KINDS,
    students: Sequence[str] | None = None,
    budget_minutes: float | None = None,
    pace: Pace | None = None,
    schedule: Schedule = SCHEDULES["fine_tuning"],
    epochs: int | None = None,
    student_schedule: Schedule = SCHEDULES["distillation"],
    student_epochs: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    strategy: tf.distribute.Strategy | None = None,
    compute: Compute = BY_KERAS,
    about: export.About | None = None,
    show_progress: bool = True,
    claim: Callable[[], object] | None = None,
) -> Front:
    """Makes a trained classifier smaller in several ways, and chooses the file for a device.

    What is tried is, in this order: its own files in integers; fewer channels, step by step, until
    a step loses far too much; zeros, where it is about downloads; students that it teaches; exits.
    Each is a call of `compression.compress`, `comparison.compare` or `export.package_early_exit`
    in a directory of its own.

    Every file is run on the same validation images, and test images choose nothing. Called again
    with the same arguments after an interruption, it goes on where it stopped, measures no finished
    candidate again, and ends with the same choice. `output_dir` gets, beside a directory for each
    candidate, `export/chosen.tflite` and `export/labels.txt`.

    Args:
        classifier: functional Keras model that returns logits of normalised images; it is not
            changed. Or a function that returns it, a new copy each time it is called.
        data: of `kdtoolkit.data.load`.
        output_dir: where everything is written.
        objective: what is to be small: `"ms"`, the milliseconds that the file takes for an image in
            LiteRT on this machine, on one thread; `"bytes"` of the file, `"gzipped_bytes"`, as it
            is downloaded, or `"macs"`, multiply-accumulates for an image.
        max_accuracy_drop: share of the validation images that the file may lose against the
            classifier's own in float32, in [0, 1).
        candidates: what is tried: `"channels"`, `"weights"`, `"student"`, `"early_exit"`, and
            `"quantize"`, which always is.
        students: names of networks that are taught; by default a small one for images of this size.
        budget_minutes: that all of it may take, over all starts, positive. A candidate begins only
            before they are over, and only if it is not foreseen to end far beyond; what has begun
            is not cut short, and the classifier's own files are always written. More minutes in a
            later call go on with what there was no time for.
        pace: of the classifier's training, if that belongs to it: its seconds count, and what the
            first candidate takes is foreseen from it.
        schedule, epochs: of trainings that start from the classifier's weights.
        student_schedule, student_epochs: of students; epochs are the schedules' own by default.
        batch_size: of every training, a student's too; by default that of `schedule`.
        seed: of initialisation, data order and augmentation.
        strategy: of `kdtoolkit.training.strategy`, of one process; by default TensorFlow's current.
        compute: of `kdtoolkit.training.compute.choose`; by default as Keras is set.
        about: name, author and licence, for the files' metadata.
        show_progress: print what is tried, progress and the time left to standard error.
        claim: called once arguments are checked, before anything is written, by a caller that holds
            `output_dir` itself; by default it is held here. Its file front.json stores the
            arguments.

    Returns:
        A `Front`.

    Raises:
        ArgumentError: an argument is not what is accepted; the classifier cannot be exported.
        ValueError: it does not fit the data; `output_dir` belongs to other arguments, holds a
            damaged file, or is one that another process writes to.
        ParityError: the classifier's file does not compute what it computes.
    """
    check("objective", objective, OneOf(tuple(choosing.OBJECTIVES)))
    check("max_accuracy_drop", max_accuracy_drop, BELOW_1)
    for kind in candidates:
        check("candidates", kind, OneOf(plan.KINDS))
    if budget_minutes is not None:
        check("budget_minutes", budget_minutes, POSITIVE)
    strategy = strategy or tf.distribute.get_strategy()
    if distribution.has_workers(strategy):
        raise ArgumentError("strategy", "of one process", strategy)
    output_dir, shape, classes = Path(output_dir), data.info.image_shape, data.info.classes
    assert shape is not None and classes is not None  # of data that are loaded
    loop.check_validation(data)
    if students is not None and len(set(students)) < len(students):
        raise ArgumentError("students", "different names", students)
    copy = copier(classifier)
    epochs, batch_size = schedule.length(epochs, batch_size)
    student_epochs = positive_integer("student_epochs", student_epochs, student_schedule.epochs)
    settings = Settings(
        schedule=schedule,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        strategy=strategy,
        compute=compute,
    )
    settings.check(data)
    with compute.policy():
        teacher = copy()
        loop.check_fits(teacher, data)
        with suiting("students", students):
            for name in students or ():
                models.build(name, shape, classes)
    images, truth = data.validation.spread(_CHOOSING)
    setting = trying.Setting(
        classifier=teacher,
        copy=copy,
        data=data,
        images=images,
        truth=truth,
        settings=settings,
        student_schedule=student_schedule,
        student_epochs=student_epochs,
        max_accuracy_drop=max_accuracy_drop,
        about=about,
        show_progress=show_progress,
    )
    students = students or [plan.usual_student(*shape[:2])]
    arguments = {
        "classifier": fingerprint(teacher),
        "objective": objective,
        "max_accuracy_drop": max_accuracy_drop,
        "candidates": list(candidates),
        "students": list(students),
        "schedule": str(schedule),
        "epochs": settings.epochs,
        "student_schedule": str(student_schedule),
        "student_epochs": setting.student_epochs,
        "batch_size": settings.batch_size,
        "seed": seed,
        **described_data(data),
        "about": about and dataclasses.asdict(about),
    }
    with held(strategy, output_dir, "front.json", arguments, claim):
        seconds = 0.0 if pace is None else pace.seconds
        of_epoch = None if pace is None else len(data.train) / pace.images_per_second
        budget = Budget(output_dir / "budget.json", budget_minutes, seconds, of_epoch)
        planned = plan.candidates(candidates, students)
        rows, tried = _try_all(planned, setting, output_dir, objective, budget)
        return _chosen(rows, tried, objective, max_accuracy_drop, output_dir, setting)


def _try_all(planned, setting, output_dir, objective, budget):
    """The rows of all files, and what came of each candidate."""
    rows, tried, vain = [], [], set()
    for number, candidate in enumerate(planned, start=1):
        name, epochs = candidate.name, setting.epochs(candidate)
        found = _finished(output_dir, name)
        if found is None:
            why = None
            if rows:  # the classifier's own files are there
                why = plan.needless(candidate, objective, rows, vain, setting.max_accuracy_drop)
                if why is None and not budget.allows(name, epochs):
                    why = plan.NO_TIME
            if why is not None:
                tried.append({"candidate": name, "seconds": 0.0, "outcome": why})
                continue
            if setting.show_progress:
                print(f"Trying {name} ({number} of {len(planned)})", file=sys.stderr)
            with budget.running(name):
                found = _run(candidate, setting, output_dir, needed=not rows)
        budget.learn(name, epochs)
        rows += found["rows"]
        if not found["rows"]:
            vain.add(name)
        seconds = budget.seconds.get(name, 0.0)
        tried.append({"candidate": name, "seconds": seconds, "outcome": found["outcome"]})
    return rows, tried


def _finished(output_dir: Path, name: str) -> dict | None:
    """What a candidate came to, measured before; None where its files are not as they were then."""
    directory = output_dir / name
    if not (directory / _RECORD).exists():
        return None
    try:
        found = files.read_record(directory / _RECORD)
        for file, digest in found["files"].items():
            if files.sha256(output_dir / file) != digest:
                raise ValueError(f"{file} is not as it was written")
    except (OSError, ValueError, KeyError) as error:
        if not files.is_damage(error):
            raise
        warnings.warn(
            f"{directory} does not hold what it should ({error}); {name} is tried again",
            stacklevel=2,
        )
        return None
    return found


def _run(candidate, setting, output_dir, needed) -> dict:
    """Tries a candidate, and stores what came of it; whatever is `needed` raises its errors."""
    directory, outcome, rows = output_dir / candidate.name, None, []
    try:
        rows = trying.run(candidate, setting, directory)
    except (ArgumentError, NonFiniteError, export.ParityError) as error:
        if needed:
            raise
        outcome = " ".join(str(error).split())
    except trying.NothingGainedError as error:
        outcome = str(error)
    for row in rows:
        row["name"] = f"{candidate.title}, {row['quantization']}"
        row["candidate"] = candidate.name
        row["path"] = row["path"].relative_to(output_dir).as_posix()
    left = {
        row["path"]: files.sha256(output_dir / row["path"]) for row in rows if not row["failure"]
    }
    found = {"outcome": outcome, "rows": rows, "files": left}
    files.make_directory(directory)
    files.write_record(directory / _RECORD, found)
    return found


def _chosen(rows, tried, objective, max_accuracy_drop, output_dir, setting) -> Front:
    cost = choosing.OBJECTIVES[objective]
    whole = rows[0]
    least = whole["validation_accuracy"] - max_accuracy_drop
    index = choosing.choose(rows, cost, least)
    marked = [
        {**row, "on_front": on_front, "chosen": number == index}
        for number, (row, on_front) in enumerate(zip(rows, choosing.front(rows), strict=True))
    ]
    source, path = output_dir / rows[index]["path"], output_dir / "export" / "chosen.tflite"
    files.make_directory(path.parent)
    files.write_atomically(path, lambda scratch: shutil.copyfile(source, scratch))
    write_labels(path.parent, setting.data.info.labels)
    verdict = _verdict(rows, index, objective, max_accuracy_drop, len(setting.images))
    return Front(marked, tried, marked[index], path, verdict, len(setting.images))


def _verdict(rows: Sequence[Mapping], index: int, objective, max_accuracy_drop, images) -> str:
    cost, chosen, whole = choosing.OBJECTIVES[objective], rows[index], rows[0]

    def figures(row):
        amount = f"{row[cost]:.3g}" if objective == "ms" else f"{row[cost]:,}"
        return f"{row['name']} ({row['validation_accuracy']:.2%}, {amount} {objective})"

    of = f"of {images:,} validation images"
    if chosen[cost] < whole[cost]:
        return (
            f"Chosen: {figures(chosen)}, the least {objective} of the files that are right on at "
            f"most {max_accuracy_drop:.2%} fewer {of} than {figures(whole)}."
        )
    best = choosing.best_of_cheaper(rows, cost, whole[cost])
    found = "nothing has fewer" if best is None else f"the best with fewer is {figures(rows[best])}"
    return (
        f"Chosen: {figures(chosen)}. No file with fewer {objective} is right on at most "
        f"{max_accuracy_drop:.2%} fewer {of}: {found}."
    )
