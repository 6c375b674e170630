"""TFMOT's pruning schedules: how sparse, from which step to which."""

import numbers

import tensorflow as tf

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
        raise ValueError(
            "Argument `schedule` must be a ConstantSparsity or a PolynomialDecay. "
            f"Received: schedule={schedule!r}"
        )
    if isinstance(schedule, ConstantSparsity):
        return
    if schedule.end_step <= schedule.begin_step:
        raise ValueError(
            "Argument `schedule` must end after it begins. Received: "
            f"begin_step={schedule.begin_step}, end_step={schedule.end_step}"
        )
    if schedule.initial_sparsity > schedule.final_sparsity:
        raise ValueError(
            "Argument `schedule` must not end less sparse than it begins: what was pruned is gone. "
            f"Received: initial_sparsity={schedule.initial_sparsity}, "
            f"final_sparsity={schedule.final_sparsity}"
        )


def check_sparsity(value, limit, argument):
    """Checks a sparsity.

    Args:
        value: what was received.
        limit: `"[0, 1)"` or `"[0, 0.5]"`.
        argument: the name it has where it was passed.

    Raises:
        ValueError: it is outside its range.
    """
    within = isinstance(value, numbers.Real) and (
        0 <= value < 1 if limit == "[0, 1)" else 0 <= value <= 0.5
    )
    if not within:
        raise ValueError(f"Argument `{argument}` must be in {limit}. Received: {value!r}")


def check_length(schedule, last_step):
    """Checks that a training takes a schedule to its end.

    Raises:
        ValueError: it does not; the message names the steps.
    """
    if max(schedule.begin_step, schedule.end_step) > last_step:
        raise ValueError(
            f"Argument `schedule` must end within the training, whose last step is {last_step}. "
            f"Received: begin_step={schedule.begin_step}, end_step={schedule.end_step}"
        )


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
