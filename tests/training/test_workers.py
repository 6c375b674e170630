"""Two workers over loopback train as one process does, and survive being killed."""

import json
import os
import random
import signal
import socket
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from kdtoolkit import cluster, methods
from kdtoolkit.training import Patriarch, distribution
from tests.processes import Process
from tests.training import small_training
from tests.training.test_methods import Networks
from tests.training.test_step import linear

STARTED = []


def start(*arguments):
    """Two workers, each a process with its output in a pipe."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    processes = []
    for index in range(2):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": addresses}, "task": task})
        command = ("-m", "tests.training.small_training", *arguments)
        processes.append(Process(*command, TF_CONFIG=config))
    STARTED.extend(processes)
    return processes


@pytest.fixture(scope="module", autouse=True)
def ended():
    """No worker outlives the tests, whatever they find."""
    yield
    for process in STARTED:
        process.kill()


def finish(processes):
    for process in processes:
        _, error = process.communicate(timeout=400)
        assert process.returncode == 0, error


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The directory of two workers that nobody interrupts: in turn, they do all that they can."""
    directory = tmp_path_factory.mktemp("steps")
    finish(start("steps", directory))
    return directory


@pytest.fixture(scope="module")
def stepped(whole):
    def load(name):
        return [dict(np.load(whole / f"{name} {task}.npz")) for task in range(2)]

    return load


@pytest.mark.parametrize("synchronized", [True, False])
def test_workers_equal_replicas(stepped, two_replicas, synchronized):
    """Also where each normalises its own share: statistics included, to the last bit."""
    expected = small_training.steps(two_replicas, synchronized)
    for found in stepped("synchronised" if synchronized else "own"):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            # What is logged is summed in another order.
            tolerance = 0 if name.startswith("variable") else 1e-6
            np.testing.assert_allclose(found[name], value, tolerance, tolerance, err_msg=name)


def test_workers_equal_one_process(stepped):
    expected = small_training.steps(tf.distribute.get_strategy(), True)
    for found in stepped("synchronised"):
        for name, value in expected.items():
            tolerance = 1e-6 * np.abs(value).max()
            np.testing.assert_allclose(found[name], value, 0, tolerance, err_msg=name)


@pytest.fixture(scope="module", params=small_training.TRIED)
def contender(request, stepped, two_replicas):
    """What one process, the first of two replicas, and each of two workers end with."""
    one = small_training.contend(tf.distribute.get_strategy(), request.param)
    two = small_training.contend(two_replicas, request.param)
    return request.param, one, two, stepped(request.param)


def test_contenders_have_every_method():
    """Those of this package; a correction is one of a method's."""
    trainers = [make(Networks()) for make in small_training.CONTENDERS.values()]
    chosen = keras.tree.flatten([getattr(trainer, "methods", ()) for trainer in trainers])
    parts = [part for method in chosen for part in (method, *getattr(method, "corrections", ()))]
    own = {n for n in methods.names() if methods.get(n).__module__.startswith("kdtoolkit.")}
    assert own <= {part.name for part in parts}


def test_contenders_on_workers_equal_replicas(contender):
    """Every variable, moving statistics, momenta and masks included: to the last bit.

    Sums of `DIST` and `Standardize` are rewritten by TensorFlow where one graph holds two replicas.
    """
    name, _, expected, workers = contender
    exact = name != small_training.ALL_OTHERS
    for found in workers:
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            # What is logged is summed in another order.
            tolerance = 0 if exact and not name.startswith("logged") else 1e-6
            np.testing.assert_allclose(found[name], value, tolerance, tolerance, err_msg=name)


def test_contenders_on_workers_equal_one_process(contender):
    """Up to 1e-6 of the variable's largest value; a momentum, of the weight that it is added to.

    Sums over the batch are rounded in another order. Where the summands cancel each other, as in a
    gradient, that is more of the sum than of what it changes. What is logged, likewise up to 1e-6,
    of 1 where it is less: a divergence is a sum of larger numbers.
    """
    _, expected, two, workers = contender
    for found in (two, *workers):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            smallest = 1.0 if name.startswith("logged") else 0.0
            scale = np.abs(expected[name.replace("momentum", "weight")]).max(initial=smallest)
            np.testing.assert_allclose(found[name], value, 0, 1e-6 * scale, err_msg=name)


def test_masked_weights_are_zero_on_every_worker(stepped):
    for name in small_training.PRUNED.keys() & set(small_training.TRIED):
        for found in stepped(name):
            masked = [weights for key, weights in found.items() if key.startswith("pruned")]
            assert masked and all(weights.size > 0 and not weights.any() for weights in masked)


