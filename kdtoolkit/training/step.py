"""The train step that every method shares.

A method is a subclass of `Trainer` that answers two questions: which *signals* come from outside
the gradient tape (a teacher's logits), and which weighted loss *terms*, one value per sample, the
network is trained with. What must be right once is right here.
"""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import tensorflow as tf

from kdtoolkit import _keras
from kdtoolkit._checks import AT_LEAST_0, ArgumentError, Words, check
from kdtoolkit._types import Hyperparameters, Network, PathLike, Tensor
from kdtoolkit.data import Examples
from kdtoolkit.methods import Batch, Outputs
from kdtoolkit.models.contract import check_logits, non_finite
from kdtoolkit.training.checks import (
    check_callbacks,
    check_images,
    check_labels,
    check_optimizer,
    unknown_classes,
)
from kdtoolkit.training.distribution import has_workers
from kdtoolkit.training.fused import Untracked, fused

_FIRST_LABEL = -2  # In the non-finite record, where -3 is the second one.
_UNWATCHED_STEPS = 50  # Between looks at the non-finite record: each look waits for the device.


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


class Trainer(keras.Model):
    """Trains `network` with a sum of per-sample loss terms; `fit()` it like any Keras model.

    `call`, `evaluate` and `predict` run the network; `save`, `save_weights`, `load_weights`,
    `export` and `summary` are the network's own, so what is stored never contains a teacher.
    `fit` reports one metric per loss term, their sum `loss`, and the mean `primary_score`.

    Under a `tf.distribute` strategy per-sample terms are divided by the global batch, gradients are
    summed over the replicas, and weight decay and the optimizer's clipping come after that sum: any
    number of replicas takes the same step.

    Subclasses implement `terms` and, where there is a teacher, `signals`.

    Args:
        network: functional Keras model that returns logits.
        term_names: names of the loss terms that `terms` returns.
        probe: model on the network's layers that returns what `terms` reads, where that is more
            than the network's own output.
        weight_decay: coupled L2 of the papers, `gradient + weight_decay * variable` on every
            trainable variable, before momentum. The `weight_decay` of Keras' optimizers is
            decoupled: with momentum 0.9 about ten times weaker.
        seed: of the randomness that a method draws itself.
    """

    def __init__(
        self,
        network: Network,
        term_names: Iterable[str],
        *,
        probe: Any = None,
        weight_decay: float = 0.0,
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        if not isinstance(
            getattr(network, "output", None), dict
        ):  # `exits` has checked the exits' own
            check_logits(network)
        check("weight_decay", weight_decay, AT_LEAST_0)
        self.network = network
        self.term_names = tuple(term_names)
        self.weight_decay = weight_decay
        self.seed = seed
        self.term_metrics = [keras.metrics.Mean(name=name) for name in self.term_names]
        self.primary_score_metric = keras.metrics.Mean(name="primary_score")
        # [step, what] of the first non-finite value in this epoch, on the device; step -1: none.
        # What: a term, the regularization, or, from then on, an image of the batch; or, from
        # _FIRST_LABEL downwards, a label of the batch.
        # Of 64 bits: int32 ones stay in the host's memory, which XLA on a GPU does not reach.
        self._non_finite = self.add_weight(
            name="non_finite",
            shape=(2,),
            dtype="int64",
            initializer=keras.initializers.Constant(-1),
            trainable=False,
            aggregation="only_first_replica",
        )
        self._epoch_step = self.add_weight(
            name="epoch_step",
            shape=(),
            dtype="int64",
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",
        )
        self._epoch, self._epochs = (
            self.add_weight(
                name=name,
                shape=(),
                dtype="float32",
                initializer=initializer,
                trainable=False,
                aggregation="only_first_replica",
            )
            for name, initializer in (("epoch", "zeros"), ("epochs", "ones"))
        )
        # Training goes through this view of the same variables; saving and inference do not.
        self._forward = Untracked(fused(probe or network))
        self.built = network.built

    # What a method says.

    def signals(self, x: Examples, y: Any) -> dict[str, Any]:
        """Returns what `terms` needs from outside the tape, e.g. `{"teacher_logits": ...}`."""
        return {}

    def terms(self, y: Any, outputs: Any, signals: dict[str, Any]) -> dict[str, Tensor]:
        """Returns a dict: term name -> weighted loss per sample, float32 `(batch,)`."""
        raise NotImplementedError(f"{type(self).__name__} must say its loss terms")

    def predictions(self, outputs: Any) -> Any:
        """Returns the network's own output, for `compute_metrics`, from what the probe returned."""
        return outputs

    # What is right once.

    @property
    def networks(self) -> list[Network]:
        """All networks that it trains."""
        return [self.network]

    def check_batch_size(self, batch_size: int) -> None:
        """Raises an `ArgumentError` if batches of this size teach nothing."""

    def hyperparameters(self) -> Hyperparameters:
        """Returns what tells this trainer from others, for a table; subclasses add their own."""
        return {
            "network": self.network.name,
            "trainer": type(self).__name__,
            "weight_decay": self.weight_decay,
        }

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.network(Examples.of(inputs).images, training=training)

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "rmsprop",
        metrics: Any = None,
        reader: Callable[[Any], Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Sets the optimizer and metrics; the loss is the trainer's own.

        Args:
            optimizer: Keras optimizer; its clipping arguments act on the summed gradient.
            metrics: as in Keras; `"accuracy"` works with every kind of label.
            reader: function that makes images, on the device, of `Examples` that have none yet
                (`Split.reader`) and returns any other `x` as it is, or None.
            **kwargs: `jit_compile`, `run_eagerly`, `steps_per_execution`.

        Raises:
            ValueError: a loss was given, the optimizer scales losses for float16, or, under a
                strategy, several steps are to be executed at once, a reader is given, or the
                optimizer is a `MultiOptimizer`.
        """
        for argument in ("loss", "loss_weights"):
            if kwargs.get(argument) is not None:
                accepted = f"left out: {type(self).__name__} has its own loss"
                raise ArgumentError(argument, accepted, kwargs[argument])
        replicas = self.distribute_strategy.num_replicas_in_sync
        if replicas > 1 and kwargs.get("steps_per_execution", 1) != 1:
            accepted = (
                f"1 under a strategy of {replicas} replicas, where Keras cannot run more steps at "
                "once"
            )
            raise ArgumentError("steps_per_execution", accepted, kwargs["steps_per_execution"])
        if replicas > 1 and reader is not None:
            accepted = f"None for {replicas} replicas, each of which would hold all images"
            raise ArgumentError("reader", accepted, Words("a reader"))
        self._reader = reader
        super().compile(optimizer=optimizer, metrics=metrics, **kwargs)
        check_optimizer(self.optimizer, replicas)
        # `train_step` sums the gradients over replicas before decay and clipping; a second sum in
        # the optimizer would multiply them by the number of replicas.
        _keras.leave_gradients_as_they_are(self.optimizer)

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = self._read(data)
        signals = self.signals(x, y)
        with tf.GradientTape() as tape:
            _keras.clear_losses(self)
            outputs = self._forward.value(x.images, training=True)
            loss = self._loss(y, outputs, signals, sample_weight, x.images)
        variables = self.trainable_variables
        gradients = tape.gradient(loss, variables)
        self.optimizer.apply_gradients(
            zip(self._summed(gradients, variables), variables, strict=True)
        )
        self._epoch_step.assign_add(1)
        return self.compute_metrics(x.images, y, self.predictions(outputs), sample_weight)

    def test_step(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = self._read(data)
        signals = self.signals(x, y)
        _keras.clear_losses(self)
        outputs = self._forward.value(x.images, training=False)
        self._loss(y, outputs, signals, sample_weight)
        return self.compute_metrics(x.images, y, self.predictions(outputs), sample_weight)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Updates the metrics of `compile` and the primary score from logits `(batch, classes)`."""
        scores = tf.nn.softmax(tf.cast(y_pred, "float32"))
        self.primary_score_metric.update_state(tf.reduce_max(scores, axis=-1))
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Keras' `fit`, which a value that is not finite ends with a `NonFiniteError`.

        Raises:
            ArgumentError: `callbacks` hold a `BackupAndRestore`, or are a `CallbackList`; or
                `batch_size` is too small for a method.
            NonFiniteError: a loss term, an image, a label that is no class or, at the end of an
                epoch, a variable.
            ValueError: arrays of images that are not finite, or of labels that are no classes; the
                message has the first one's index.
        """
        if batch_size is not None:  # of arrays
            self.check_batch_size(batch_size)
        check_images(x)
        check_labels(y, self._classes)
        if isinstance(validation_data, tuple | list) and len(validation_data) > 1:
            check_labels(validation_data[1], self._classes, "validation_data")
        others = keras.tree.flatten(callbacks or [])
        check_callbacks(others)
        # First, so that no callback stores the weights of an epoch that went wrong.
        callbacks = [_AverageStatistics(), _StopOnNonFinite(), *others]
        given = (batch_size, epochs, verbose, callbacks, validation_split, validation_data)
        return super().fit(x, y, *given, *args, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras' `evaluate`.

        Raises:
            ValueError: an array of labels that are no classes; the message has the first one's
                index.
        """
        check_labels(y, self._classes)
        return super().evaluate(x, y, *args, **kwargs)

    def global_mean(self, values: Tensor) -> Tensor:
        """Mean over the global batch of one value per sample, `(batch,)`, on every replica."""
        total = tf.reduce_sum(values)
        return _sum_over_replicas(total) / self._global_batch(values)

    def uniform(self, like: Tensor) -> Tensor:
        """Random numbers in [0, 1) of the shape of `like`, `(batch, ...)`, float32.

        They are a function of seed, step and place in the global batch: however many replicas share
        a batch, each image is drawn the same numbers.
        """
        context = tf.distribute.get_replica_context()
        index, replicas = _replica_id(context), context.num_replicas_in_sync
        shape = tf.shape(like)
        sizes = _sum_over_replicas(tf.one_hot(index, replicas, shape[0], 0, dtype="int32"))
        first = tf.cumsum(sizes, exclusive=True)[index]
        seed = tf.stack([self.seed, tf.cast(self.optimizer.iterations, "int32")])
        everyone = tf.concat([[tf.reduce_sum(sizes)], shape[1:]], axis=0)
        return tf.random.stateless_uniform(everyone, seed)[first : first + shape[0]]

    def gather(self, values: Tensor) -> Tensor:
        """The rows `(batch, ...)` of all replicas, in the order of the replicas, on every one.

        Gradients flow back to the replica that a row came from.
        """
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync == 1:
            return tf.convert_to_tensor(values)
        return context.all_gather(values, axis=0)

    def batch(self, labels: Tensor, student: Outputs, teacher: Outputs) -> Batch:
        """What a method is given: a `kdtoolkit.methods.Batch` of two `Outputs`."""
        return Batch(
            labels,
            student,
            teacher,
            mean=self.global_mean,
            gather=self.gather,
            uniform=self.uniform,
            epoch=self._epoch.value,
            epochs=self._epochs.value,
        )

    def _loss(self, y, outputs, signals, sample_weight, images=None):
        """Sums the terms once: returns this replica's share of the global batch's mean.

        In training it is given the images, and what is not finite is recorded.
        """
        terms = self.terms(y, outputs, signals)
        regularization = [tf.reduce_sum(tf.cast(loss, "float32")) for loss in self.losses]
        regularization = tf.add_n(regularization) if regularization else tf.constant(0.0)
        if sample_weight is not None:
            sample_weight = tf.reshape(tf.cast(sample_weight, "float32"), [-1])
            terms = {name: value * sample_weight for name, value in terms.items()}
        for metric in self.term_metrics:
            metric.update_state(terms[metric.name])
        per_sample = tf.add_n([terms[name] for name in self.term_names])
        _keras.loss_tracker(self).update_state(per_sample + regularization)
        if images is not None:
            self._record_non_finite(images, y, terms, regularization)
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        return (
            tf.reduce_sum(per_sample) / self._global_batch(per_sample) + regularization / replicas
        )

    @property
    def _classes(self):
        return self.network.outputs[0].shape[-1]

    def _read(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        return Examples.of(x if self._reader is None else self._reader(x)), y, sample_weight

    def _global_batch(self, values):
        return tf.cast(_sum_over_replicas(tf.shape(values)[0]), "float32")

    def _summed(self, gradients, variables):
        present = [g for g in gradients if g is not None]
        if not present:
            raise ValueError("The loss does not depend on any trainable variable of the network.")
        present = iter(_sum_over_replicas([tf.convert_to_tensor(g) for g in present]))
        summed = [None if g is None else next(present) for g in gradients]
        if not self.weight_decay:
            return summed
        return [
            g if g is None else g + self.weight_decay * tf.cast(variable.value, g.dtype)
            for g, variable in zip(summed, variables, strict=True)
        ]

    def _record_non_finite(self, images, y, terms, regularization):
        # The images themselves: a fused ReLU may have made 0 of NaN before there is a loss.
        bad = _non_finite_rows(images)
        unknown = unknown_classes(y, self._classes)
        sums = [tf.reduce_sum(terms[name]) for name in self.term_names] + [regularization]
        causes = [tf.reduce_any(bad), tf.reduce_any(unknown)]
        failed = tf.concat([~tf.math.is_finite(tf.stack(sums)), causes], axis=0)
        failed = _sum_over_replicas(tf.cast(failed, "int32")) > 0
        first, image, label = (
            tf.argmax(values, output_type="int32") for values in (failed, bad, unknown)
        )
        what = tf.where(failed[-1], _FIRST_LABEL - label, first)
        what = tf.where(failed[-2], len(sums) + image, what)
        record = tf.stack([self._epoch_step.value, tf.cast(what, "int64")])
        keep = (self._non_finite.value[0] >= 0) | ~tf.reduce_any(failed)
        self._non_finite.assign(tf.where(keep, self._non_finite.value, record))

    def check_step(self, epoch: int) -> None:
        """Raises a `NonFiniteError` if an image, a label or a loss term of this epoch was wrong.

        Args:
            epoch: its number, for the message.
        """
        step, what = map(int, self._non_finite.numpy())
        if step < 0:
            return
        names = (*self.term_names, "regularization")
        alone = self.distribute_strategy.num_replicas_in_sync == 1
        if what <= _FIRST_LABEL:
            place = _FIRST_LABEL - what if alone else None
            raise UnknownClassError(epoch, step, place, self._classes)
        if what >= len(names):
            raise NonFiniteInputError(epoch, step, what - len(names) if alone else None)
        raise NonFiniteLossError(epoch, step, names[what])

    def check_variables(self, epoch: int) -> None:
        """Raises a `NonFiniteVariableError` if a variable, the optimizer's included, is not finite.

        Args:
            epoch: the finished one, for the message.
        """
        found = non_finite([*self.variables, *self.optimizer.variables])
        if found:
            raise NonFiniteVariableError(epoch, found)

    def _statistics(self):
        """Variables that layers move in training without a gradient, each replica its own."""
        layers = _keras.all_layers(self)
        frozen = {id(v) for layer in layers if not layer.trainable for v in layer.variables}
        return [
            v
            for v in self.non_trainable_variables
            if v.aggregation == "none" and v.dtype.startswith("float") and id(v) not in frozen
        ]

    def _make_function(self, step_function):
        # Keras averages the logs of several workers along an axis that scalars do not have.
        if not has_workers(self.distribute_strategy):
            return super()._make_function(step_function)
        names = []

        def as_row(data):
            logs = step_function(data)
            names[:] = logs
            return tf.stack([tf.cast(value, "float32") for value in logs.values()])[tf.newaxis]

        function = super()._make_function(as_row)
        return lambda iterator: dict(zip(names, tf.unstack(function(iterator)), strict=True))

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # All variables exist before a step is traced: one that makes some is traced once more.
        if _keras.strategy_of(self) is None:
            if iterator is None or self.run_eagerly:
                return
            data_batch = _keras.batch_specification(iterator)
            if not all(map(_has_rank, keras.tree.flatten(data_batch))):
                return
            read = tf.function(self._read).get_concrete_function(data_batch)
            data_batch = read.structured_outputs
        else:
            # Keras averages a batch over the replicas here to learn its shapes, which fails where
            # the first batch does not divide evenly; one replica's part tells as much.
            if iterator is not None:
                _, _, batches = next(iter(iterator))
                data_batch = keras.tree.map_structure(
                    lambda v: v.values[0] if isinstance(v, tf.distribute.DistributedValues) else v,
                    next(batches),
                )
            data_batch = self._read(data_batch)
        with self.distribute_strategy.scope():
            x, y, sample_weight = data_batch
            _keras.build(self, keras.utils.pack_x_y_sample_weight(x.images, y, sample_weight))

    # What is stored is the network.

    def save(self, filepath: PathLike, overwrite: bool = True, **kwargs: Any) -> None:
        """Saves the network (`keras.Model.save`)."""
        return self.network.save(filepath, overwrite=overwrite, **kwargs)

    def save_weights(self, filepath: PathLike, overwrite: bool = True, **kwargs: Any) -> None:
        """Saves the network's weights."""
        return self.network.save_weights(filepath, overwrite=overwrite, **kwargs)

    def load_weights(self, filepath: PathLike, **kwargs: Any) -> None:
        """Loads weights into the network."""
        return self.network.load_weights(filepath, **kwargs)

    def export(self, filepath: PathLike, **kwargs: Any) -> None:
        """Exports the network (`keras.Model.export`)."""
        return self.network.export(filepath, **kwargs)

    def summary(self, **kwargs: Any) -> None:
        """Prints the network's summary."""
        return self.network.summary(**kwargs)


class _StopOnNonFinite(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.model._epochs.assign(self.params["epochs"])

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.model._epoch.assign(epoch)
        self.model._non_finite.assign([-1, -1])
        self.model._epoch_step.assign(0)

    def on_train_batch_end(self, batch, logs=None):
        # `batch` is the last of the steps that were executed at once.
        if batch % _UNWATCHED_STEPS < self.model.steps_per_execution:
            self.model.check_step(self.epoch)

    def on_test_begin(self, logs=None):
        self.model.check_step(self.epoch)  # no evaluation of what went wrong

    def on_epoch_end(self, epoch, logs=None):
        self.model.check_step(epoch)
        self.model.check_variables(epoch)


class _AverageStatistics(keras.callbacks.Callback):
    """Gives every replica the mean of all replicas' moving statistics, before they are read.

    In Keras 3 each replica keeps its own, so that workers validate and save different networks. An
    average of moving averages is the moving average of averages: once an epoch is as good as at
    each step.
    """

    def on_train_begin(self, logs=None):
        self._averaged, self._run = [], lambda: None

    def _average(self):
        strategy = self.model.distribute_strategy
        if strategy.num_replicas_in_sync == 1:
            return
        variables = self.model._statistics()
        if [v.path for v in variables] != self._averaged:  # layers may freeze between two epochs
            self._averaged = [v.path for v in variables]
            self._run = self._averaging(strategy, variables)
        self._run()

    def _averaging(self, strategy, variables):
        def average():
            # A variable's value itself is on no device, where a sum over workers cannot be.
            sums = _sum_over_replicas([tf.identity(v.value) for v in variables])
            for variable, total in zip(variables, sums, strict=True):
                variable.assign(total / strategy.num_replicas_in_sync)

        @tf.function(autograph=False)
        def on_every_replica():
            if variables:
                strategy.run(average)

        return on_every_replica

    def on_test_begin(self, logs=None):
        self._average()

    def on_epoch_end(self, epoch, logs=None):
        self._average()


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


def _has_rank(specification):
    return isinstance(specification, tf.TensorSpec) and specification.shape.rank is not None


def _sum_over_replicas(values):
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, values)


def _replica_id(context):
    return tf.cast(context.replica_id_in_sync_group, "int32")


def constant(values: Tensor) -> Tensor:
    """What a teacher says, as float32 without a gradient."""
    return tf.stop_gradient(tf.cast(values, "float32"))
