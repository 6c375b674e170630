"""The papers' training schedules, scaled to any number of epochs.

This module is plain data and arithmetic: command lines take their defaults from it before Keras is
imported.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdtoolkit._checks import positive_integer

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Schedule:
    """SGD with momentum and a learning rate that drops in steps.

    Attributes:
        epochs: length for which the drops are stated.
        batch_size: global.
        learning_rate: the first one.
        drops: epochs after which the learning rate is divided by ten.
        momentum: of SGD.
        weight_decay: coupled L2.
        nesterov: whether the momentum is Nesterov's kind.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    drops: tuple[int, ...]
    momentum: float = 0.9
    weight_decay: float = 1e-4
    nesterov: bool = True

    def length(self, epochs: int | None, batch_size: int | None) -> tuple[int, int]:
        """Returns how long a run is, this schedule's own `epochs` and `batch_size` where None.

        Raises:
            ArgumentError: one of them is no integer of at least 1.
        """
        return (
            positive_integer("epochs", epochs, self.epochs),
            positive_integer("batch_size", batch_size, self.batch_size),
        )

    def drop_steps(self, epochs: int, steps_per_epoch: int) -> tuple[int, ...]:
        """Optimizer steps after which the rate drops when the run is scaled to `epochs`."""
        return tuple(round(drop / self.epochs * epochs * steps_per_epoch) for drop in self.drops)

    def learning_rates(self) -> tuple[float, ...]:
        """The learning rate before each drop and after the last."""
        return tuple(self.learning_rate / 10**drop for drop in range(len(self.drops) + 1))

    def optimizer(self, epochs: int, steps_per_epoch: int) -> "keras.optimizers.Optimizer":
        """Returns the Keras optimizer of a run of `epochs`."""
        import keras

        # Keras keeps a value up to and including its boundary, and counts steps from 0.
        boundaries = [step - 1 for step in self.drop_steps(epochs, steps_per_epoch)]
        rate = keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, self.learning_rates())
        return keras.optimizers.SGD(rate, momentum=self.momentum, nesterov=self.nesterov)


SCHEDULES = {
    # Yang et al. 2019, section 4.
    "cifar_resnet": Schedule(epochs=164, batch_size=128, learning_rate=0.1, drops=(82, 123)),
    "densenet": Schedule(epochs=300, batch_size=64, learning_rate=0.1, drops=(150, 225)),
    "imagenet": Schedule(epochs=100, batch_size=1024, learning_rate=0.6, drops=(30, 60, 90)),
    # Public code of Zhang et al. 2019.
    "self_distillation": Schedule(
        epochs=200, batch_size=128, learning_rate=0.1, drops=(75, 130, 180), weight_decay=5e-4
    ),
    # The field's benchmark of distillation methods on CIFAR-100.
    "distillation": Schedule(
        epochs=240, batch_size=64, learning_rate=0.05, drops=(150, 180, 210), weight_decay=5e-4
    ),
    # Its students ShuffleNet and MobileNetV2.
    "distillation_mobile": Schedule(
        epochs=240, batch_size=64, learning_rate=0.01, drops=(150, 180, 210), weight_decay=5e-4
    ),
    # Chosen here: a tenth of a training, from the rate with which trainings end.
    "fine_tuning": Schedule(epochs=20, batch_size=128, learning_rate=0.01, drops=(10, 15)),
    # Chosen here on validation images, for the embedded 1,797 digits.
    "digits": Schedule(epochs=40, batch_size=64, learning_rate=0.1, drops=(20, 30)),
}
