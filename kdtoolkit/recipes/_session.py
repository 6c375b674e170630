"""A run of a recipe, from checked flags to its results: the order of its steps, their errors."""

import contextlib
import dataclasses
import functools
import gc
import hashlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from kdtoolkit import cluster, files
from kdtoolkit.data import folder
from kdtoolkit.export.metadata import write_labels
from kdtoolkit.export.rows import MOST_IMAGES, file_facts, parity_facts
from kdtoolkit.recipes import _flags, _page, _report
from kdtoolkit.recipes._command import (
    Done,
    RunError,
    blaming,
    blaming_arguments,
    claim_output_dir,
)
from kdtoolkit.training import compute


class Session:
    """A run of a recipe. Its steps, in the order in which it takes them:

    1. Data are loaded into a process that is prepared for it.
    2. `compute` and `strategy` are chosen when they are first asked for.
    3. `begin` writes for the first time: whatever is wrong with flags is said before.
    4. Networks are trained in `guarded`, where what a person can act on is one line.
    5. `finish` writes the results, has files exported, and writes the results again.

    Args:
        recipe: its name.
        flags: of the run, checked.
        usual: the `Schedule` that the flags were checked against.

    Attributes:
        data: a `kdtoolkit.data.Data`.
        schedule: the `Schedule` as the flags have it.
        output_dir: of the run.
        given: of `given_data`; what else a run is given is in the `parts` of `finish`.
    """

    def __init__(self, recipe: str, flags, usual):
        self.recipe, self.flags = recipe, flags
        self.schedule = _flags.schedule(flags, usual)
        self.output_dir = Path(flags.output_dir)
        self.data = load(flags)
        self.given = given_data(self.data.info)

    @functools.cached_property
    def strategy(self):
        """The `tf.distribute` strategy, for which the batches are right."""
        from kdtoolkit.training import distribution, loop

        chosen, images = distribution.strategy(self.flags.strategy), len(self.data.train)
        with blaming_arguments(self.flags):
            loop.check_last_batch(images, self.flags.batch_size, chosen.num_replicas_in_sync)
        return chosen

    @functools.cached_property
    def compute(self):
        """The `Compute`, which suits the strategy and the epochs."""
        from kdtoolkit.training import distribution

        flags, train, replicas = self.flags, self.data.train, self.strategy.num_replicas_in_sync
        device = {"data_on_device": flags.data_on_device, "data_bytes": train.bytes_for_device}
        with blaming_arguments(flags):
            chosen = _choose(flags, replicas, **device)
            chosen.check_epoch(train.steps_per_epoch(flags.batch_size))
        # Workers on machines of several kinds train one network.
        with losing_workers():
            fields = distribution.from_chief(self.strategy, lambda: dataclasses.asdict(chosen))
        return dataclasses.replace(chosen, **fields)

    @property
    def is_chief(self) -> bool:
        """Whether this is the worker that writes and speaks."""
        return cluster.is_chief(self.flags.strategy)

    def begin(self) -> None:
        """Makes the output directory the run's own; says on what data and how it computes."""
        begin(self.flags, self.data, self.compute)

    def guarded(self):
        """A context in which a training that failed for a known reason is one line."""
        return one_line_errors(self.data)

    def train(
        self,
        variants: Mapping[str, tuple[Callable, Callable]],
        evaluate: Callable,
        transfer=None,
    ):
        """Trains networks one after another, each in a directory of its name.

        Args:
            variants: name -> `(build, make_trainer)`, as `kdtoolkit.training.loop.Training` takes
                them.
            evaluate: name, network -> dict of its figures.
            transfer: of all of them, a `kdtoolkit.training.Transfer`, or None.

        Returns:
            `(networks, results)`, dicts of the names.

        Raises:
            RunError: a training failed for a reason that a person can act on.
            OtherRunError: the output directory's networks were trained on other data.
        """
        from kdtoolkit._claim import check_arguments, described_data
        from kdtoolkit.training import loop, progress

        loop.check_validation(self.data)
        epochs, output_dir = self.flags.epochs, self.output_dir
        with self.guarded():
            check_arguments(self.strategy, output_dir, "data.json", described_data(self.data))
        bar = progress.Progress(len(variants) * epochs)
        settings = self._settings([bar] if self.is_chief else [], transfer)
        networks, results = {}, {}
        for number, (name, (build, make_trainer)) in enumerate(variants.items()):
            training = loop.Training(
                output_dir / name, settings, 0, output_dir / "logs" / name, name
            )
            with self.guarded():
                networks[name], results[name] = training.complete(
                    build,
                    make_trainer,
                    self.data,
                    functools.partial(evaluate, name),
                    functools.partial(bar.begin, name.replace("_", " "), number * epochs),
                )
        return networks, results

    def export(self, network, name: str, formats=("saved_model", "litert")) -> list[dict]:
        """Exports a network to the formats, runs each on test images; returns their rows.

        Raises:
            RunError: a file does not compute what the network computes; it is removed.
        """
        from kdtoolkit import export as exporting
        from kdtoolkit.training import distribution

        network = distribution.local(network)
        images, labels = self.data.test.spread(MOST_IMAGES)
        directory, preprocessing = self.output_dir / "export", self.data.preprocessing
        directory.mkdir(exist_ok=True)
        gc.collect()  # training's graphs, before the converter makes its own
        said = {"labels": self.data.info.labels, "about": _flags.about(self.flags)}
        to_litert = functools.partial(exporting.to_litert, **said)
        writers: dict[str, tuple[Callable, Path]] = {
            "saved_model": (exporting.to_saved_model, directory / "saved_model"),
            "litert": (to_litert, directory / f"{name}.tflite"),
        }
        rows = []
        for write, path in (writers[each] for each in formats):
            self.before_file(path)
            exported = write(network, path, preprocessing)
            try:
                parity = exporting.check(exported, network, preprocessing, images, labels)
            except exporting.ParityError as error:
                files.remove(path)
                raise RunError(str(error)) from error
            rows.append({**file_facts(exported, self.output_dir), **parity_facts(parity)})
        if "litert" in formats:
            write_labels(directory, self.data.info.labels)
        return rows

    def before_file(self, path: Path) -> None:
        """Says what takes the next seconds: converting a network, and running the file."""
        print(f"Exporting and checking {path.relative_to(self.output_dir)}", file=sys.stderr)

    def finish(self, parts: dict, export: Callable[[], list[dict]] | None = None) -> dict:
        """Writes the results, exports unless it is `--export=none`, and writes them again.

        Args:
            parts: of `results.json`; what was `given` gets the data.
            export: called without arguments, returns the rows of the files. It may add to `parts`.

        Raises:
            Done: this is a worker that does not write.
        """
        wanted = "export" not in self.flags or self.flags.export != "none"
        parts["given"] = {**parts["given"], **self.given}
        return finish(
            self.recipe, self.flags, self.output_dir, self.data, parts, export if wanted else None
        )

    def _settings(self, callbacks, transfer):
        from kdtoolkit.training import loop

        return loop.Settings(
            schedule=self.schedule,
            epochs=self.flags.epochs,
            batch_size=self.flags.batch_size,
            seed=self.flags.seed,
            strategy=self.strategy,
            callbacks=callbacks,
            compute=self.compute,
            transfer=transfer,
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
    prepare_process(flags)
    with blaming("dataset"), blaming_arguments(flags, name="dataset"):
        return labelled(flags, flags.label)


def given_data(info) -> dict[str, str]:
    """Returns `--dataset` and the `data_digest` of data that lie in files of their own."""
    own = info.kind in ("archive", "folder")
    return {"dataset": data_digest(info.path)} if own else {}


def data_digest(path: str) -> str:
    """SHA-256 by which a finished run knows an archive, or a folder: its images' names and sizes.

    Raises:
        OSError, ValueError: the archive cannot be read, or this is a folder of something else.
    """
    if os.path.isfile(path):
        return files.sha256(path)
    digest, found = hashlib.sha256(), folder.scan(path)
    for split in filter(None, (found.train, found.validation, found.test)):
        for image in split.paths:
            size = os.path.exists(image) and os.path.getsize(image)
            digest.update(repr((os.path.relpath(image, path), size)).encode())
    return digest.hexdigest()


def labelled(flags, label):
    """Loads the data of a run with the label of this name, its own or another one."""
    from kdtoolkit import data

    return data.load(
        flags.dataset,
        flags.data_dir,
        image_size=flags.image_size,
        label=label,
        validation_fraction=flags.validation_fraction,
        train_examples=flags.train_examples,
        strict_data=flags.strict_data,
        augmentation=flags.augmentation,
        mixup=flags.mixup,
        cutmix=flags.cutmix,
    )


@contextlib.contextmanager
def losing_workers():
    """Ends a run that has lost a worker with one line."""
    from kdtoolkit.training.distribution import WorkerLostError

    try:
        yield
    except WorkerLostError as error:
        raise RunError(str(error)) from error


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
        chosen: the `Compute` of the run.
    """
    output_dir = claim_output_dir(flags)
    if cluster.is_chief(flags.strategy):
        print(_report.data_line(_report.data_facts(data)), file=sys.stderr)
        print(chosen.summary, file=sys.stderr)
    return output_dir


@contextlib.contextmanager
def one_line_errors(data):
    """Turns what failed for a reason that a person can act on into one line."""
    from kdtoolkit.data import DamagedDataError, reading
    from kdtoolkit.export import ParityError
    from kdtoolkit.training.finiteness import NonFiniteError

    try:
        with losing_workers(), reading(data.info):
            yield
    except (DamagedDataError, ParityError) as error:
        raise RunError(str(error)) from error
    except NonFiniteError as error:
        raise RunError(f"{error} (counted from 0). {_advice(error)}") from error


def _advice(error):
    """What helps a training that met NaN or infinity, by where they came from."""
    from kdtoolkit.training import finiteness

    if isinstance(error, finiteness.NonFiniteInputError | finiteness.UnknownClassError):
        return "It is the data that are wrong, or what is done to them: no other training helps"
    if isinstance(error, finiteness.NonFiniteLossError) and (error.epoch, error.step) == (0, 0):
        return (
            "No step had been taken yet, so that --learning_rate is not the cause: a network that "
            "was given may be, or another flag of the loss"
        )
    return (
        "A lower --learning_rate may help, in another --output_dir: this one goes on with its own "
        "flags"
    )


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

    files.remove(output_dir / _page.NAME)  # of another start: killed now, it would stay for good
    write()
    exports = export() if export is not None else []
    return write(exports=exports, finished=_report.now(), files=_report.left(output_dir))
