"""The workers of a training on several machines, as the environment names them."""

import json
import os
from dataclasses import dataclass

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker")
"""Names of `kdtoolkit.training.distribution.strategy`."""

_JOBS = ("chief", "worker")


@dataclass(frozen=True)
class Cluster:
    """The workers that train together, and which of them this process is.

    Attributes:
        addresses: job -> `host:port` of its tasks; the jobs are `chief`, of one task, and `worker`.
            None: of the workers of a Slurm step, which TensorFlow finds.
        job, task: of this process.
        workers: how many there are, the chief included.
    """

    addresses: dict[str, list[str]] | None
    job: str
    task: int
    workers: int

    @property
    def is_chief(self) -> bool:
        """Whether this is the worker that writes: the chief, or else the first one."""
        return self.task == 0 and (self.job == "chief" or "chief" not in (self.addresses or {}))


def of_strategy(name: str) -> Cluster | None:
    """Returns the workers of a strategy by name; None where a process trains alone.

    Args:
        name: of `training.distribution.STRATEGIES`; `"auto"` is several workers where `TF_CONFIG`
            names them, `"multi_worker"` also under Slurm.

    Raises:
        ValueError: the environment does not say which workers there are, or not rightly.
    """
    if name not in ("auto", "multi_worker"):
        return None
    found = _from_tf_config()
    if name == "auto":
        return found if found and found.workers > 1 else None
    found = found or _from_slurm()
    if found is None:
        raise ValueError(
            "the environment must name the workers for multi_worker: TF_CONFIG as "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}, '
            "or the SLURM_* variables of a step with several tasks; `kdtoolkit launch` sets "
            "TF_CONFIG for workers on one machine. Received: neither"
        )
    return found


def is_chief(name: str) -> bool:
    """Whether this process writes what a run under a strategy of that name leaves."""
    found = of_strategy(name)
    return found is None or found.is_chief


def _from_tf_config():
    text = os.environ.get("TF_CONFIG", "").strip()
    if not text:
        return None
    try:
        config = json.loads(text)
        if not config.get("cluster"):
            return None  # of a single machine, as some platforms set it
        addresses = dict(config["cluster"])
        job, task = config["task"]["type"], int(config["task"]["index"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            'the environment variable TF_CONFIG must be JSON of a "cluster" and a "task" with '
            f'"type" and "index" ({type(error).__name__}: {error}). Received: {text[:200]}'
        ) from error
    for name, tasks in addresses.items():
        if not isinstance(tasks, list):  # text would be a worker a letter
            raise ValueError(
                "the environment variable TF_CONFIG must name an array of host:port for each job. "
                f"Received for {name}: {json.dumps(tasks)}"
            )
    foreign = sorted(set(addresses) - set(_JOBS))
    if foreign or len(addresses.get("chief", "1")) != 1:
        raise ValueError(
            "the environment variable TF_CONFIG must name workers, and a chief at most. "
            f"Received: {', '.join(f'{len(t)} of {j}' for j, t in sorted(addresses.items()))}"
        )
    if not 0 <= task < len(addresses.get(job, ())):
        raise ValueError(
            'the environment variable TF_CONFIG must name a "task" of its "cluster". '
            f"Received: {job} {task}"
        )
    return Cluster(addresses, job, task, sum(map(len, addresses.values())))


def _from_slurm():
    try:
        tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
        return (
            Cluster(None, "worker", int(os.environ["SLURM_PROCID"]), tasks) if tasks > 1 else None
        )
    except (KeyError, ValueError) as error:
        raise ValueError(
            "the environment variables SLURM_PROCID and SLURM_STEP_NUM_TASKS must be numbers. "
            f"Received: {type(error).__name__}: {error}"
        ) from error
