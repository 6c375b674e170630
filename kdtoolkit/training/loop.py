"""One training that may be killed at any moment and goes on where it stopped."""

import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kdtoolkit import files
from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit._types import Hyperparameters, Network, PathLike
from kdtoolkit.data import Data, beside
from kdtoolkit.methods import Method
from kdtoolkit.models.precision import in_float32
from kdtoolkit.models.weights import put_weights
from kdtoolkit.training import record
from kdtoolkit.training.checkpoint import Checkpoints, SaveCheckpoints
from kdtoolkit.training.compute import BY_KERAS, Compute
from kdtoolkit.training.distribution import (
    even_batch_size,
    from_chief,
    is_chief,
    losing_workers,
)
from kdtoolkit.training.finiteness import NonFiniteError, check_variables
from kdtoolkit.training.schedules import Schedule
from kdtoolkit.training.step import Trainer
from kdtoolkit.training.tensorboard import TensorBoard, hyperparameters
from kdtoolkit.training.transfer import Transfer


@dataclass(frozen=True)
class Pace:
    """How long training took, interruptions left out.

    Attributes:
        seconds: in `fit`, validation included.
        images_per_second: training images of the epochs that were trained, over those seconds.
    """

    seconds: float
    images_per_second: float


@dataclass(frozen=True)
class Settings:
    """How a network is trained.

    Attributes:
        schedule: learning rate, momentum and weight decay, scaled to `epochs`.
        epochs, batch_size: of this run; the batch is the global one.
        seed: of initialisation, data order, augmentation.
        strategy: of `kdtoolkit.training.strategy`.
        callbacks: Keras callbacks. One with `variables`, a list that holds Keras variables from
            `set_model` on, has them stored and restored with the trainer's. What others remember,
            such as the best epoch of Keras' `EarlyStopping`, is lost where a training goes on.
        compute: of `kdtoolkit.training.compute.choose`; by default as Keras is set.
        transfer: of a network that starts from trained weights, or None.
    """

    schedule: Schedule
    epochs: int
    batch_size: int
    seed: int = 0
    strategy: tf.distribute.Strategy = field(default_factory=tf.distribute.get_strategy)
    callbacks: Sequence[keras.callbacks.Callback] = ()
    compute: Compute = BY_KERAS
    transfer: Transfer | None = None

    def check(self, data: Data, methods: Iterable[Method] = ()) -> None:
        """Checks that an epoch of the data can be trained in these batches, by some methods.

        Raises:
            ValueError: the batch size is not positive, its last batch has fewer images than there
                are replicas, its steps cannot be executed so many at once, batches are too small
                for a method, or more epochs are frozen than there are.
        """
        steps = data.train.steps_per_epoch(self.batch_size)
        for method in methods:
            method.check_batch_size(self.batch_size)
        images, replicas = len(data.train), self.strategy.num_replicas_in_sync
        check_last_batch(images, self.batch_size, replicas)
        self.compute.check_epoch(steps)
        if self.transfer is not None:
            self.transfer.check_epochs(self.epochs)


