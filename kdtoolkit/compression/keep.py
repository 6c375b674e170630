"""Zeros of a network that stay zero while its like is trained further."""

from collections.abc import Callable

import keras
import tensorflow as tf

from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit._types import Logs, Network
from kdtoolkit.compression.layers import kernels
from kdtoolkit.models.graph import flatten
from kdtoolkit.training.step import Trainer


class Masking(keras.callbacks.Callback):
    """Masks weights, by `_apply`, after every training step, and whatever replaces them at the end.

    Raises:
        ValueError: in `fit`, where several steps are one execution.
    """

    _apply: Callable[[], object]

    def on_train_begin(self, logs: Logs = None) -> None:
        if self.model.steps_per_execution > 1:
            accepted = "1: weights are masked between the steps"
            received = self.model.steps_per_execution
            raise ArgumentError("steps_per_execution", accepted, received)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._run(self._apply)

    def on_train_end(self, logs: Logs = None) -> None:
        self._run(self._apply)  # An optimizer's moving average may just have replaced the weights.

    def _run(self, function):
        # In the scope, not on every replica: an assignment there would be a mean over all of them.
        with self.model.distribute_strategy.scope():
            function()


class KeepZeros(Masking):
    """Keeps the zeros of a pruned network in a network with the same layers, such as its
    quantisation-aware copy.

    Weights are masked after every training step, in place: no wrappers, nothing to strip.
    `steps_per_execution` above 1 is refused, as by `MagnitudePruning`.

    Args:
        pruned: built Keras model; where its kernels are zero, those of the trained network stay so.

    Raises:
        ValueError: in `fit`, the trained network has no such layer, or one of another shape, or
            several steps are one execution.
    """

    def __init__(self, pruned: Network) -> None:
        super().__init__()
        arrays = {name: keras.ops.convert_to_numpy(k) for name, k in _kernels(pruned).items()}
        self._masks = {name: array != 0 for name, array in arrays.items() if not array.all()}

    def on_train_begin(self, logs: Logs = None) -> None:
        super().on_train_begin(logs)
        network = self.model.network if isinstance(self.model, Trainer) else self.model
        found = _kernels(network)
        for name, mask in self._masks.items():
            if name not in found or tuple(found[name].shape) != mask.shape:
                received = Words(f"{name!r} of shape {mask.shape}")
                accepted = f"the layers of {network.name!r}"
                raise ArgumentError("pruned", accepted, received, must="have")
        pairs = [(found[name], tf.constant(mask)) for name, mask in self._masks.items()]

        @tf.function(autograph=False)
        def apply():
            for kernel, mask in pairs:
                kernel.assign(tf.where(mask, kernel.value, tf.zeros_like(kernel.value)))

        self._apply = apply


def _kernels(network):
    """As `kernels`, named as in the flat network that a quantisation-aware one is."""
    return kernels(flatten(network) if getattr(network, "inputs", None) else network)
