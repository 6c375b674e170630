"""Commands in processes that need not import TensorFlow: each is forked from one that has.

An import takes seconds, and the tests start dozens of processes. All that one test process starts
are in a network of their own, where the system lets it make one: TensorFlow's servers listen on
every interface, and let anybody in.
"""

import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

_ROOT = Path(__file__).parents[1]


class Process:
    """As `subprocess.Popen`, as far as tests need it: a Python command with its output in pipes.

    Args:
        command: `-m`, a module and its arguments; or `-c`, a program and its arguments.
        cwd: the directory in which it runs, the first in which it looks for modules.
        env: variables besides those of this process.
    """

    def __init__(self, *command, cwd=".", **env):
        self.returncode = None
        pipes = [os.pipe() for _ in range(3)]
        request = {
            "command": [str(each) for each in command],
            "cwd": str(Path(cwd).resolve()),
            "env": {**os.environ, **env},
        }
        socket.send_fds(_server(), [json.dumps(request).encode()], [writer for _, writer in pipes])
        for _, writer in pipes:
            os.close(writer)
        self.stdout, self.stderr, self._ending = (os.fdopen(reader) for reader, _ in pipes)
        self.pid = int(self._ending.readline())

    def poll(self):
        if self.returncode is None and select.select([self._ending], [], [], 0)[0]:
            self._end()
        return self.returncode

    def _end(self):
        with self._ending:
            self.returncode = int(self._ending.readline())

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

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
        if self.returncode is None:
            if not select.select([self._ending], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            self._end()
        for thread in threads:
            thread.join()
        return tuple(texts)


def run(*command, **options):
    """As `subprocess.run` with `capture_output` and `text`."""
    process = Process(*command, **options)
    output, error = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, output, error)


@functools.cache
def _server():
    """A socket to the process that has imported TensorFlow; it ends when the socket is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        number = theirs.fileno()
        command = [sys.executable, "-m", "tests.forking", str(number)]
        subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.DEVNULL, pass_fds=[number])
    return ours
