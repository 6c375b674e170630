"""Magnitude pruning as a callback, for any Keras 3 `fit()`."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from kdtoolkit._checks import BELOW_1, ArgumentError, Interval, OneOf, Words, check
from kdtoolkit._types import Logs, Network, Tensor
from kdtoolkit.compression import schedules
from kdtoolkit.compression.keep import Masking
from kdtoolkit.compression.layers import by_pattern, choose, kernel, zeros
from kdtoolkit.compression.masks import Masks, check_groups, update_by_magnitude, update_groups
from kdtoolkit.compression.options import SCOPES
from kdtoolkit.training.step import Trainer


class MagnitudePruning(Masking):
    """Prunes the smallest weights of a network while it trains, on TFMOT's engine.

    Works with every trainer of kdtoolkit, whose `network` is pruned, and with every other compiled
    Keras 3 model, which is pruned itself. There are no wrappers: layers stay what they are, and
    pruned weights are exactly zero after every training step, in what callbacks see after this one,
    and in every file. Nothing is left to strip.

    Steps are counted from 1, over all `fit` calls on the same network. Before a step of the
    schedule masks are drawn anew; until the next ones are, a pruned weight is zero after every
    step, whatever the optimizer's momentum does to it. As in TFMOT, masks are drawn from the
    weights as the step before left them: a pruned weight that one step moved far enough comes back.
    `PolynomialDecay` draws its last masks at `end_step`, also where `frequency` would miss it.

    `logs` get `sparsity`, of the pruned layers together, and `sparsity/LAYER` of each, at the end
    of every epoch: place callbacks that write them, such as TensorBoard, after this one.

    Under a `tf.distribute` strategy all replicas have the same masks. `steps_per_execution` above 1
    is refused: a callback has no say between the steps of one execution.

    Masks are state: `variables` holds them once the callback knows its model, and
    `training.Training` stores them with the trainer's own, so that a killed training goes on
    exactly. A network it has not seen starts from nothing: one callback serves several trainings.

    Args:
        schedule: `ConstantSparsity` or `PolynomialDecay`, of `kdtoolkit.compression` or TFMOT.
        layers: name patterns (`"stage3_*"`), types of layers, predicates of a layer, or a sequence
            of them; a layer of a nested model is called `model/layer`, and attention's kernels
            `attention/query` and so on. By default all convolutions and dense layers, attention's
            included, except the first convolution, depthwise ones (few weights, each of which
            counts) and layers of fewer than 10,000 weights that return the network's outputs. Of a
            separable convolution the pointwise kernel is pruned.
        sparsity: name pattern -> final sparsity, for layers that are to end with another than the
            schedule's, whose curve is scaled. The first pattern that matches counts.
        threshold: `"layer"`, the same sparsity in each, or `"global"`: all layers' weights are
            compared with each other, and the sparsity is that of all together.
        structure: `"2:4"` prunes two of four consecutive input channels of dense layers and
            two-dimensional convolutions. `2 * sparsity` of the groups are pruned, first those that
            lose least: a schedule that ends at 0.5 ends with all of them.

    Raises:
        ValueError: an argument is outside its range, the layers do not fit, or the training ends
            before the schedule does; raised before a weight is changed, by `fit` at the latest.
    """

    def __init__(
        self,
        schedule: schedules.ConstantSparsity | schedules.PolynomialDecay,
        *,
        layers: Any = None,
        sparsity: Mapping[str, float] | None = None,
        threshold: str = "layer",
        structure: str | None = None,
    ) -> None:
        super().__init__()
        schedules.check(schedule)
        check("threshold", threshold, OneOf(SCOPES))
        if structure not in (None, "2:4"):
            raise ArgumentError("structure", "None or '2:4'", structure)
        if threshold == "global" and (sparsity or structure):
            accepted = "'layer' where layers have a sparsity of their own or a structure"
            hint = f"So they have: sparsity={sparsity!r}, structure={structure!r}"
            raise ArgumentError("threshold", accepted, threshold, hint)
        prunes = BELOW_1 if structure is None else Interval(0, 0.5)
        end = schedules.final_sparsity(schedule)
        if end not in prunes:
            raise ArgumentError("schedule", f"with a sparsity {prunes}", Words(end), must="end")
        for value in (sparsity or {}).values():
            check("sparsity", value, prunes)
        self.schedule = schedule
        self.layers = layers
        self.sparsity = dict(sparsity or {})
        self.threshold = threshold
        self.structure = structure
        self.variables: list[keras.Variable] = []
        self._masks: list[Masks] = []
        self._network = None

    @property
    def masks(self) -> dict[str, Tensor]:
        """Name of a layer -> its mask, a float32 tensor: 1 is kept, 0 is pruned."""
        return {name: mask for m in self._masks for name, mask in m.by_name().items()}

    @property
    def thresholds(self) -> dict[str, float]:
        """Name of a layer -> the least magnitude that is kept.

        With 2:4 the largest sum of two magnitudes that were pruned together; 0 where none were.
        """
        return {name: float(m.threshold.numpy()) for m in self._masks for name in m.by_name()}

    def set_model(self, model: Network) -> None:
        super().set_model(model)
        network = model.network if isinstance(model, Trainer) else model
        if network is self._network:
            return
        chosen = choose(network, self.layers)
        if self.structure:
            check_groups(chosen)
        targets = by_pattern(chosen, self.sparsity, "sparsity")
        with model.distribute_strategy.scope():
            self._create({name: kernel(layer) for name, layer in chosen.items()}, targets)
        self._network = network

    def _create(self, kernels, targets):
        self._kernels = kernels
        self._step = keras.Variable(0, dtype="int64", trainable=False, name="step")
        together = {}  # One call of the engine for all layers that follow the same schedule.
        if self.threshold == "global":
            together[None] = [Masks(kernels)]
        else:
            for name, variable in kernels.items():
                together.setdefault(targets.get(name), []).append(Masks({name: variable}))
        self._masks = [m for masks in together.values() for m in masks]
        self.variables = [self._step, *(v for m in self._masks for v in m.variables)]
        update = update_groups if self.structure else update_by_magnitude
        plan = [
            (masks, schedules.to_its_end(self.schedule, target))
            for target, masks in together.items()
        ]

        def apply():
            for masks in self._masks:
                masks.apply()

        def advance():
            self._step.assign_add(1)
            for masks, schedule in plan:
                update(masks, schedule, self._step.value)
            apply()

        self._apply, self._advance = tf.function(apply), tf.function(advance)

    def on_train_begin(self, logs: Logs = None) -> None:
        super().on_train_begin(logs)
        self._is_checked = False
        self._is_ready = False  # whether the masks are those of the next step

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        steps = self.params.get("steps")
        if steps and not self._is_checked:
            last = int(self._step.numpy()) + (self.params["epochs"] - epoch) * steps
            schedules.check_length(self.schedule, last)
        self._is_checked = True

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        if not self._is_ready:
            self._run(self._advance)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        # TFMOT draws the masks of a step from weights that the step before has moved, except at
        # the start of an epoch: at the end of one, weights are masked for whoever saves them.
        steps = self.params.get("steps")
        self._is_ready = bool(steps) and batch + 1 < steps
        self._run(self._advance if self._is_ready else self._apply)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._is_ready:  # for a step that was called off
            self._step.assign_sub(1)
            self._is_ready = False
        found = zeros({name: [kernel] for name, kernel in self._kernels.items()})
        logs["sparsity"] = found.total
        logs.update({f"sparsity/{name}": value for name, value in found.layers.items()})
