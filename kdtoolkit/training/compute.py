"""How a run computes: the one place that chooses precision, XLA, oneDNN and determinism.

Importing it imports neither TensorFlow nor Keras: oneDNN must be settled before they are imported.
"""

import contextlib
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdtoolkit._checks import ArgumentError, Integers, OneOf, check
from kdtoolkit._machine import cores

PRECISIONS = ("auto", "float32", "bfloat16")
SWITCHES = ("auto", "true", "false")
_ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
_SMALL_DATA = 2**31  # bytes, of the 8 GiB and more that a GPU has; CIFAR-100 has 0.15
_FIRST_WITH_BFLOAT16 = (8, 0)  # compute capability: NVIDIA's Ampere
_BFLOAT16_INSTRUCTIONS = {"avx512_bf16", "amx_bf16"}  # as Linux lists them; oneDNN uses them


@dataclass(frozen=True)
class Device:
    """What a run computes on.

    Attributes:
        name: for people.
        gpu: whether it is a GPU.
        bfloat16: whether it has instructions for bfloat16, and TensorFlow uses them.
    """

    name: str
    gpu: bool = False
    bfloat16: bool = False


@dataclass(frozen=True)
class Compute:
    """How a network is trained on a device; the default leaves everything to Keras.

    Attributes:
        precision: `"float32"`; `"bfloat16"`, in which layers compute on float32 variables, up to
            logits of float32; or None, the policy that Keras is set to.
        xla: whether training is compiled by XLA; None: Keras decides.
        steps_per_execution: training steps between two looks of the host.
        deterministic: whether operations should give the same numbers each time; that is a setting
            of the process, for `tf.config.experimental.enable_op_determinism()`; None: as it is.
        summary: one line for people: the device, what was chosen, and why.
        data_on_device: whether the training images are kept in the device's memory, and augmented
            there.
    """

    precision: str | None = None
    xla: bool | None = None
    steps_per_execution: int = 1
    deterministic: bool | None = None
    summary: str = ""
    data_on_device: bool = False

    def compile_options(self) -> dict[str, Any]:
        """Returns the arguments of `Trainer.compile`."""
        return {
            "jit_compile": "auto" if self.xla is None else self.xla,
            "steps_per_execution": self.steps_per_execution,
        }

    def check_epoch(self, steps: int) -> None:
        """Checks that an epoch can be executed so many steps at once.

        Keras executes whole groups: it would take the steps that are missing from the next epoch,
        which a run that was interrupted between the two does not.

        Args:
            steps: of an epoch.

        Raises:
            ValueError: it cannot.
        """
        if steps % self.steps_per_execution:
            accepted = f"the {steps} steps of an epoch"
            received = self.steps_per_execution
            raise ArgumentError("steps_per_execution", accepted, received, must="divide")

    @contextlib.contextmanager
    def policy(self) -> Iterator[None]:
        """Networks that are built inside compute in `precision`."""
        if self.precision is None:
            yield
            return
        import keras

        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(
            "mixed_bfloat16" if self.precision == "bfloat16" else self.precision
        )
        try:
            yield
        finally:
            keras.config.set_dtype_policy(before)


BY_KERAS = Compute()