def test_moving_statistics_are_the_mean_of_the_replicas(stepped, two_replicas):
    """13 rows are shared 7 and 6; each half moves its statistics from 0 and 1 by a tenth."""
    halves = small_training.X[:7].astype("float64"), small_training.X[7:].astype("float64")
    mean = 0.1 * np.mean([half.mean(axis=0) for half in halves], axis=0)
    variance = 0.9 + 0.1 * np.mean([half.var(axis=0) for half in halves], axis=0)
    replicas = small_training.one_step_of_statistics(two_replicas)
    for found in (replicas, *stepped("statistics")):
        np.testing.assert_allclose(found["mean"], mean, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(found["variance"], variance, rtol=1e-5)


@pytest.mark.skipif(not small_training.ALL, reason="a minute: set KDTOOLKIT_TEST=all")
def test_killed_workers_end_with_the_same_weights(whole, tmp_path):
    """Bit for bit. The one that is left says who is gone, in one line, and ends."""
    killed, moments = tmp_path, random.Random(0)
    for victim in (1, 0):
        processes = start("resume", killed)
        processes[0].stdout.readline()  # it trains
        time.sleep(moments.uniform(0, 2))
        processes[victim].send_signal(signal.SIGKILL)
        _, error = processes[1 - victim].communicate(timeout=300)
        processes[victim].communicate()
        assert processes[1 - victim].returncode == 1, error
        assert f"small_training: Lost worker {victim}: it ended" in error.splitlines()[-1]
    finish(start("resume", killed))
    expected = dict(np.load(whole / "found 0.npz"))
    results = json.loads((whole / "run" / "results.json").read_text())
    for directory, task in ((whole, 1), (killed, 0), (killed, 1)):
        found = dict(np.load(directory / f"found {task}.npz"))
        for name in expected.keys() - {"results"}:
            np.testing.assert_array_equal(found[name], expected[name])
    again = json.loads((killed / "run" / "results.json").read_text())
    assert again["logits"] == results["logits"]
    left = sorted(path.name for path in (killed / "run").iterdir())
    assert left == ["logs", "network.json", "network.keras", "results.json"]


def test_several_steps_at_once_are_refused(two_replicas):
    with two_replicas.scope():
        trainer = Patriarch(linear())
        with pytest.raises(ValueError, match=r"`steps_per_execution` must be 1 .*2 replicas.*=4"):
            trainer.compile("sgd", steps_per_execution=4)


def config(cluster_spec, job="worker", index=0):
    return json.dumps({"cluster": cluster_spec, "task": {"type": job, "index": index}})


@pytest.fixture
def environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith("SLURM_") or name == "TF_CONFIG":
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must name the workers.*TF_CONFIG.*SLURM"),
        ("{", "TF_CONFIG must be JSON.*Received: {"),
        ("[1]", "TF_CONFIG must be JSON"),
        ('{"cluster": {"worker": ["a:1"]}}', "TF_CONFIG must be JSON.*'task'"),
        (config({"worker": "a:1"}), 'an array of host:port .* Received for worker: "a:1"'),
        (config({"worker": ["a:1"], "ps": ["b:1"]}), "must name workers.*1 of ps, 1 of worker"),
        (config({"worker": ["a:1", "b:1"]}, index=2), '"task" of its "cluster".*worker 2'),
    ],
)
def test_errors_name_what_is_wrong_with_the_environment(environment, text, message):
    environment.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match=message) as caught:
        distribution.strategy("multi_worker")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "job", "index", "chief"),
    [
        ({"worker": ["a:1", "b:1"]}, "worker", 0, True),
        ({"worker": ["a:1", "b:1"]}, "worker", 1, False),
        ({"chief": ["a:1"], "worker": ["b:1"]}, "chief", 0, True),
        ({"chief": ["a:1"], "worker": ["b:1"]}, "worker", 0, False),
    ],
)
def test_the_chief_is_the_first_worker_unless_there_is_one(environment, spec, job, index, chief):
    environment.setenv("TF_CONFIG", config(spec, job, index))
    found = cluster.of_strategy("auto")
    assert (found.workers, found.is_chief) == (2, chief)
    assert cluster.is_chief("auto") == chief
    assert cluster.of_strategy("one_device") is None and cluster.is_chief("one_device")


def test_slurm_names_the_workers(environment):
    for name, value in {
        "SLURM_PROCID": "2",
        "SLURM_STEP_NUM_TASKS": "3",
        "SLURM_STEP_NODELIST": "node[1-2]",
        "SLURM_STEP_TASKS_PER_NODE": "2,1",
        "SLURMD_NODENAME": "node2",
    }.items():
        environment.setenv(name, value)
    found = cluster.of_strategy("multi_worker")
    addresses = ["node1:8888", "node1:8889", "node2:8888"]
    assert distribution.slurm_addresses(found) == {"worker": addresses}
    assert (found.workers, found.job, found.task, found.is_chief) == (3, "worker", 2, False)
    assert cluster.of_strategy("auto") is None
    environment.setenv("SLURMD_NODENAME", "node1")
    with pytest.raises(ValueError, match=r"SLURM_STEP_NODELIST.*task 2 on node1, taken for node2"):
        distribution.slurm_addresses(found)


TWO = cluster.Cluster({"worker": ["a:1", "b:1"]}, "worker", 1, 2)
THREE = cluster.Cluster({"chief": ["c:1"], "worker": ["a:1", "b:1"]}, "worker", 1, 3)


@pytest.mark.parametrize(
    ("message", "members", "lost"),
    [
        ("from /job:worker/replica:0/task:0: reset", TWO, "worker 0"),
        ("/job:worker/task:1 of /job:worker/replica:0/task:0", TWO, "worker 0"),
        ("of this process, /job:worker/replica:0/task:1", TWO, "worker 0"),
        ("of this process, /job:worker/replica:0/task:1", THREE, "another worker"),
        ("/job:chief/replica:0/task:0", THREE, "chief 0"),
        ("of nobody", THREE, "another worker"),
    ],
)
def test_the_lost_worker_is_not_this_one(message, members, lost):
    assert distribution._lost(message, members) == lost
