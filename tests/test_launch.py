"""Local workers with TF_CONFIG: marked output, the first failure's status, none left behind.

And nobody but they themselves reaches their ports, unless that is asked for.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from kdtoolkit import _network, cli, launch

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

# As TensorFlow's server does, each listens on every interface; and then it meets the others.
MEET = """
import json, os, socket, sys, time
config = json.loads(os.environ["TF_CONFIG"])
ports = [int(address.rpartition(":")[2]) for address in config["cluster"]["worker"]]
server = socket.create_server(("::", ports[config["task"]["index"]]), dualstack_ipv6=True,
                              family=socket.AF_INET6, backlog=9)
print("ports", *ports)
for port in ports:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
print("met")
time.sleep(60)
"""


@pytest.fixture(scope="module")
def isolation():
    try:
        with _network.private():
            pass
    except OSError as error:
        pytest.skip(f"this system lets nobody make a network of his own: {error}")


def own_addresses():
    """Addresses of this machine, the loopback's and the one that it would go out with, if any."""
    yield "127.0.0.1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward:
        try:
            outward.connect(("192.0.2.1", 9))  # of a network for documentation; nothing is sent
        except OSError:
            return
        yield outward.getsockname()[0]


def reached(port):
    for address in own_addresses():
        try:
            socket.create_connection((address, port), timeout=5).close()
        except ConnectionRefusedError:
            yield False
        else:
            yield True


@pytest.mark.parametrize("expose", [False, True])
def test_only_the_workers_reach_each_other(expose, request):
    if not expose:
        request.getfixturevalue("isolation")
    flags = ["--expose"] if expose else []
    process = subprocess.Popen(
        [sys.executable, "-m", "kdtoolkit.cli", "launch", *flags, "--", sys.executable, "-c", MEET],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = [process.stdout.readline().split() for _ in range(4)]
    found = [set(reached(int(port))) for port in lines[0][2:]]
    process.terminate()
    _, error = process.communicate(timeout=20)
    assert sorted(line[1] for line in lines) == ["met", "met", "ports", "ports"]
    assert found == [{expose}, {expose}]
    assert error.count("warning") == expose
    assert ("every interface" in error) == expose


def test_where_no_network_can_be_made_it_refuses(monkeypatch, capfd):
    def private():
        raise PermissionError(1, "unshare: Operation not permitted")

    monkeypatch.setattr(_network, "private", private)
    command = ["launch", "--workers=1", "--", sys.executable, "-c", LISTEN]
    assert cli.main(command) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    for part in ("Operation not permitted", "every interface", "--expose"):
        assert part in line
    assert cli.main(["launch", "--expose", *command[1:]]) == 0
    assert capfd.readouterr().out.startswith("[0] worker 0")


def test_a_network_of_their_own_where_that_is_possible(isolation, monkeypatch):
    def own(enter):
        script = "import os; print(os.readlink('/proc/self/ns/net'))"
        return subprocess.check_output([sys.executable, "-c", script], preexec_fn=enter)

    with _network.where_possible() as enter:
        assert own(enter) == own(enter) != own(None)

    def private():
        raise PermissionError(1, "unshare: Operation not permitted")

    monkeypatch.setattr(_network, "private", private)
    with _network.where_possible() as enter:
        assert enter is None
    with pytest.raises(OSError, match="of its own"), _network.where_possible():
        raise OSError("of its own")


def test_each_worker_knows_all(capfd):
    status = cli.main(["launch", "--workers=3", "--expose", "--", sys.executable, "-c", LISTEN])
    assert status == 0
    lines = sorted(capfd.readouterr().out.splitlines())
    assert [line[:12] for line in lines] == [f"[{k}] worker {k}" for k in range(3)]
    addresses = {line[13:] for line in lines}
    assert len(addresses) == 1
    ports = {address.rpartition(":")[2] for address in addresses.pop().split()}
    assert len(ports) == 3


def test_the_first_failure_ends_all(monkeypatch):
    monkeypatch.setattr(launch, "_GRACE", 0.1)
    assert launch.run([sys.executable, "-c", FAIL], 2, expose=True) == 7


def test_a_signal_is_a_failure():
    command = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    assert launch.run(command, 1, expose=True) == 128 + signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_no_worker(number):
    command = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "kdtoolkit.cli",
            "launch",
            "--expose",
            "--",
            sys.executable,
            "-c",
            command,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A suite in the background ignores Ctrl-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    workers = [int(process.stdout.readline().split()[1]) for _ in range(2)]
    process.send_signal(number)
    assert process.wait(timeout=20) == 128 + number
    time.sleep(0.1)
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
    _, error = process.communicate()
    words = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
    assert error.splitlines()[1:] == [f"launch: {words[number]}"]  # after the warning


def test_a_command_that_is_none_is_one_line(capsys):
    assert launch.run(["/no/such/command"], 2, expose=True) == 2
    assert "/no/such/command cannot be run" in capsys.readouterr().err.splitlines()[-1]


def test_a_network_that_nobody_can_enter_is_one_line(monkeypatch, capsys):
    def enter():
        raise PermissionError(1, "setns: Operation not permitted")

    monkeypatch.setattr(_network, "private", lambda: contextlib.nullcontext(enter))
    assert launch.run([sys.executable, "-c", LISTEN], 1) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be run" in line


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--workers=0", "--", "true"], "--workers must be at least 1. Received: --workers=0"),
        (["--workers=x", "--", "true"], "--workers: invalid int value: 'x'"),
        ([], "required: COMMAND"),
    ],
)
def test_mistakes_are_one_line(arguments, part, capsys):
    assert cli.main(["launch", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("launch: ") and part in line
