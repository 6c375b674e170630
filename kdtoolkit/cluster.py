"""The workers of a training on several machines, as the environment names them."""

import json
import os
from dataclasses import dataclass

_JOBS = ("chief", "worker")


@dataclass(frozen=True)
class Cluster:
    """The workers that train together, and which of them this process is.

    Attributes:
        addresses: job -> `host:port` of its tasks; the jobs are `chief`, of one task, and `worker`.
        job, task: of this process.
    """

    addresses: dict[str, list[str]]
    job: str
    task: int

    @property
    def workers(self) -> int:
        return sum(map(len, self.addresses.values()))

    @property
    def is_chief(self) -> bool:
        """Whether this is the worker that writes: the chief, or else the first one."""
        return self.task == 0 and self.job == next(j for j in _JOBS if j in self.addresses)


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
        addresses = {job: list(tasks) for job, tasks in config["cluster"].items()}
        job, task = config["task"]["type"], int(config["task"]["index"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            'the environment variable TF_CONFIG must be JSON of a "cluster" and a "task" with '
            f'"type" and "index" ({type(error).__name__}: {error}). Received: {text[:200]}'
        ) from error
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
    return Cluster(addresses, job, task)


def _from_slurm():
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) < 2:
        return None
    from tensorflow.distribute.cluster_resolver import SlurmClusterResolver

    # A GPU a task, to be let alone: Slurm binds GPUs itself, and without any the resolver fails.
    tasks = os.environ["SLURM_STEP_NUM_TASKS"]
    resolver = SlurmClusterResolver(gpus_per_node=int(tasks), gpus_per_task=1, auto_set_gpu=False)
    addresses = resolver.cluster_spec().as_dict()
    host, node = addresses["worker"][resolver.task_id], os.environ.get("SLURMD_NODENAME")
    if node and host.partition(":")[0] != node:
        # TensorFlow sorts hosts by name, node10 before node2; Slurm numbers its tasks otherwise.
        raise ValueError(
            "the environment variable SLURM_STEP_NODELIST must list hosts in alphabetical order "
            f"for TensorFlow; set TF_CONFIG instead. Received: task {resolver.task_id} on {node}, "
            f"taken for {host}"
        )
    return Cluster(addresses, "worker", resolver.task_id)
