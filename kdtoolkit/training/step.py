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
from kdtoolkit.models.contract import check_logits
from kdtoolkit.training.checks import (
    check_callbacks,
    check_images,
    check_labels,
    check_optimizer,
)
from kdtoolkit.training.distribution import has_workers
from kdtoolkit.training.finiteness import NonFiniteRecord, StopOnNonFinite
from kdtoolkit.training.fused import Untracked, fused
from kdtoolkit.training.replicas import (
    AverageStatistics,
    gather,
    global_batch,
    global_mean,
    sum_over_replicas,
    uniform,
)


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
        self._non_finite = NonFiniteRecord(self.add_weight, self.term_names, self._classes)
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
        self._non_finite.end_step()
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
        callbacks = [AverageStatistics(), _TellEpoch(), StopOnNonFinite(self._non_finite), *others]
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

    def batch(self, labels: Tensor, student: Outputs, teacher: Outputs) -> Batch:
        """What a method is given: a `kdtoolkit.methods.Batch` of two `Outputs`."""
        return Batch(
            labels,
            student,
            teacher,
            mean=global_mean,
            gather=gather,
            uniform=lambda like: uniform(like, self.seed, self.optimizer.iterations),
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
            self._non_finite.record(images, y, terms, regularization)
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        return tf.reduce_sum(per_sample) / global_batch(per_sample) + regularization / replicas

    @property
    def _classes(self):
        return self.network.outputs[0].shape[-1]

    def _read(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        return Examples.of(x if self._reader is None else self._reader(x)), y, sample_weight

    def _summed(self, gradients, variables):
        present = [g for g in gradients if g is not None]
        if not present:
            raise ValueError("The loss does not depend on any trainable variable of the network.")
        present = iter(sum_over_replicas([tf.convert_to_tensor(g) for g in present]))
        summed = [None if g is None else next(present) for g in gradients]
        if not self.weight_decay:
            return summed
        return [
            g if g is None else g + self.weight_decay * tf.cast(variable.value, g.dtype)
            for g, variable in zip(summed, variables, strict=True)
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


class _TellEpoch(keras.callbacks.Callback):
    """Tells the step which epoch it is in, of how many."""

    def on_train_begin(self, logs=None):
        self.model._epochs.assign(self.params["epochs"])

    def on_epoch_begin(self, epoch, logs=None):
        self.model._epoch.assign(epoch)


def _has_rank(specification):
    return isinstance(specification, tf.TensorSpec) and specification.shape.rank is not None


def constant(values: Tensor) -> Tensor:
    """What a teacher says, as float32 without a gradient."""
    return tf.stop_gradient(tf.cast(values, "float32"))
