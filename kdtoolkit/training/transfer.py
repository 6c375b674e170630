"""Trained networks on new classes: their head first, then all of them, the backbone at its rate."""

from collections.abc import Iterable
from dataclasses import dataclass

import keras

from kdtoolkit import _keras
from kdtoolkit._checks import POSITIVE, ArgumentError, Integers, check
from kdtoolkit.models.exits import backbone
from kdtoolkit.training.schedules import Schedule
from kdtoolkit.training.step import Trainer


@dataclass(frozen=True)
class Transfer:
    """How a network is trained that starts from trained weights, but for its head.

    The head is what makes logits of features: the last layer, and all of an exit's. The backbone
    is every other layer of the network. What a method trains beside the network, such as a
    projector, is as new as the head.

    Attributes:
        freeze_epochs: epochs, the first ones, in which the head alone is trained: no weight of
            the backbone moves, and its batch normalisation is that of inference. May be all of
            them.
        backbone_learning_rate: the first learning rate of the backbone, which drops when that of
            the head does; None for the same.

    Raises:
        ArgumentError: one is outside its range.
    """

    freeze_epochs: int = 0
    backbone_learning_rate: float | None = None

    def __post_init__(self) -> None:
        check("freeze_epochs", self.freeze_epochs, Integers(0))
        if self.backbone_learning_rate is not None:
            check("backbone_learning_rate", self.backbone_learning_rate, POSITIVE)

    def check_epochs(self, epochs: int) -> None:
        """Raises an `ArgumentError` if more epochs are frozen than there are."""
        if self.freeze_epochs > epochs:
            accepted = f"at most the number of epochs, {epochs}"
            raise ArgumentError("freeze_epochs", accepted, self.freeze_epochs)

    def optimizer(
        self, schedule: Schedule, trainer: Trainer, epochs: int, steps_per_epoch: int
    ) -> keras.optimizers.Optimizer:
        """Returns the schedule's optimizer, with a rate of their own for a backbone's variables.

        Args:
            schedule, epochs, steps_per_epoch: as of `Schedule.optimizer`.
            trainer: of the network.
        """
        usual = schedule.optimizer(epochs, steps_per_epoch)
        if self.backbone_learning_rate is None:
            return usual
        optimizer = _TwoRates.from_config(usual.get_config())
        slow = [v for layer in _backbones(trainer) for v in layer.trainable_variables]
        optimizer.scale(slow, self.backbone_learning_rate / schedule.learning_rate)
        return optimizer

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Returns what freezes the backbone, to be called before other callbacks."""
        return [_Freeze(self.freeze_epochs)] if self.freeze_epochs else []


def _backbones(trainer):
    """The layers of the backbones of all networks that a trainer trains."""
    return [layer for network in trainer.networks for layer in backbone(network)]


class _TwoRates(keras.optimizers.SGD):
    """SGD whose learning rate is multiplied by a factor for some variables.

    Not a factor of their gradients: weight decay and momentum see the rate too, and clipping does
    not. Keras' `MultiOptimizer` would clip, and count its steps, in two parts.
    """

    def scale(self, variables: Iterable[keras.Variable], factor: float) -> None:
        """Says, before the optimizer is built, which variables have which factor."""
        self._scaled = frozenset(map(id, variables))
        self._factor = factor

    def build(self, variables):
        if not self.built:
            self._places = frozenset(k for k, v in enumerate(variables) if id(v) in self._scaled)
        super().build(variables)

    def update_step(self, gradient, variable, learning_rate):
        if _keras.place_of(variable, self) in self._places:
            learning_rate = learning_rate * self._factor
        super().update_step(gradient, variable, learning_rate)


class _Freeze(keras.callbacks.Callback):
    """Keeps the backbone from being trained for some epochs.

    What is trained is a function of the epoch alone, so that a training that goes on after an
    interruption needs no state of it. The optimizer has been built for all variables: those of the
    backbone begin with momenta of zero when their first epoch comes.
    """

    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def set_model(self, model):
        super().set_model(model)
        layers = {inner for layer in _backbones(model) for inner in _keras.all_layers(layer)}
        # Setting one sets what is inside it, some of it frozen for good: that comes after it.
        layers = sorted(layers, key=lambda layer: -len(_keras.all_layers(layer)))
        self.trainable = {layer: layer.trainable for layer in layers}

    def on_train_begin(self, logs=None):
        optimizer = self.model.optimizer
        if not optimizer.built:  # Keras builds it of what is trained in the first step
            optimizer.build(self.model.trainable_variables)

    def on_epoch_begin(self, epoch, logs=None):
        self._train(epoch >= self.epochs)

    def on_train_end(self, logs=None):
        self._train(True)  # a saved network can be trained, whatever was frozen here

    def _train(self, trained):
        wanted = {layer: trained and own for layer, own in self.trainable.items()}
        if all(layer.trainable == value for layer, value in wanted.items()):
            return
        for layer, value in wanted.items():
            layer.trainable = value
        self.model.make_train_function(force=True)  # a traced step does what it was traced for
