"""Processes that benchmarks drive through pipes, and a `fit` that is let on step by step."""

import contextlib
import os

import keras
import numpy as np
import pytest

from benchmarks import processes
from benchmarks.measure import Contender, interleave
from benchmarks.paced_fit import paced

HERE = "tests.benchmarks.functions"


def test_a_process_has_no_variables_of_tensorflow_but_those_given(monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    monkeypatch.setenv("KDTOOLKIT_TEST_OTHER", "kept")
    names = ["TF_ENABLE_ONEDNN_OPTS", "TF_GIVEN", "KDTOOLKIT_TEST_OTHER"]
    found = processes.call(f"{HERE}:variables", {"names": names}, {"TF_GIVEN": "2"})
    assert found == dict(zip(names, [None, "2", "kept"], strict=True))


def test_what_fails_is_left_out_with_its_reason():
    def contender(name, function):
        return Contender(name, lambda: processes.Remote(f"{HERE}:{function}", {"last": 99}, [{}]))

    with contextlib.ExitStack() as stack:
        runs, seconds, failures = processes.start(
            [contender("bad", "failing"), contender("good", "remembering")],
            at_once=1,
            stack=stack,
        )
        timings = interleave(processes.started(runs), steps=2, rounds=3)
        assert runs.keys() == seconds.keys() == timings.keys() == {"good"}
        assert failures == {"bad": "ValueError: no such thing"}
        assert len(timings["good"]) == 3
        assert runs["good"].peak >= runs["good"].before > 0


def test_every_process_of_a_contender_takes_its_steps():
    run = processes.Remote(f"{HERE}:remembering", {"last": 4}, [{}, {}])
    run(4)
    with pytest.raises(processes.ProcessFailed, match="ValueError: 6 steps"):
        run(2)


def test_a_paused_contender_stands_still_between_its_steps():
    run = processes.Remote(f"{HERE}:remembering", {"last": 4}, [{}], paused=True)
    (process,) = run._processes
    for _ in range(2):
        run(1)
        os.waitid(os.P_PID, process._process.pid, os.WSTOPPED)
    run.close()
    assert process._process.returncode == 0


@pytest.mark.parametrize("several", [False, True])
def test_several_processes_enter_one_network(several, tmp_path, monkeypatch):
    """Whether one can be made is for the system to say: here it is a file that they write to."""
    entered = tmp_path / "entered"

    @contextlib.contextmanager
    def network():
        def enter():
            with open(entered, "a") as file:
                file.write("in\n")

        yield enter
        entered.rename(tmp_path / "left")

    monkeypatch.setattr(processes, "where_possible", network)
    run = processes.Remote(f"{HERE}:remembering", {"last": 4}, [{}] * (1 + several))
    assert entered.exists() == several
    run.close()
    assert (tmp_path / "left").exists() == several
    assert not several or (tmp_path / "left").read_text() == 2 * "in\n"


def test_fit_takes_as_many_steps_as_it_is_told():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    images, labels = np.ones((6, 2)), np.ones((6, 1))
    run = paced(
        lambda pace: model.fit(
            images, labels, batch_size=2, epochs=100, callbacks=[pace], verbose=0
        )
    )
    taken = []
    for steps in (1, 2, 5):  # over the end of an epoch of three
        run(steps)
        taken.append(int(model.optimizer.iterations))
    assert taken == [1, 3, 8]


def test_an_error_of_fit_is_raised_by_run():
    def fit(pace):
        raise ValueError("no data")

    with pytest.raises(ValueError, match="no data"):
        paced(fit)(1)
