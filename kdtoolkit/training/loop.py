"""One training that may be killed at any moment and goes on where it stopped."""

import time
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from kdtoolkit import files
from kdtoolkit.training.checkpoint import Checkpoints, SaveCheckpoints


@dataclass(frozen=True)
class Pace:
    """How long training took, interruptions left out.

    Attributes:
        seconds: in `fit`, validation included.
        images_per_second: training images over those seconds.
    """

    seconds: float
    images_per_second: float


def fit(trainer, data, directory, *, schedule, epochs, batch_size, seed, generation=0,
        log_dir=None, callbacks=()):
    """Trains to the last epoch, from the newest state in `directory` if there is one.

    A trainer's randomness is a function of (seed, generation, epoch), so a run that was killed and
    called again ends with the weights of one that was not.

    Args:
        trainer: `Trainer`, not compiled.
        data: of `kdtoolkit.data.load`.
        directory: where states are kept while it trains; removed states are its own only.
        schedule: `Schedule`, scaled to `epochs`.
        epochs, batch_size: of this run; the batch is the global one.
        seed, generation: keys of the data's order and augmentation.
        log_dir: for TensorBoard, or None.
        callbacks: Keras callbacks.

    Returns:
        The run's `Pace`.

    Raises:
        ValueError: the last batch of an epoch has fewer images than there are replicas.
        NonFiniteLossError: a loss term was not finite; the states before it are kept.
    """
    train = data.train
    replicas = trainer.distribute_strategy.num_replicas_in_sync
    last = len(train) % batch_size or batch_size
    if last < replicas:
        raise ValueError(
            f"Argument `batch_size` must leave a last batch of at least {replicas} images, one for "
            f"each replica. Received: batch_size={batch_size}, which leaves {last} of {len(train)}"
        )
    steps = train.steps_per_epoch(batch_size)
    with trainer.distribute_strategy.scope():
        trainer.compile(schedule.optimizer(epochs, steps), metrics=["accuracy"])
    checkpoints = Checkpoints(directory)
    first_epoch, notes = checkpoints.restore(trainer)
    earlier, started = notes.get("seconds", 0.0), time.monotonic()

    def seconds():
        return earlier + time.monotonic() - started

    if first_epoch < epochs:
        own = [SaveCheckpoints(checkpoints, lambda: {"seconds": seconds()})]
        if log_dir is not None:
            own.append(TensorBoard(log_dir))
        trainer.fit(
            train.epochs(
                batch_size,
                seed=seed,
                generation=generation,
                first_epoch=first_epoch,
                epochs=epochs,
            ),
            initial_epoch=first_epoch,
            epochs=epochs,
            steps_per_epoch=steps,
            shuffle=False,  # the stream is in its epoch's order already
            validation_data=data.validation.batches(batch_size),
            callbacks=[*own, *callbacks],
            verbose=0,
        )
    return Pace(seconds(), epochs * len(train) / seconds())


class TensorBoard(keras.callbacks.Callback):
    """Every figure of the logs, and the learning rate, per epoch.

    Keras' own callback also writes a trace of the graph, and per batch; this one writes what a
    comparison of generations reads.

    Args:
        log_dir: directory of the event files.
    """

    def __init__(self, log_dir):
        super().__init__()
        self.log_dir = str(log_dir)

    def on_train_begin(self, logs=None):
        self.writer = tf.summary.create_file_writer(self.log_dir)

    def on_epoch_end(self, epoch, logs=None):
        rate = self.model.optimizer.learning_rate
        with self.writer.as_default(step=epoch):
            for name, value in {**logs, "learning_rate": rate}.items():
                tf.summary.scalar(name, float(value))
        self.writer.flush()

    def on_train_end(self, logs=None):
        self.writer.close()


def save_network(network, path):
    """Saves a network in Keras' format, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(path, network.save)
