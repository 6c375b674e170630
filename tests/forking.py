"""The process that has imported TensorFlow, and forks one for every command it is told to run.

python -m tests.forking DESCRIPTOR      of a socket: see `tests.processes`
"""

import atexit
import contextlib
import gc
import json
import os
import runpy
import signal
import socket
import sys
import threading
import traceback

from kdtoolkit import _network


def serve(connection):
    """Until the other end is closed. A message is a request, with where its outputs go."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who watch
    while True:
        message, descriptors, *_ = socket.recv_fds(connection, 2**18, 3)
        if not message:
            return
        if os.fork() == 0:
            connection.close()
            _watch(json.loads(message), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _watch(request, output, error, ending):
    """Runs the command in a child; writes its number, and how it ended, as `subprocess` does."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.close(ending)
        for number, descriptor in ((1, output), (2, error)):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os._exit(_run(**request))
    os.close(output)
    os.close(error)
    os.write(ending, b"%d\n" % pid)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):
        os.write(ending, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _run(command, cwd, env):
    """As `python COMMAND` there; returns the exit status."""
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
        status = end.code or 0
        if isinstance(status, str):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    with contextlib.suppress(OSError):
        _network.move_into_new()  # while there is one thread only, as the system asks

    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # what tests read is what Python says

    import keras  # noqa: F401
    import tensorflow as tf  # noqa: F401

    from kdtoolkit import data, training  # noqa: F401

    gc.collect()
    gc.freeze()  # or every command walks through all modules, for each file that it converts
    serve(socket.socket(fileno=int(sys.argv[1])))
