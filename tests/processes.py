"""Commands in processes that need not import TensorFlow: each is forked from one that has.

An import takes seconds, and the tests start dozens of processes. All that one test process starts
are in a network of their own, where the system lets it make one: TensorFlow's servers listen on
every interface, and let anybody in.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["tests.preloaded"])


class Process:
    """As `subprocess.Popen`, as far as tests need it: a Python command with its output in pipes.

    Args:
        command: `-m`, a module and its arguments; or `-c`, a program and its arguments.
        cwd: the directory in which it runs, the first in which it looks for modules.
        env: variables besides those of this process.
    """

    def __init__(self, *command, cwd=".", **env):
        self.returncode = None
        pipes = [_FORKING.Pipe(duplex=False) for _ in range(2)]
        writers = [writer for _, writer in pipes]
        arguments = (writers, [str(each) for each in command], str(Path(cwd).resolve()))
        self._process = _FORKING.Process(target=_run, args=(*arguments, {**os.environ, **env}))
        self._process.start()
        self.stdout, self.stderr = (os.fdopen(os.dup(reader.fileno())) for reader, _ in pipes)
        for ends in pipes:
            for end in ends:
                end.close()

    def poll(self):
        self.returncode = self._process.exitcode
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self._process.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout=None):
        """Waits for the end; returns what was written to standard output and standard error."""
        texts = ["", ""]

        def read(index, stream):
            with stream:
                texts[index] = stream.read()

        streams = enumerate((self.stdout, self.stderr))
        threads = [threading.Thread(target=read, args=each, daemon=True) for each in streams]
        for thread in threads:
            thread.start()
        self._process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout)
        for thread in threads:
            thread.join()
        return tuple(texts)


def run(*command, **options):
    """As `subprocess.run` with `capture_output` and `text`."""
    process = Process(*command, **options)
    output, error = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, output, error)


def _run(writers, command, cwd, env):
    """In the new process: as `python COMMAND` there."""
    for descriptor, writer in enumerate(writers, start=1):
        os.dup2(writer.fileno(), descriptor)
        writer.close()
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.path.insert(0, cwd)
    kind, what, *arguments = command
    sys.argv = [kind, *arguments]
    status = 0
    try:
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        status = end.code
        if isinstance(status, str):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()  # which multiprocessing leaves out
    sys.exit(status)