class Training:
    """The training of one network in a directory of its own: absent, under way, or finished.

    While it trains, the directory holds its last two states; finished, `network.keras` and then
    `results.json`, which is the mark of it, and holds checksums of both. Of several workers the
    chief alone reads and writes it; the others get what it reads.

    Args:
        directory: of this training alone.
        settings: a `Settings`.
        generation: keys initialisation, data order and augmentation together with the seed.
        log_dir: for TensorBoard, below the directory that is shown, or None.
        name: tells it from other trainings of the same generation and seed.
    """

    def __init__(
        self,
        directory: PathLike,
        settings: Settings,
        generation: int = 0,
        log_dir: PathLike | None = None,
        name: str = "",
    ) -> None:
        self.directory = Path(directory)
        self.settings = settings
        self.generation = generation
        self.log_dir = log_dir
        self._writes = is_chief(settings.strategy)
        self._history = History()
        self._network = self.directory / record.NETWORK
        self._results = self.directory / record.RESULTS
        # What a state or a finished network of this training is known by.
        self._identity: Hyperparameters = {
            "name": name,
            "generation": generation,
            "seed": settings.seed,
            "epochs": settings.epochs,
            "batch_size": settings.batch_size,
        }

    def complete(
        self,
        build: Callable[[], Network],
        make_trainer: Callable[[], Trainer],
        data: Data,
        evaluate: Callable[[Network], dict[str, Any]],
        begin: Callable[[], object] | None = None,
    ) -> tuple[Network, dict[str, Any]]:
        """Trains the network, or loads it where that was done before.

        Args:
            build, make_trainer, data: of `load` and `run`.
            evaluate: network -> dict of its figures.
            begin: called without arguments before a training that is not finished.

        Returns:
            `(network, results)`; the results are the figures with the `Pace`, and the `precision`
            that the network was trained in.

        Raises:
            WorkerLostError: another worker ended; the states before that are kept.
            NonFiniteError: as in `run`, or a figure was not finite.
            OSError: a file cannot be read, though it may be whole.
        """
        with losing_workers():
            return self._complete(build, make_trainer, data, evaluate, begin)

    def _complete(self, build, make_trainer, data, evaluate, begin):
        finished = self.load(build)
        if finished:
            self._describe(data)
            return finished
        if begin is not None:
            begin()
        network, pace = self.run(make_trainer, data)
        self._describe(data)
        precision = self.settings.compute.precision or keras.config.dtype_policy().name
        figures = evaluate(network)
        if not np.isfinite(np.array(_numbers(figures))).all():
            raise NonFiniteError(f"The trained network's figures are not finite: {figures}")
        results = {**figures, **asdict(pace), "precision": precision}
        self.finish(results)
        return network, results

    def _describe(self, data):
        if self._writes:
            beside.write(self._network, data.preprocessing, data.info.labels)

    def load(self, build: Callable[[], Network]) -> tuple[Network, dict[str, Any]] | None:
        """Returns `(network, results)` if the training is finished, else None.

        What is damaged or of another training is named in a warning and set aside: the network
        will be trained again.

        Args:
            build: returns a network as it was trained; it gets the stored weights, so that layers
                that Keras cannot deserialise are no obstacle.
        """
        strategy = self.settings.strategy
        if not from_chief(strategy, self._results.exists):
            return None
        with strategy.scope():
            with self.settings.compute.policy():
                network = build()
            stored = from_chief(strategy, lambda: self._stored(network))
            if stored is None:
                return None
            results, weights = stored
            put_weights(network, weights)
        return network, results

    def _stored(self, network):
        """The results and weights of the finished training; None where its files are not that."""
        try:
            results = record.read(self.directory, self._identity)
        except (OSError, ValueError) as error:
            if not files.is_damage(error):
                raise
            for path in (self._results, self._network):  # first the mark of being finished
                if path.exists():
                    files.set_aside(path)
            warnings.warn(
                f"{self.directory} does not hold what it should ({error}); its files are set aside "
                "as .damaged, and the network is trained again",
                stacklevel=2,
            )
            return None
        results.pop("history", None)
        Checkpoints(self.directory).clear()  # left where `finish` was interrupted
        network.load_weights(self._network)
        return results, network.get_weights()

    def run(self, make_trainer: Callable[[], Trainer], data: Data) -> tuple[Network, Pace]:
        """Trains to the last epoch, from the newest state if there is one.

        A trainer's randomness is a function of (seed, generation, epoch), so a run that was killed
        and called again ends with the weights of one that was not, if its callbacks have no state
        but their `variables`.

        Args:
            make_trainer: builds the network and its `Trainer`, not compiled; called after Keras'
                random seed was set, in the strategy's scope.
            data: of `kdtoolkit.data.load`.

        Returns:
            The network, which is saved as well, and the run's `Pace`.

        Raises:
            ValueError: the last batch of an epoch has fewer images than there are replicas, an
                epoch cannot be executed in so many steps at once, or batches are too small for a
                method.
            NonFiniteError: a loss term, an image or a variable was not finite; the states before it
                are kept.
        """
        settings, train = self.settings, data.train
        batch_size, epochs = settings.batch_size, settings.epochs
        transfer = settings.transfer or Transfer()
        settings.check(data)
        trainer = self._compiled(make_trainer, data, transfer)
        stateful = [callback for callback in settings.callbacks if hasattr(callback, "variables")]
        for callback in stateful:
            callback.set_model(trainer)
        checkpoints = Checkpoints(self.directory, stateful, self._identity)
        with settings.strategy.scope():
            first_epoch, notes = checkpoints.restore(trainer)
        started = time.monotonic() - notes.get("seconds", 0.0)
        self._history = History(notes.get("history"))

        def noted():
            return {"seconds": time.monotonic() - started, "history": self._history.figures}

        own: list[keras.callbacks.Callback] = []
        if self._writes:
            own += [self._history, SaveCheckpoints(checkpoints, noted)]
        if self._writes and self.log_dir is not None:
            schedule = settings.schedule
            hparams = hyperparameters(trainer, schedule, settings.transfer) | self._identity
            own.append(TensorBoard(self.log_dir, hparams))
        trained = first_epoch  # epochs, fewer than were asked for where a callback stops it
        if first_epoch < epochs:
            history = trainer.fit(
                train.epochs(
                    batch_size,
                    seed=settings.seed,
                    generation=self.generation,
                    first_epoch=first_epoch,
                    epochs=epochs,
                    on_device=settings.compute.data_on_device,
                ),
                initial_epoch=first_epoch,
                epochs=epochs,
                steps_per_epoch=train.steps_per_epoch(batch_size),
                shuffle=False,  # the stream is in its epoch's order already
                validation_data=_validation(
                    data, batch_size, settings.strategy.num_replicas_in_sync
                ),
                # The last ones store what the others leave.
                callbacks=[*transfer.callbacks(), *settings.callbacks, *own],
                verbose=0,
            )
            trained += len(history.epoch)
        check_variables(trainer, trained - 1)  # a state may be older than the check of each epoch
        seconds = time.monotonic() - started
        if self._writes:
            files.make_directory(self.directory)
            with in_float32(trainer.network):
                files.write_atomically(self._network, trainer.network.save)
        return trainer.network, Pace(seconds, trained * len(train) / seconds)

    def _compiled(self, make_trainer, data, transfer):
        """A trainer whose network is drawn by this training's seed, whatever ran before."""
        settings, train = self.settings, data.train
        # Fresh layer names and seeds: nothing depends on what this process ran before.
        keras.backend.clear_session()
        seeds = np.random.SeedSequence([settings.seed, self.generation])
        keras.utils.set_random_seed(int(seeds.generate_state(1)[0]))
        with settings.strategy.scope():
            with settings.compute.policy():
                trainer = make_trainer()
            check_fits(trainer.network, data)
            trainer.check_batch_size(settings.batch_size)
            steps = train.steps_per_epoch(settings.batch_size)
            trainer.compile(
                transfer.optimizer(settings.schedule, trainer, settings.epochs, steps),
                metrics=["accuracy"],
                reader=train.reader() if settings.compute.data_on_device else None,
                **settings.compute.compile_options(),
            )
        return trainer

    def finish(self, results: dict) -> None:
        """Stores the results, which marks the training as finished, and drops its states.

        With them goes the `history` of the training that was run: figure -> its value after each
        epoch, None where that is not known or not finite.
        """
        if self._writes:
            results = {**results, "history": self._history.figures}
            record.write(self.directory, results, self._identity)
            Checkpoints(self.directory).clear()


