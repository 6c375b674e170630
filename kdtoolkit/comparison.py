"""One small network, taught in several ways over several seeds: which way is best?"""

import dataclasses
import functools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kdtoolkit import models
from kdtoolkit._checks import ArgumentError, check_seeds, positive_integer, suiting
from kdtoolkit._claim import described_data, design, fingerprint, held
from kdtoolkit._types import PathLike
from kdtoolkit.data.augmentation import Views
from kdtoolkit.data.loading import Data
from kdtoolkit.data.pipeline import Split, StreamingSplit
from kdtoolkit.methods import as_methods
from kdtoolkit.methods.ways import Way, as_ways, described_way
from kdtoolkit.training import evaluation, layer_pairs, loop, progress, teacher_cache
from kdtoolkit.training.compute import BY_KERAS, Compute
from kdtoolkit.training.distribution import chief_first
from kdtoolkit.training.mutual import MutualLearning
from kdtoolkit.training.patriarch import Patriarch
from kdtoolkit.training.schedules import SCHEDULES, Schedule
from kdtoolkit.training.self_distillation import SelfDistillation
from kdtoolkit.training.step import Trainer
from kdtoolkit.training.student import Student
from kdtoolkit.training.transfer import Transfer

__all__ = ["Comparison", "compare", "summarise"]

Build = Callable[[], keras.Model]

_HEADS = 128  # The paper's width: these heads only teach, and what they would cost is cut off.


@dataclass(frozen=True)
class Comparison:
    """Students that were taught in several ways.

    Attributes:
        teacher: the network that taught them; None where no way has a teacher.
        teacher_results: its figures, as those of a row but for `method` and `seed`; None likewise.
        rows: a dict for each student, seed by seed: `method`, the name of its way, `seed`,
            `test_accuracy`, `validation_accuracy` (None without validation images), `test_loss`,
            `seconds`, `images_per_second`.
        networks: (method, seed) -> the network as it was trained, with its exits if it has some.
    """

    teacher: keras.Model | None
    teacher_results: dict | None
    rows: list[dict]
    networks: dict[tuple[str, int], keras.Model]

    @property
    def best(self) -> dict:
        """The row of the highest validation accuracy; the first one where nothing validated."""
        return max(self.rows, key=lambda row: row["validation_accuracy"] or 0.0)

    @property
    def best_network(self) -> keras.Model:
        """The network of that row, images to logits: of one with exits the deepest."""
        return _classifier(self.networks[self.best["method"], self.best["seed"]])


