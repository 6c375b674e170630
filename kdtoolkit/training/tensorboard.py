"""What a training writes for TensorBoard: figures of each epoch, and its hyper-parameters once."""

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams_plugin

from kdtoolkit import files
from kdtoolkit._types import Hyperparameters, Logs, PathLike
from kdtoolkit.training.schedules import Schedule
from kdtoolkit.training.step import Trainer
from kdtoolkit.training.transfer import Transfer


def hyperparameters(
    trainer: Trainer, schedule: Schedule, transfer: Transfer | None = None
) -> Hyperparameters:
    """Returns what a training is set to, but for what names it: name, seed, epochs, batch size.

    Args:
        trainer: says the weight decay that it adds, and what it is taught.
        schedule: of the learning rate, whose `drops` are fractions of the epochs here.
        transfer: of trained weights, or None.
    """
    found = trainer.hyperparameters() | {
        "learning_rate": schedule.learning_rate,
        "drops": ", ".join(f"{drop / schedule.epochs:.3g}" for drop in schedule.drops),
        "momentum": schedule.momentum,
        "nesterov": schedule.nesterov,
    }
    if transfer is not None:
        found["freeze_epochs"] = transfer.freeze_epochs
        if transfer.backbone_learning_rate is not None:
            found["backbone_learning_rate"] = transfer.backbone_learning_rate
    return found


class TensorBoard(keras.callbacks.Callback):
    """Every figure of the logs, and the learning rate, per epoch.

    As Keras' own callback does it: `train/` and `validation/` below the directory, and the same tag
    in both, `epoch_accuracy` for one, so that the two are lines of one chart. That one also writes
    a trace of the graph, and per batch; this one writes what a comparison of generations reads.

    Hyper-parameters lie in the directory itself, so that it is one row of the HParams tab, with the
    last figures of both below it. A training that goes on says them again, and is the same row.

    Args:
        log_dir: directory of the event files.
        hparams: name -> value.
    """

    def __init__(self, log_dir: PathLike, hparams: Hyperparameters) -> None:
        super().__init__()
        self.log_dir = Path(log_dir)
        self.hparams = hparams

    def on_train_begin(self, logs: Logs = None) -> None:
        files.make_directory(self.log_dir)
        self.writers = {
            name: tf.summary.create_file_writer(str(self.log_dir / name))
            for name in ("train", "validation")
        }
        # Without a name of its own a row has that of its directory: by default trainings with equal
        # hyper-parameters would be one row, and their figures a mean.
        with tf.summary.create_file_writer(str(self.log_dir)).as_default() as writer:
            hparams_plugin.hparams(self.hparams, trial_id="")
        writer.close()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        figures = {**logs, "learning_rate": self.model.optimizer.learning_rate}
        for name, value in figures.items():
            split = "validation" if name.startswith("val_") else "train"
            with self.writers[split].as_default(step=epoch):
                tf.summary.scalar(f"epoch_{name.removeprefix('val_')}", float(value))
        for writer in self.writers.values():
            writer.flush()

    def on_train_end(self, logs: Logs = None) -> None:
        for writer in self.writers.values():
            writer.close()