class History(keras.callbacks.Callback):
    """Every figure of the logs after each epoch, over all starts of a training.

    One that is not finite, which JSON has no number for, is None, as is that of an epoch that a
    state of an older version does not tell of.

    Args:
        figures: of the epochs before; name -> values.
    """

    def __init__(self, figures=None):
        super().__init__()
        self.figures: dict[str, list[float | None]] = dict(figures or {})

    def on_epoch_end(self, epoch, logs=None):
        for name, value in logs.items():
            own = self.figures.setdefault(name, [])
            own += [None] * (epoch - len(own))
            # Six digits are more than a chart shows, and half as long.
            own.append(float(f"{float(value):.6g}") if np.isfinite(value) else None)


def _numbers(figures):
    return [value for value in keras.tree.flatten(figures) if isinstance(value, float)]


def _validation(data, batch_size, replicas):
    count = len(data.validation)
    return data.validation.batches(even_batch_size(count, batch_size, replicas)) if count else None


def check_validation(data):
    """Raises a `ValueError` unless there are images to validate on."""
    if not len(data.validation):
        raise ArgumentError("data", "validation images", Words("none"), must="hold")


def check_fits(network, data):
    """Checks that a network, with one output or several exits, is one for the data.

    Raises:
        ValueError: it takes other images, or tells other classes apart.
    """
    shapes = network.output_shape  # a list for several exits
    shapes = [shapes] if isinstance(shapes, tuple) else shapes
    classes = {shape[-1] for shape in shapes}
    shape = tuple(data.info.image_shape)
    if classes != {data.info.classes} or tuple(network.input_shape[1:]) != shape:
        maps = f"{network.input_shape[1:]} to {sorted(classes)} classes"
        received = Words(f"images {shape} of {data.info.classes} classes")
        raise ArgumentError("data", f"the network, which maps {maps}", received, must="fit")


def fresh(build: Callable[[], Network], argument: str = "build") -> Callable[[], Network]:
    """Returns `build` that finds out if it returns the same network twice.

    That one would be trained further where a new one was to be trained, as its own teacher even.

    Raises:
        ArgumentError: of the function that is returned: `build` has returned that network before.
    """
    built: weakref.WeakSet[Network] = weakref.WeakSet()

    def build_another():
        network = build()
        if network in built:
            accepted = "a function that returns a new network each time"
            raise ArgumentError(
                argument, accepted, Words(f"one that returns {network.name!r} again")
            )
        built.add(network)
        return network

    return build_another


def check_last_batch(images, batch_size, replicas):
    """Checks that the last batch of an epoch has an image for each replica.

    A replica without one has no batch statistics: its moving averages would become NaN.

    Raises:
        ValueError: it has not.
    """
    last = images % batch_size or batch_size
    if last < replicas:
        accepted = f"a last batch of at least {replicas} images, one for each replica"
        hint = f"It leaves {last} of {images}"
        raise ArgumentError("batch_size", accepted, batch_size, hint, must="leave")
