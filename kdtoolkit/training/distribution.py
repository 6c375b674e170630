"""Which devices and machines a run uses, and what its workers tell each other."""

import atexit
import contextlib
import functools
import os
import re
import sys

import numpy as np
import tensorflow as tf

from kdtoolkit import cluster
from kdtoolkit._checks import OneOf, check
from kdtoolkit.cluster import STRATEGIES
from kdtoolkit.models.weights import put_weights
from kdtoolkit.training import messages

_PART = 2**28  # bytes of a message that are sent at once


class WorkerLostError(RuntimeError):
    """Another worker ended, or cannot be reached, before the training was done."""


def even_batch_size(count, batch_size, replicas):
    """Returns the largest batch size up to `batch_size` that leaves no replica without an image.

    Keras cannot evaluate or predict a last batch that has fewer images than there are replicas.

    Args:
        count: number of images.
        batch_size: the wanted one.
        replicas: of the strategy; of at most `count`.
    """
    while 0 < count % batch_size < replicas:
        batch_size -= 1
    return batch_size


def strategy(name: str = "auto") -> tf.distribute.Strategy:
    """Returns the `tf.distribute` strategy of that name.

    Args:
        name: `"one_device"`: TensorFlow's default; `"mirrored"`: every GPU, or every logical CPU
            where there is none; `"multi_worker"`: the GPUs, or else the CPU, of every worker that
            the environment names in `TF_CONFIG` or, under Slurm, in `SLURM_*`, which it waits for;
            `"auto"`: multi_worker where `TF_CONFIG` names several workers, else mirrored where
            there is more than one GPU. A multi_worker strategy must be the first thing that a
            process does with TensorFlow, and is the same one in every call.

    Raises:
        ValueError: there is no strategy of that name, or the environment names no workers.
    """
    check("name", name, OneOf(STRATEGIES))
    if cluster.of_strategy(name):
        return _multi_worker(name)
    gpus = tf.config.list_logical_devices("GPU")
    if name == "one_device" or (name == "auto" and len(gpus) < 2):
        return tf.distribute.get_strategy()
    devices = gpus or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


@functools.cache  # a process joins its cluster once
def _multi_worker(name):
    members = cluster.of_strategy(name)
    gpus = len(tf.config.list_physical_devices("GPU"))
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(members.addresses or slurm_addresses(members)),
        task_type=members.job,
        task_id=members.task,
        rpc_layer="grpc",
        num_accelerators={"GPU": gpus},
    )
    kinds = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=kinds.AUTO if gpus else kinds.RING
    )
    with losing_workers():
        return tf.distribute.MultiWorkerMirroredStrategy(resolver, options)


def slurm_addresses(members):
    """Returns where the workers of a Slurm step are.

    Raises:
        ValueError: TensorFlow takes this process for one on another host.
    """
    # As if with a GPU a task, to be let alone: Slurm binds GPUs, and without any TensorFlow fails.
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
        gpus_per_node=members.workers, gpus_per_task=1, auto_set_gpu=False
    )
    addresses = resolver.cluster_spec().as_dict()
    host, node = addresses["worker"][members.task], os.environ.get("SLURMD_NODENAME")
    if node and host.partition(":")[0] != node:
        # TensorFlow sorts hosts by name, node10 before node2; Slurm numbers its tasks otherwise.
        raise ValueError(
            "the environment variable SLURM_STEP_NODELIST must list hosts in alphabetical order "
            f"for TensorFlow; set TF_CONFIG instead. Received: task {members.task} on {node}, "
            f"taken for {host}"
        )
    return addresses


def has_workers(strategy):
    """Whether a strategy spans several processes."""
    return strategy.extended._in_multi_worker_mode()


def is_chief(strategy):
    """Whether this process is the one that writes files."""
    return not has_workers(strategy) or strategy.extended.should_checkpoint


def from_chief(strategy, compute):
    """Calls `compute` on the chief, and returns its value on every worker.

    What workers must agree on, above all what lies on a disk, is read by one of them; no other
    needs to see that disk. All workers have to call this at the same point of their program.

    Args:
        strategy: of the run.
        compute: called without arguments; its value is of those that `messages.encode` takes.

    Returns:
        The value; where there are several workers its tuples are lists.

    Raises:
        TypeError: the value is of another kind.
        WorkerLostError: another worker ended; on all but the chief also where `compute` raised.
    """
    if not has_workers(strategy):
        return compute()
    content = memoryview(messages.encode(compute()) if is_chief(strategy) else b"")
    with losing_workers():
        # In parts, whose number and size an int32 holds, however long the message is.
        numbers = _sum(strategy, np.array(divmod(len(content), _PART), np.int32))
        whole, rest = map(int, numbers)
        sizes = [_PART] * whole + [rest] * bool(rest)
        parts = [
            _broadcast(strategy, content[index * _PART :][:size], size)
            for index, size in enumerate(sizes)
        ]
    return messages.decode(b"".join(parts))


def _broadcast(strategy, content, size):
    """Bytes of the chief on every worker; the others have none."""
    # Collectives know no bytes: the sum of the chief's integers and the others' zeros.
    words = np.zeros(-(-size // 4), np.int32)
    words.view(np.uint8)[: len(content)] = np.frombuffer(content, np.uint8)
    return _sum(strategy, words).tobytes()[:size]


def chief_first(strategy, make):
    """Calls `make` on the chief, and when that is done on all other workers.

    For large files: where workers see the chief's disk they find them there, and where they do not
    they make their own. All workers have to call this at the same point of their program.

    Args:
        strategy: of the run.
        make: called without arguments; opens the files, or makes them where there are none.

    Returns:
        What `make` returned on this worker.

    Raises:
        WorkerLostError: another worker ended; on all but the chief also where `make` raised.
    """
    value = make() if is_chief(strategy) else None
    from_chief(strategy, lambda: None)
    return value if is_chief(strategy) else make()


def local(network):
    """Returns the network, or a copy that this worker can use without the others."""
    if not has_workers(network.distribute_strategy):
        return network
    copy = type(network).from_config(network.get_config())
    put_weights(copy, network.get_weights())
    return copy


@contextlib.contextmanager
def losing_workers():
    """Turns TensorFlow's errors about another worker into a `WorkerLostError`.

    From then on the process ends with status 1, whenever and for whatever reason it ends.
    """
    try:
        yield
    except tf.errors.OpError as error:
        lost = isinstance(error, tf.errors.UnavailableError | tf.errors.AbortedError)
        if not lost and "Collective ops is aborted" not in error.message:
            raise
        atexit.register(_end)
        who = _lost(error.message, cluster.of_strategy("multi_worker"))
        raise WorkerLostError(
            f"Lost {who}: it ended or cannot be reached. Its own output says why; all workers, "
            "started again, go on from the last saved epoch"
        ) from error


def _end():
    # Not the usual way: now and then TensorFlow waits there for the worker that is lost.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _lost(message, members):
    """Names the worker that an error is about; the message may name this process, or only it."""
    own = (members.job, members.task)
    pairs = re.findall(r"/job:(\w+)/(?:replica:\d+/)?task:(\d+)", message)
    named = [(job, int(task)) for job, task in pairs if (job, int(task)) != own]
    if not named and members.workers == 2 and members.addresses:  # then it is the other one
        tasks = [(job, i) for job, names in members.addresses.items() for i in range(len(names))]
        named = [task for task in tasks if task != own]
    return "{} {}".format(*named[0]) if named else "another worker"


def _sum(strategy, values):
    return strategy.reduce("SUM", tf.constant(values), axis=None).numpy()
