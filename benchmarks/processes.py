"""Functions of the benchmarks in processes of their own, which are driven through pipes.

A process of its own has an environment of its own, thread pools and a peak of memory that no other
contender touched, and a start that begins with the import of its libraries. Several of them wait
while one of them steps, so that they can be interleaved as contenders in one process are.

    python -m benchmarks.processes '{"function": "benchmarks.module:name", "arguments": {...}}'

calls the function with the arguments as attributes of one object. What it returns is answered as a
line of JSON; if it is `run` of a `Contender`, each line of the standard input is a number of steps.
"""

import argparse
import contextlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import memory
from benchmarks.measure import Contender, noting_first_step
from kdtoolkit._network import where_possible

_ROOT = Path(__file__).resolve().parents[1]
_PATIENCE = 10  # seconds for a process that has nothing more to do


class ProcessFailed(RuntimeError):
    """The process ended; the message is its error, or the last line that it said."""


class Process:
    """A function's process.

    Args:
        function: `"module:name"`.
        arguments: dict of what JSON knows.
        environment: variables beside those of this process, of which no `TF_*` is passed on: what
            a library does by default is for the library to say.
        enter: called in the process before anything else, or None.
    """

    def __init__(self, function, arguments, environment, enter=None):
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
        order = json.dumps({"function": function, "arguments": arguments})
        self._said = tempfile.TemporaryFile()  # noqa: SIM115, closed in `close`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.processes", order],
            cwd=_ROOT,
            env={**inherited, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            preexec_fn=enter,
        )

    def send(self, steps):
        # One that ended says so in `receive`.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{steps}\n")
            self._process.stdin.flush()

    def receive(self):
        """Returns the next answer.

        Raises:
            ProcessFailed: there is none.
        """
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise ProcessFailed(self._last_words)
        return json.loads(line)

    def pause(self):
        self._process.send_signal(signal.SIGSTOP)

    def resume(self):
        self._process.send_signal(signal.SIGCONT)

    def close(self):
        self.resume()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        if not self._said.closed:
            self._said.seek(0)
            self._last_words = _error(self._said.read().decode(errors="replace"))
            self._said.close()


def _error(said):
    """The first line of the last error in what a process said, or else the last line."""
    lines = [line for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (errors or lines or ["it said nothing"])[-1]


class Remote:
    """`run` of a contender whose steps are taken by a process, or by several together.

    Several are in a network of their own where that is possible: TensorFlow's servers listen on
    every interface, and ask nobody who he is.

    Args:
        function, arguments: of `Process`; the function returns `run`.
        environments: of the processes, one each.
        paused: whether they stand still between their steps, so that none works ahead in the time
            of other contenders.

    Attributes:
        before, peak: MiB of memory before the first step and until now, summed.

    Raises:
        ProcessFailed: one of them ended before it was ready.
    """

    def __init__(self, function, arguments, environments, paused=False):
        self._network = contextlib.ExitStack()
        several = len(environments) > 1
        enter = self._network.enter_context(where_possible()) if several else None
        self._processes = [Process(function, arguments, each, enter) for each in environments]
        self._paused = paused
        self.before = self.peak = sum(answer["peak"] for answer in self._answers())

    def __call__(self, steps):
        """Takes steps; returns the processors' seconds, summed over the processes."""
        for process in self._processes:
            process.resume()
            process.send(steps)
        answers = self._answers()
        self.peak = sum(answer["peak"] for answer in answers)
        return sum(answer["processor"] for answer in answers)

    def _answers(self):
        try:
            answers = [process.receive() for process in self._processes]
        except ProcessFailed:
            self.close()
            raise
        if self._paused:
            for process in self._processes:
                process.pause()
        return answers

    def close(self):
        for process in self._processes:
            process.close()
        self._network.close()


def call(function, arguments, environment):
    """Returns what a function returns in a process of its own.

    Raises:
        ProcessFailed: it raised.
    """
    process = Process(function, arguments, environment)
    try:
        return process.receive()
    finally:
        process.close()


def start(contenders, *, at_once, stack, report=lambda line: None):
    """Starts contenders whose `make` returns a `Remote`; one that fails does not stop the others.

    Args:
        contenders: of `Contender`.
        at_once: how many start at the same time; their seconds mean something if it is one.
        stack: a `contextlib.ExitStack`, which closes them.
        report: called with a line of progress now and then.

    Returns:
        `(runs, seconds, failures)`: dicts by name of the `Remote`s, of the seconds up to the end of
        their first step, and of why a contender could not start.
    """
    runs, seconds, failures = {}, {}, {}

    def begin(contender):
        report(f"starting: {contender.name}")
        try:
            run = noting_first_step(contender, seconds).make()
        except ProcessFailed as failure:
            failures[contender.name] = str(failure)
            report(f"not started: {contender.name}: {failure}")
        else:
            stack.callback(run.close)
            runs[contender.name] = run

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(begin, contenders))
    names = [contender.name for contender in contenders if contender.name in runs]
    return {name: runs[name] for name in names}, seconds, failures


def started(runs):
    """Returns contenders for `interleave` of processes that run already."""
    return [Contender(name, lambda run=run: run) for name, run in runs.items()]


def main():
    order = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(value):
        print(json.dumps(value), file=answers, flush=True)

    module, _, name = order["function"].partition(":")
    function = getattr(importlib.import_module(module), name)
    value = function(argparse.Namespace(**order["arguments"]))
    if not callable(value):
        answer(value)
        return
    answer({"peak": memory.peak()})
    for line in sys.stdin:
        processor = time.process_time()
        value(int(line))
        answer({"processor": time.process_time() - processor, "peak": memory.peak()})
    os._exit(0)  # a `fit` that waits in its thread for more steps would never let go


if __name__ == "__main__":
    main()
