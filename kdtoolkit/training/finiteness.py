"""NaN and infinity, which end a training: found on the device, said with their place."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from kdtoolkit._types import Tensor
from kdtoolkit.models.contract import non_finite
from kdtoolkit.training.checks import unknown_classes
from kdtoolkit.training.replicas import sum_over_replicas

_FIRST_LABEL = -2  # In a record, where -3 is the second one.
_UNWATCHED_STEPS = 50  # Between looks at the record: each look waits for the device.


class NonFiniteError(RuntimeError):
    """Training met NaN or infinity, and stopped."""


class NonFiniteInputError(NonFiniteError):
    """An image holds NaN or infinity.

    Attributes:
        epoch, step: where, counted from 0 and within the epoch.
        image: its place in the batch, counted from 0; None where replicas share a batch.
    """

    def __init__(self, epoch: int, step: int, image: int | None) -> None:
        which = "An image" if image is None else f"Image {image}"
        super().__init__(f"{which} of the batch at epoch {epoch}, step {step} is not finite")
        self.epoch, self.step, self.image = epoch, step, image


class UnknownClassError(NonFiniteError):
    """A label is the index of no class, which makes the loss NaN.

    Attributes:
        epoch, step: where, counted from 0 and within the epoch.
        label: its place in the batch, counted from 0; None where replicas share a batch.
    """

    def __init__(self, epoch: int, step: int, label: int | None, classes: int) -> None:
        which = "A label" if label is None else f"Label {label}"
        super().__init__(
            f"{which} of the batch at epoch {epoch}, step {step} is no class from 0 to "
            f"{classes - 1}"
        )
        self.epoch, self.step, self.label = epoch, step, label


class NonFiniteVariableError(NonFiniteError):
    """A weight, a moving statistic or a variable of the optimizer became NaN or infinite.

    Attributes:
        epoch: after which, counted from 0.
        variable: path of the first one.
    """

    def __init__(self, epoch: int, variable: str) -> None:
        super().__init__(f"Variable {variable!r} is not finite after epoch {epoch}")
        self.epoch, self.variable = epoch, variable


class NonFiniteLossError(NonFiniteError):
    """A loss term became NaN or infinite.

    Attributes:
        epoch, step: where, counted from 0 and within the epoch.
        term: name of the first loss term that was not finite.
    """

    def __init__(self, epoch: int, step: int, term: str) -> None:
        super().__init__(f"Loss term {term!r} is not finite at epoch {epoch}, step {step}")
        self.epoch, self.step, self.term = epoch, step, term


class NonFiniteRecord:
    """The first value of an epoch that is not finite, recorded on the device.

    Args:
        add_weight: of the trainer, which stores what is recorded.
        term_names: of the loss terms.
        classes: number of classes.
    """

    def __init__(
        self, add_weight: Callable[..., Any], term_names: Sequence[str], classes: int
    ) -> None:
        self._names, self._classes = (*term_names, "regularization"), classes
        # [step, what] of the first one; step -1: none. What: the place of a loss term, the
        # regularization after them, or, from then on, an image of the batch; or, from _FIRST_LABEL
        # downwards, a label of the batch.
        # Of 64 bits: int32 ones stay in the host's memory, which XLA on a GPU does not reach.
        self._first, self._step = (
            add_weight(
                name=name,
                shape=shape,
                dtype="int64",
                initializer=keras.initializers.Constant(value),
                trainable=False,
                aggregation="only_first_replica",
            )
            for name, shape, value in (("non_finite", (2,), -1), ("epoch_step", (), 0))
        )

    def begin_epoch(self) -> None:
        """Forgets what was recorded."""
        self._first.assign([-1, -1])
        self._step.assign(0)

    def record(
        self, images: Any, labels: Any, terms: Mapping[str, Tensor], regularization: Tensor
    ) -> None:
        """Looks at a step, of which every replica sees its own part; in its graph.

        Args:
            images, labels: of the batch.
            terms: name -> loss per sample, `(batch,)`.
            regularization: scalar.
        """
        # The images themselves: a fused ReLU may have made 0 of NaN before there is a loss.
        bad = _non_finite_rows(images)
        unknown = unknown_classes(labels, self._classes)
        sums = [*(tf.reduce_sum(terms[name]) for name in self._names[:-1]), regularization]
        causes = [tf.reduce_any(bad), tf.reduce_any(unknown)]
        failed = tf.concat([~tf.math.is_finite(tf.stack(sums)), causes], axis=0)
        failed = sum_over_replicas(tf.cast(failed, "int32")) > 0
        first, image, label = (
            tf.argmax(values, output_type="int32") for values in (failed, bad, unknown)
        )
        what = tf.where(failed[-1], _FIRST_LABEL - label, first)
        what = tf.where(failed[-2], len(sums) + image, what)
        found = tf.stack([self._step.value, tf.cast(what, "int64")])
        keep = (self._first.value[0] >= 0) | ~tf.reduce_any(failed)
        self._first.assign(tf.where(keep, self._first.value, found))

    def end_step(self) -> None:
        """Counts a step; in its graph."""
        self._step.assign_add(1)

    def check(self, epoch: int, replicas: int) -> None:
        """Raises a `NonFiniteError` if an image, a label or a loss term of this epoch was wrong.

        Args:
            epoch: its number, for the message.
            replicas: that share a batch; of one alone the place of an image is known.
        """
        step, what = map(int, self._first.numpy())
        if step < 0:
            return
        if what <= _FIRST_LABEL:
            place = _FIRST_LABEL - what if replicas == 1 else None
            raise UnknownClassError(epoch, step, place, self._classes)
        if what >= len(self._names):
            place = what - len(self._names) if replicas == 1 else None
            raise NonFiniteInputError(epoch, step, place)
        raise NonFiniteLossError(epoch, step, self._names[what])


def check_variables(trainer: keras.Model, epoch: int) -> None:
    """Raises a `NonFiniteVariableError` if a variable, the optimizer's included, is not finite.

    Args:
        trainer: compiled model.
        epoch: the finished one, for the message.
    """
    found = non_finite([*trainer.variables, *trainer.optimizer.variables])
    if found:
        raise NonFiniteVariableError(epoch, found)


class StopOnNonFinite(keras.callbacks.Callback):
    """Ends the `fit` of a trainer with what was recorded.

    Args:
        record: the trainer's `NonFiniteRecord`.
    """

    def __init__(self, record: NonFiniteRecord) -> None:
        super().__init__()
        self._record = record

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self._record.begin_epoch()

    def on_train_batch_end(self, batch, logs=None):
        # `batch` is the last of the steps that were executed at once.
        if batch % _UNWATCHED_STEPS < self.model.steps_per_execution:
            self._check()

    def on_test_begin(self, logs=None):
        self._check()  # no evaluation of what went wrong

    def on_epoch_end(self, epoch, logs=None):
        self._check()
        check_variables(self.model, epoch)

    def _check(self):
        self._record.check(self.epoch, self.model.distribute_strategy.num_replicas_in_sync)


def _non_finite_rows(images):
    """Which images of a batch hold NaN or infinity, bool `(batch,)`; whole numbers never do."""
    parts = map(tf.convert_to_tensor, keras.tree.flatten(images))  # arrays, where steps run eagerly
    parts = [part for part in parts if part.dtype.is_floating]
    if not parts:
        return tf.constant([False])
    rows = [
        tf.reduce_all(tf.math.is_finite(part), axis=range(1, part.shape.rank)) for part in parts
    ]
    return ~tf.reduce_all(tf.stack(rows), axis=0)
