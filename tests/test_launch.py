"""Local workers with TF_CONFIG: marked output, the first failure's status, none left behind."""

import os
import signal
import subprocess
import sys
import time

import pytest

from kdtoolkit import cli, launch

LISTEN = """
import json, os
config = json.loads(os.environ["TF_CONFIG"])
print(config["task"]["type"], config["task"]["index"], *config["cluster"]["worker"])
"""
FAIL = """
import json, os, sys, time
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
if index == 1:
    sys.exit(7)
time.sleep(60)
"""


def test_each_worker_knows_all(capfd):
    status = cli.main(["launch", "--workers=3", "--", sys.executable, "-c", LISTEN])
    assert status == 0
    lines = sorted(capfd.readouterr().out.splitlines())
    assert [line[:12] for line in lines] == [f"[{k}] worker {k}" for k in range(3)]
    addresses = {line[13:] for line in lines}
    assert len(addresses) == 1
    ports = {address.rpartition(":")[2] for address in addresses.pop().split()}
    assert len(ports) == 3


def test_the_first_failure_ends_all(monkeypatch):
    monkeypatch.setattr(launch, "_GRACE", 0.1)
    assert launch.run([sys.executable, "-c", FAIL], 2) == 7


def test_a_signal_is_a_failure():
    command = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    assert launch.run(command, 1) == 128 + signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_no_worker(number):
    command = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-m", "kdtoolkit.cli", "launch", "--", sys.executable, "-c", command],
        stdout=subprocess.PIPE,
        text=True,
        # A suite in the background ignores Ctrl-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    workers = [int(process.stdout.readline().split()[1]) for _ in range(2)]
    process.send_signal(number)
    assert process.wait(timeout=20) == 130
    time.sleep(0.1)
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
    process.stdout.close()


def test_a_command_that_is_none_is_one_line(capsys):
    assert launch.run(["/no/such/command"], 2) == 2
    assert capsys.readouterr().err.count("\n") == 1
