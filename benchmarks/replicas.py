"""Training on several replicas: the same global batch through the whole of `fit`, pipeline too."""

import json
import os

from benchmarks import step_time
from benchmarks.measure import Contender, cores
from benchmarks.paced_fit import paced
from benchmarks.processes import Remote

BASELINE = "one device"
_STEPS = 10**9
_EPOCHS = 10**6


def contenders(arguments, variables, gpus):
    """Returns the contenders, of processes of their own.

    Args:
        arguments: of `step_time.parse`, as a dict.
        variables: the environment of each process.
        gpus: how many to scale over; with none, over two logical CPUs and two workers.
    """

    def contender(name, strategy, *environments, logical_cpus=1):
        given = {**arguments, "strategy": strategy, "logical_cpus": logical_cpus}
        settings = [{**variables, **environment} for environment in environments]
        return Contender(name, lambda: Remote("benchmarks.replicas:trainer", given, settings))

    if gpus:
        rows = [contender(BASELINE, "one_device", _visible(1))]
        counts = [2**power for power in range(1, gpus.bit_length()) if 2**power < gpus]
        return rows + [
            contender(f"{count} GPUs, MirroredStrategy", "mirrored", _visible(count))
            for count in (*counts, *([gpus] if gpus > 1 else []))
        ]
    few = {"TF_NUM_INTRAOP_THREADS": str(threads(workers=2))}
    return [
        contender(BASELINE, "one_device", {}),
        contender("2 logical CPUs, MirroredStrategy", "mirrored", {}, logical_cpus=2),
        contender("2 workers", "multi_worker", *({**few, **each} for each in _cluster(2))),
    ]


def trainer(arguments):
    """Returns `run` of `fit` under a strategy, in a process that does nothing else."""
    import tensorflow as tf

    from kdtoolkit.training import Patriarch, compute, distribution

    if arguments.logical_cpus > 1:
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * arguments.logical_cpus,
        )
    strategy = distribution.strategy(arguments.strategy)
    chosen = compute.choose(replicas=strategy.num_replicas_in_sync, precision=arguments.precision)
    split = step_time.split(arguments)
    with strategy.scope():
        with chosen.policy():
            network = step_time.network(arguments)
        model = Patriarch(network, "plain", weight_decay=step_time.SGD["weight_decay"])
        optimizer = step_time.keras_sgd(weight_decay=None)
        model.compile(optimizer, metrics=["accuracy"], **chosen.compile_options())
    return paced(
        lambda pace: model.fit(
            split.epochs(arguments.batch_size, seed=0, epochs=_EPOCHS),
            steps_per_epoch=_STEPS,
            shuffle=False,
            callbacks=[pace],
            verbose=0,
        )
    )


def threads(workers):
    """Number of threads of each of several workers on this machine."""
    return max(1, cores() // workers)


def _visible(count):
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else [str(number) for number in range(count)]
    return {"CUDA_VISIBLE_DEVICES": ",".join(names[:count])}


def _cluster(workers):
    """The environments of workers on this machine."""
    from kdtoolkit.launch import free_ports

    addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
    tasks = [{"type": "worker", "index": index} for index in range(workers)]
    configs = [{"cluster": {"worker": addresses}, "task": task} for task in tasks]
    return [{"TF_CONFIG": json.dumps(config)} for config in configs]