def compare(
    build: Build,
    data: Data,
    output_dir: PathLike,
    *,
    teacher: keras.Model | Build | None = None,
    ways: Sequence[str | Way] = ("plain", "kd"),
    peer: Build | None = None,
    seeds: Sequence[int] = (0,),
    cached_views: int | None = None,
    teacher_epochs: int | None = None,
    teacher_seed: int = 0,
    teacher_transfer: Transfer | None = None,
    transfer: Transfer | None = None,
    schedule: Schedule = SCHEDULES["distillation"],
    epochs: int | None = None,
    batch_size: int | None = None,
    strategy: tf.distribute.Strategy | None = None,
    compute: Compute = BY_KERAS,
    show_progress: bool = True,
    claim: Callable[[], object] | None = None,
) -> Comparison:
    """Trains a student in each of several ways, once for each seed, and tests them all.

    Called again with the same arguments after an interruption, it goes on where it stopped and ends
    with the same weights. `output_dir` gets a directory `WAY/seed_SEED` for each student
    (`network.keras`, `results.json`), `teacher` for one that is trained, `teacher_cache`, and
    TensorBoard `logs`.

    Args:
        build: returns a new student that returns logits; called once for each training, after
            Keras' random seed was set from its seed.
        data: of `kdtoolkit.data.load`.
        output_dir: where everything is written.
        teacher: the network that teaches, or a function that returns a new one, which is trained on
            the labels first. Not looked at where no way has a teacher.
        ways: a `kdtoolkit.methods.Way` each, or its name: `plain`, `mutual`, `deep_supervision`,
            `self_distillation`, or names of methods joined with `+`. Exits are added to the
            students of the last two where a student has layers `stage1`, `stage2`, ....
        peer: as `build`, of the network that learns with the student in `mutual`; by default its
            like.
        seeds: of initialisation, data order and augmentation, one for each student of a way.
        cached_views: number of fixed views of each image for which the teacher's outputs are
            computed once, and which all students then see; None for a teacher that sees fresh views
            in every step, as they do.
        teacher_epochs: of a teacher that is trained; by default `epochs`.
        teacher_seed: of a teacher that is trained, and of the views.
        teacher_transfer: of a teacher that is trained from trained weights.
        transfer: of the students, where `build` returns networks with trained weights.
        schedule: learning rate, momentum and weight decay.
        epochs, batch_size: of each training; the schedule's own by default.
        strategy: of `kdtoolkit.training.strategy`; by default TensorFlow's current.
        compute: of `kdtoolkit.training.compute.choose`; by default as Keras is set.
        show_progress: print progress and the time left to standard error.
        claim: called once all is checked, before anything is written, by a caller that holds
            `output_dir` itself; by default it is held here. Its file comparison.json stores the
            arguments.

    Returns:
        A `Comparison`.

    Raises:
        ArgumentError: there is no such way; a way does not suit the networks; a teacher or seeds
            are missing; the cache cannot be written.
        ValueError: another argument is outside its range or does not fit the data; `output_dir`
            belongs to other arguments, holds a damaged file, or is one that another process writes
            to.
        NonFiniteError: a loss or a variable was not finite.
        WorkerLostError: another worker of the strategy ended.
    """
    ways = as_ways(ways)
    check_seeds(seeds)
    taught = any(way.needs_teacher for way in ways)
    if taught and teacher is None:
        names = ", ".join(way.name for way in ways if way.needs_teacher)
        raise ArgumentError("teacher", f"given for the ways that have one, {names}", None)
    if cached_views is not None and not taught:
        raise ArgumentError("cached_views", "None where no way has a teacher", cached_views)
    trains_teacher = taught and not isinstance(teacher, keras.Model)
    build_teacher: Any = teacher
    if trains_teacher:
        build_teacher = loop.fresh(build_teacher, "teacher")
    epochs, batch_size = schedule.length(epochs, batch_size)
    teacher_epochs = positive_integer("teacher_epochs", teacher_epochs, epochs)
    views = None if cached_views is None else Views(cached_views, teacher_seed, generation=1)
    strategy = strategy or tf.distribute.get_strategy()
    output_dir = Path(output_dir)
    build, peer = loop.fresh(build), loop.fresh(peer or build, "peer")
    before = teacher_epochs if trains_teacher else 0
    bar = progress.shown(before + len(ways) * len(seeds) * epochs, strategy, show_progress)
    settings = loop.Settings(
        schedule=schedule,
        epochs=epochs,
        batch_size=batch_size,
        strategy=strategy,
        compute=compute,
        callbacks=[bar] if bar else [],
        transfer=transfer,
    )
    of_teacher = dataclasses.replace(
        settings, epochs=teacher_epochs, seed=teacher_seed, transfer=teacher_transfer
    )

    run = _Run(build, peer, data, output_dir, settings, bar)

    # What is wrong with an argument is said before it is written down as this directory's.
    settings.check(data, [method for way in ways for method in as_methods(way.methods)])
    if trains_teacher:
        with suiting("teacher_transfer", teacher_transfer):
            of_teacher.check(data)
    with compute.policy():
        example, designs = None, []
        if taught:
            example = build_teacher() if trains_teacher else teacher
            loop.check_fits(example, data)
            designs.append(design(example))
        for way in ways:
            made = run.trainer(way, example, seeds[0])
            loop.check_fits(made.network, data)
            designs += map(design, made.networks)
    arguments = {
        "ways": [described_way(way) for way in ways],
        "seeds": list(seeds),
        "teacher": fingerprint(teacher) if taught and not trains_teacher else None,
        "teacher_epochs": before,
        "teacher_seed": teacher_seed,
        "cached_views": cached_views,
        "schedule": str(schedule),
        "epochs": epochs,
        "batch_size": batch_size,
        **described_data(data),
        "networks": designs,
        "teacher_transfer": None if teacher_transfer is None else str(teacher_transfer),
        "transfer": None if transfer is None else str(transfer),
    }

    with held(strategy, output_dir, "comparison.json", arguments, claim):
        results = None
        if trains_teacher:
            teacher, results = run.teacher(build_teacher, of_teacher)
        elif taught:
            results = _figures(teacher, data)
        plain = with_teacher = data
        if views is not None:
            layers = _teacher_layers(ways, build(), teacher)
            with suiting("cached_views", cached_views):
                cached = run.cached(teacher, views, layers)
            with_teacher = dataclasses.replace(data, train=cached)
            plain = dataclasses.replace(data, train=data.train.in_views(views))
        rows: list[dict] = []
        networks: dict[tuple[str, int], keras.Model] = {}
        for seed in seeds:
            for way in ways:
                seen, done = with_teacher if way.needs_teacher else plain, len(rows) * epochs
                network, row = run.student(way, teacher, seed, seen, before + done)
                rows.append(row)
                networks[way.name, seed] = network
    return Comparison(teacher if taught else None, results, rows, networks)


