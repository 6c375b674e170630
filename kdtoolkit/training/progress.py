"""One line of progress with the time left."""

import sys
import time

import keras

from kdtoolkit._bar import bar, clock
from kdtoolkit.training.distribution import is_chief


def shown(total_epochs, strategy, show=True):
    """Returns the `Progress` of a run; None if it is not to be shown, or not by this worker."""
    return Progress(total_epochs) if show and is_chief(strategy) else None


class Progress(keras.callbacks.Callback):
    """Shows where a run of several trainings stands, and for how long it will go on.

    On a terminal one line is rewritten; elsewhere each epoch prints a line.

    Args:
        total_epochs: of the whole run, all trainings together.
        stream: where to write; standard error by default, so that results can be piped.
    """

    def __init__(self, total_epochs, stream=None):
        super().__init__()
        self.total = total_epochs
        self.stream = stream or sys.stderr
        self.first = None  # epochs done when this process trained its first one

    def begin(self, title, done):
        """Names the training that comes next and the epochs of the run that lie before it."""
        self.title, self.before = title, done

    def on_epoch_begin(self, epoch, logs=None):
        self.done = self.before + epoch
        if self.first is None:
            self.first, self.started = self.done, time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        steps = self.params.get("steps")
        if self.stream.isatty() and steps:
            self._write(self.done + (batch + 1) / steps, logs, end="")

    def on_epoch_end(self, epoch, logs=None):
        self.done += 1
        self._write(self.done, logs, end="" if self.stream.isatty() else "\n")

    def on_train_end(self, logs=None):
        if self.stream.isatty():
            self.stream.write("\n")

    def _write(self, done, logs, end):
        elapsed = time.monotonic() - self.started
        left = elapsed / max(done - self.first, 1e-9) * (self.total - done)
        fraction = done / self.total
        shown = {k: v for k, v in (logs or {}).items() if k in ("loss", "accuracy", "val_accuracy")}
        figures = "  ".join(f"{name} {float(value):.3f}" for name, value in shown.items())
        epoch = min(int(done) + (done % 1 > 0), self.total)
        where = f"epoch {epoch}/{self.total} {bar(fraction)}"
        line = f"{self.title}  {where} {figures}  {clock(left)} left"
        self.stream.write(("\r\x1b[K" if self.stream.isatty() else "") + line + end)
        self.stream.flush()
