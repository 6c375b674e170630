"""Starts several workers of one training on this machine, to try it out."""

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence

from kdtoolkit import _errors, _network
from kdtoolkit._arguments import Parser

_GRACE = 15.0  # Seconds: workers that lost one say so within ten, and then end by themselves.
_OPEN = (
    "TensorFlow's server listens on every interface, whatever its address, and asks nobody who he "
    "is: whoever reaches its port can read and write files as this user"
)


def main(argv: Sequence[str]) -> int:
    """Runs `kdtoolkit launch --workers=N -- COMMAND...` and returns the exit status."""
    parser = Parser(
        prog="kdtoolkit launch",
        description=f"{__doc__} Each gets TF_CONFIG with a free port of the loopback interface. "
        "Lines of output begin with the worker's number. When one fails the others end as well.",
        epilog=f"{_OPEN}. So the workers get a network of their own, which nobody else reaches and "
        "which leads nowhere else: what must be downloaded is downloaded first. On several "
        "machines nothing keeps others out: use a private network.",
    )
    parser.add_argument("--workers", type=int, default=2, help="how many (default: 2)")
    parser.add_argument(
        "--expose",
        action="store_true",
        help="use this machine's own network, where others may reach the workers",
    )
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="what each runs, after --")
    try:
        arguments = parser.parse_args(argv)
        if arguments.workers < 1:
            parser.error(f"--workers must be at least 1. Received: --workers={arguments.workers}")
    except ValueError as error:
        return _errors.fail("launch", error, status=2)
    return run(arguments.command, arguments.workers, arguments.expose)


def run(command: Sequence[str], workers: int, expose: bool = False) -> int:
    """Runs a command as several workers, and ends when all have.

    Args:
        command: program and arguments, the same for each.
        workers: how many.
        expose: let them use this machine's network, and others reach them; otherwise they get one
            of their own.

    Returns:
        The exit status of the worker that failed first, 128 plus the signal if one killed it; 2
        where the command cannot be run, or no network be made; else 0.

    Raises:
        OSError: standard output takes no more.
    """
    with contextlib.ExitStack() as stack:
        enter = None
        if expose:
            _errors.fail("launch", f"warning: {_OPEN}", status=0)
        else:
            try:
                enter = stack.enter_context(_network.private())
            except OSError as error:
                message = (
                    f"the workers cannot get a network of their own ({error}). {_OPEN}. "
                    "Accepted: --expose, to start them all the same"
                )
                return _errors.fail("launch", message, status=2)
        return _run(command, workers, enter)


def _run(command, workers, enter):
    addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
    processes, readers, failures = [], [], []
    try:
        for index in range(workers):
            task = {"type": "worker", "index": index}
            config = {"cluster": {"worker": addresses}, "task": task}
            try:
                process = subprocess.Popen(
                    command,
                    env={**os.environ, "TF_CONFIG": json.dumps(config), "PYTHONUNBUFFERED": "1"},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    start_new_session=True,  # Ctrl-C reaches this process, which ends them all
                    preexec_fn=enter,
                )
            # The second where the child cannot enter the network.
            except (OSError, subprocess.SubprocessError) as error:
                message = f"{shlex.join(command)} cannot be run: {error}"
                return _errors.fail("launch", message, status=2)
            processes.append(process)
        # Not before: no other thread may hold a lock while a child process is made.
        for index, process in enumerate(processes):
            arguments = index, process.stdout, failures
            readers.append(threading.Thread(target=_relay, args=arguments))
            readers[-1].start()
        return _wait(processes, failures)
    finally:
        _end(processes)
        for reader in readers:
            reader.join()


def _wait(processes, failures):
    """Waits for all, or for the first that fails and then a little for what the others say."""
    failed, deadline = 0, None
    while None in [process.poll() for process in processes]:
        if failures:
            raise failures[0]
        for process in processes:
            if not failed and process.returncode:
                failed = process.returncode
                deadline = time.monotonic() + _GRACE
        if deadline is not None and time.monotonic() > deadline:
            break
        time.sleep(0.05)
    failed = failed or next((p.returncode for p in processes if p.returncode), 0)
    return 128 - failed if failed < 0 else failed


def _end(processes):
    for process in processes:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _relay(index, stream, failures):
    try:
        for line in stream:
            print(f"[{index}] {line}", end="", flush=True)
    except OSError as error:  # nobody reads it any more
        failures.append(error)


def free_ports(count):
    """Returns that many numbers of ports of this machine that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