@dataclass(frozen=True)
class _Run:
    """What the trainings of a `compare` share.

    Attributes:
        build, peer: functions that return new networks.
        data, output_dir: of `compare`.
        settings: of each student, but for its seed.
        bar: progress of all trainings, or None.
    """

    build: Build
    peer: Build
    data: Data
    output_dir: Path
    settings: loop.Settings
    bar: progress.Progress | None

    def trainer(self, way: Way, teacher: keras.Model | None, seed: int) -> Trainer:
        """What trains a new student in a way."""
        network = self._network(way)
        decay = self.settings.schedule.weight_decay
        options: dict[str, Any] = {"weight_decay": decay, "seed": seed}
        if way.trainer == "plain":
            return Patriarch(network, "plain", **options)
        if way.trainer == "mutual":
            return MutualLearning([network, self.peer()], **options)
        if way.has_exits:
            return SelfDistillation(network, way.methods, **options)
        return Student(network, teacher, way.methods, **options)

    def teacher(self, build: Build, settings: loop.Settings) -> tuple[keras.Model, dict]:
        """Trains a teacher on labels; returns it and its figures."""
        decay, seed = settings.schedule.weight_decay, settings.seed
        return self._complete(
            *("teacher", "teacher", settings, 0, self.data, 0),
            build,
            lambda: Patriarch(build(), "plain", weight_decay=decay, seed=seed),
        )

    def student(
        self, way: Way, teacher: keras.Model | None, seed: int, data: Data, done: int
    ) -> tuple[keras.Model, dict]:
        """Trains a student in a way; returns it and its row."""
        settings = dataclasses.replace(self.settings, seed=seed)
        return self._complete(
            *(f"{way.name}/seed_{seed}", f"{way.name}, seed {seed}", settings, 1, data, done),
            lambda: self._network(way),
            lambda: self.trainer(way, teacher, seed),
            method=way.name,
            seed=seed,
        )

    def cached(
        self, teacher: keras.Model, views: Views, layers: Sequence[str]
    ) -> Split | StreamingSplit:
        """The training images with what a teacher says of them, computed once."""
        train, directory = self.data.train, self.output_dir / "teacher_cache"
        build = functools.partial(
            teacher_cache.build, teacher, train, directory, views=views, layers=layers
        )
        return chief_first(self.settings.strategy, build).attach(train)

    def _network(self, way):
        network = self.build()
        return models.add_exits(network, mid=_HEADS) if way.has_exits else network

    def _complete(
        self, path, title, settings, generation, data, done, build, make_trainer, **labels
    ):
        training = loop.Training(
            self.output_dir / path, settings, generation, self.output_dir / "logs" / path, path
        )
        return training.complete(
            build,
            make_trainer,
            data,
            lambda network: {**labels, **_figures(network, self.data)},
            lambda: self.bar and self.bar.begin(title, done),
        )


def _teacher_layers(ways, student, teacher):
    """Names of the teacher's layers that the methods of some ways compare."""
    return [
        layer
        for way in ways
        if way.needs_teacher
        for layer in layer_pairs.attach(way.methods, student, teacher).teacher_layers
    ]


def _classifier(network):
    """The network with one output: the deepest of a multi-exit network."""
    if isinstance(getattr(network, "output", None), dict):
        return models.cut(network, models.exit_names(network)[-1])
    return network


def _figures(network, data):
    """The figures of a student, or of the teacher, on the test and validation images."""
    network = _classifier(network)
    test = evaluation.predict(network, data.test)
    validation = evaluation.predict(network, data.validation) if len(data.validation) else ()
    return evaluation.exit_figures(*test, *validation)["network"]


def summarise(rows: Sequence[dict]) -> list[dict]:
    """Returns a row per method of a comparison: means and sample deviations over the seeds.

    Args:
        rows: of a `Comparison`.

    Returns:
        Dicts of `method`, `runs`, `test_accuracy` and `validation_accuracy`, each with its
        `..._deviation`, which is None for one seed; `gain`, the mean difference to `plain`, seed by
        seed, or None; and `seconds`.
    """
    plain = {row["seed"]: row["test_accuracy"] for row in rows if row["method"] == "plain"}
    summary = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        gains = [row["test_accuracy"] - plain[row["seed"]] for row in own if plain]
        summary.append(
            {
                "method": method,
                "runs": len(own),
                **_mean(own, "test_accuracy"),
                **_mean(own, "validation_accuracy"),
                "gain": statistics.mean(gains) if gains and method != "plain" else None,
                "seconds": statistics.mean(row["seconds"] for row in own),
            }
        )
    return summary


def _mean(rows, key):
    values = [row[key] for row in rows]
    if None in values:
        return {key: None, f"{key}_deviation": None}
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {key: statistics.mean(values), f"{key}_deviation": deviation}