def choose(
    device: Device | None = None,
    replicas: int = 1,
    *,
    precision: str = "auto",
    xla: str = "auto",
    steps_per_execution: int = 1,
    data_on_device: str = "auto",
    data_bytes: int | None = None,
    deterministic: str = "auto",
) -> Compute:
    """Returns the `Compute` that is fastest on a device, but for what is asked for.

    That is bfloat16 where the device has instructions for it, else float32; and XLA on a GPU, not
    on a CPU: ResNet-20 was trained at 427 images/s in float32 on a CPU without such instructions,
    at 259 with XLA, and at 32 in bfloat16. On a CPU that has them a step in bfloat16 takes 0.62
    times as long as in float32. Deterministic operations are free on a CPU, and chosen there; on a
    GPU they are slow.

    XLA is for one replica, since compiled replicas cannot sum their gradients, and not for
    deterministic operations, of which Keras compiles none. Data are kept on a GPU where they are
    small and XLA compiles what augments them: a GPU asks for more images a second than two cores
    prepare. On a CPU the pipeline prepares the next batch while this one is trained on.

    Args:
        device: a `Device`; by default this process's.
        replicas: of the strategy.
        precision: one of `PRECISIONS`.
        xla, data_on_device, deterministic: one of `SWITCHES`.
        steps_per_execution: training steps between two looks of the host, positive.
        data_bytes: `bytes_for_device` of the training data.

    Raises:
        ValueError: an argument is none of these; or XLA is asked for with several replicas or
            deterministic operations, several steps at once or data on the device with several
            replicas, or data on the device that cannot be there.
    """
    switches = {"xla": xla, "data_on_device": data_on_device, "deterministic": deterministic}
    check("precision", precision, OneOf(PRECISIONS))
    for switch, value in switches.items():
        check(switch, value, OneOf(SWITCHES))
    check_xla(xla, deterministic)
    check("steps_per_execution", steps_per_execution, Integers(1))
    if xla == "true" and replicas > 1:
        why = f"{replicas} replicas, which cannot sum gradients in compiled code"
        raise ArgumentError("xla", f"auto or false for {why}", xla)
    if steps_per_execution > 1 and replicas > 1:
        accepted = f"1 for {replicas} replicas, a limit of Keras"
        raise ArgumentError("steps_per_execution", accepted, steps_per_execution)
    if data_on_device == "true" and (replicas > 1 or data_bytes is None):
        why = f"{replicas} replicas, each of which would hold all images"
        if data_bytes is None:
            why = "data without `data_bytes`: streamed, or augmented by more than crops"
        raise ArgumentError("data_on_device", f"auto or false for {why}", data_on_device)
    device = device or this_device()
    if precision == "auto":
        precision = "bfloat16" if device.bfloat16 else "float32"
    emulated = precision == "bfloat16" and not device.bfloat16
    pays = device.gpu or emulated  # XLA
    wanted = pays if xla == "auto" else xla == "true"
    # The same for any number of replicas: it is settled before a strategy is made.
    repeatable = not (device.gpu or wanted) if deterministic == "auto" else deterministic == "true"
    compiled = wanted and replicas == 1 and not repeatable
    slow = {True: " (slower here)", False: ""}
    if compiled:
        compiler = "XLA" + slow[not pays]
    elif not wanted:
        compiler = f"no XLA ({'slower' if pays else 'faster'} here)"
    else:
        compiler = f"no XLA ({'deterministic' if repeatable else f'{replicas} replicas'})"
    parts = [precision + slow[emulated], compiler]
    if not device.gpu:
        parts.append("oneDNN " + ("off" if _onednn_is_off() else "on"))
    small = data_bytes is not None and data_bytes <= _SMALL_DATA
    resident = device.gpu and compiled and small
    if data_on_device != "auto":
        resident = data_on_device == "true"
    if resident:
        parts.append("data on the device" + slow[not device.gpu])
    if steps_per_execution > 1:
        parts.append(f"{steps_per_execution} steps at once")
    parts.append("deterministic" + slow[device.gpu] if repeatable else "not deterministic")
    return Compute(
        precision,
        compiled,
        steps_per_execution,
        repeatable,
        f"computing on {device.name}: {', '.join(parts)}",
        resident,
    )


def check_xla(xla, deterministic):
    """Checks that XLA is not asked for together with deterministic operations.

    Args:
        xla, deterministic: one of `SWITCHES`.

    Raises:
        ValueError: it is.
    """
    if xla == deterministic == "true":
        accepted = "auto or false where operations are deterministic, of which Keras compiles none"
        raise ArgumentError("xla", accepted, xla)


def set_onednn(choice="auto"):
    """Switches oneDNN on or off, before TensorFlow is imported.

    By default TensorFlow leaves it off on CPUs without AVX512, where it makes training 1.8 times
    faster.

    Args:
        choice: one of `SWITCHES`; `"auto"` is on, but for an environment that says otherwise.

    Raises:
        ValueError: it is none of them.
    """
    check("choice", choice, OneOf(SWITCHES))
    if choice == "auto":
        os.environ.setdefault(_ONEDNN, "1")
    else:
        os.environ[_ONEDNN] = str(int(choice == "true"))


def this_device():
    """Returns the `Device` of this process: its first GPU, or its CPU."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        name = f"CPU {platform.machine()}, {cores()} cores"
        has_bfloat16 = not _onednn_is_off() and bool(_BFLOAT16_INSTRUCTIONS & _cpu_flags())
        return Device(name, bfloat16=has_bfloat16)
    details = tf.config.experimental.get_device_details(gpus[0])
    name = details.get("device_name", "GPU")
    return Device(
        f"{len(gpus)} x {name}" if len(gpus) > 1 else name,
        gpu=True,
        bfloat16=details.get("compute_capability", (0, 0)) >= _FIRST_WITH_BFLOAT16,
    )


def _onednn_is_off():
    return os.environ.get(_ONEDNN, "1").lower() in ("0", "false")  # as TensorFlow reads it


def _cpu_flags():
    information = Path("/proc/cpuinfo")
    text = information.read_text() if information.exists() else ""
    lines = (line.partition(":") for line in text.splitlines())
    listed = next((v for k, _, v in lines if k.strip() == "flags"), "")
    return set(listed.split())
