"""TFMOT's pruning schedules: how sparse, from which step to which."""

import tensorflow as tf

from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit.compression._tfmot import ConstantSparsity as ConstantSparsity
from kdtoolkit.compression._tfmot import PolynomialDecay as PolynomialDecay


def final_sparsity(schedule):
    """The sparsity that a schedule ends with."""
    if isinstance(schedule, PolynomialDecay):
        return schedule.final_sparsity
    return schedule.target_sparsity


def check(schedule):
    """Checks what TFMOT accepts and a training cannot follow.

    Raises:
        ValueError: not one of TFMOT's schedules, or one that ends before it begins or less sparse.
    """
    if not isinstance(schedule, ConstantSparsity | PolynomialDecay):
        raise ArgumentError("schedule", "a ConstantSparsity or a PolynomialDecay", schedule)
    if isinstance(schedule, ConstantSparsity):
        return
    if schedule.end_step <= schedule.begin_step:
        raise ArgumentError("schedule", "after it begins", _steps(schedule), must="end")
    if schedule.initial_sparsity > schedule.final_sparsity:
        accepted = "less sparse than it begins: what was pruned is gone"
        first, last = schedule.initial_sparsity, schedule.final_sparsity
        received = Words(f"initial_sparsity={first}, final_sparsity={last}")
        raise ArgumentError("schedule", accepted, received, must="not end")


def _steps(schedule):
    return Words(f"begin_step={schedule.begin_step}, end_step={schedule.end_step}")


def check_length(schedule, last_step):
    """Checks that a training takes a schedule to its end.

    Raises:
        ValueError: it does not; the message names the steps.
    """
    if max(schedule.begin_step, schedule.end_step) > last_step:
        accepted = f"within the training, whose last step is {last_step}"
        raise ArgumentError("schedule", accepted, _steps(schedule), must="end")


def to_its_end(schedule, target=None):
    """Returns a schedule as the engine calls it: step -> (whether it is time, sparsity).

    `PolynomialDecay` updates every `frequency` steps from its first, and stays short of its final
    sparsity where these steps miss `end_step`: here that is a step of its own.

    Args:
        schedule: one that `check` accepts.
        target: sparsity to end with, for which the whole curve is scaled; None: its own.
    """
    if target is not None:
        schedule = _scaled(schedule, target)

    def call(step):
        due, sparsity = schedule(step)
        if isinstance(schedule, PolynomialDecay):
            due |= tf.equal(step, schedule.end_step)
        return due, sparsity

    return call


def _scaled(schedule, target):
    config = schedule.get_config()["config"]
    if isinstance(schedule, ConstantSparsity):
        return ConstantSparsity(**{**config, "target_sparsity": target})
    final = schedule.final_sparsity
    initial = schedule.initial_sparsity * target / final if final else 0.0
    return PolynomialDecay(**{**config, "initial_sparsity": initial, "final_sparsity": target})
