"""Whatever can be expected is one line and a status, in every command; our own mistakes are not."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow as tf

from kdtoolkit import _errors, files
from kdtoolkit.recipes import born_again

ROOT = Path(__file__).parents[1]
FULL = (
    "{{function_node __wrapped__SaveV2_device_/job:localhost}} run/x; No space left on device\n"
    "\tFailed to flush 11 events [Op:SaveV2]"
)


def raising(error):
    def call(*_, **__):
        raise error

    return call


def sending(number):
    def call(*_, **__):
        os.kill(os.getpid(), number)
        time.sleep(10)

    return call


def swallowed(*_, **__):
    """As a library that turns an interruption into an error of its own."""
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)
    except KeyboardInterrupt as error:
        raise tf.errors.UnknownError(None, None, "KeyboardInterrupt: ") from error


GOES_ON = "; the same command goes on where it stopped"
EXPECTED = {
    "disk full": (raising(OSError(errno.ENOSPC, "No space left on device")), 1, "No space left"),
    "quota": (raising(OSError(errno.EDQUOT, "Quota exceeded", "a.state")), 1, "a.state: Quota"),
    "no right": (raising(PermissionError(errno.EACCES, "Permission denied", "a")), 1, "a: Perm"),
    "read-only": (raising(OSError(errno.EROFS, "Read-only file system", "a")), 1, "a: Read-only"),
    "renaming": (raising(OSError(errno.EIO, "I/O error", "a", None, "b")), 1, "a -> b: I/O error"),
    "no words": (raising(OSError("errno = 28\n in HDF5")), 1, "errno = 28 in HDF5"),
    "memory": (raising(MemoryError("Unable to allocate 9 GiB")), 1, "out of memory. Unable"),
    "damage": (raising(files.DamagedFileError("a.json is damaged")), 1, "a.json is damaged"),
    "disk full, in TensorFlow": (
        raising(tf.errors.ResourceExhaustedError(None, None, FULL)),
        1,
        "run/x; No space left on device",
    ),
    "directory gone, in TensorFlow": (
        raising(tf.errors.NotFoundError(None, None, "logs; No such file or directory")),
        1,
        "logs; No such file or directory",
    ),
    "Ctrl-C": (sending(signal.SIGINT), 130, "interrupted" + GOES_ON),
    "Ctrl-C, in a library": (swallowed, 130, "interrupted" + GOES_ON),
    "terminated": (sending(signal.SIGTERM), 143, "terminated" + GOES_ON),
}


@pytest.mark.parametrize("case", EXPECTED)
def test_what_can_be_expected_is_one_line(case, monkeypatch, capsys, tmp_path):
    call, status, text = EXPECTED[case]
    # Pytest in the background ignores Ctrl-C.
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(born_again._session, "load", call)
    try:
        assert born_again.RECIPE.main([f"--output_dir={tmp_path}"]) == status
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) == handlers[signal.SIGTERM]
    finally:
        signal.signal(signal.SIGINT, handlers[signal.SIGINT])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("born_again: ")
    assert text in line


def test_interrupted_twice_is_one_line(capsys, monkeypatch):
    """The second time while the first is being said."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)

    def fail(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        return original(*arguments)

    original = _errors.fail
    monkeypatch.setattr(_errors, "fail", fail)
    try:
        assert _errors.guarded("test", sending(signal.SIGINT)) == 130
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, handler)
    assert capsys.readouterr().err == "test: interrupted\n"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a mistake of ours"),
        KeyError("step"),
        RecursionError(),
        tf.errors.InvalidArgumentError(None, None, "shapes"),
        tf.errors.NotFoundError(None, None, "Key bias not found in checkpoint"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_mistake_of_ours_keeps_its_traceback(error, monkeypatch, tmp_path):
    monkeypatch.setattr(born_again._session, "load", raising(error))
    with pytest.raises(type(error)):
        born_again.RECIPE.main([f"--output_dir={tmp_path}"])


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff{}", b"[" * 100_000])
def test_damaged_json_is_named(content, tmp_path):
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(files.DamagedFileError, match=r"results\.json is damaged: ") as caught:
        files.read_json(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{" * 100_000])
def test_damaged_directory_is_one_line(content, monkeypatch, capsys, tmp_path):
    status = main_beside(content, tmp_path, monkeypatch)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "damaged" in line]
    assert status == 1
    assert f"born_again: {tmp_path / 'run' / 'generations.json'} is damaged" in line


def main_beside(content, tmp_path, monkeypatch):
    """Runs the main job in a directory of its own that holds this `generations.json`."""

    def begin(flags, data, compute):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "generations.json").write_bytes(content)

    monkeypatch.setattr("kdtoolkit.recipes._session.prepare_process", lambda flags: None)
    monkeypatch.setattr("kdtoolkit.recipes._session.begin", begin)
    return born_again.RECIPE.main([f"--output_dir={tmp_path / 'run'}"])


@pytest.mark.parametrize("value", [1, "x" * 100_000, {}, None])
def test_directory_with_other_arguments_is_one_line(value, monkeypatch, capsys, tmp_path):
    """`config.flags` is that of the run, but `generations.json` beside it is not."""
    content = json.dumps({"epochs": value}).encode()
    assert main_beside(content, tmp_path, monkeypatch) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "epochs=" in line]
    assert line.startswith("born_again: ") and len(line) < 3000


COMMANDS = {
    "recipe": ["-m", "kdtoolkit.recipes.distill", "--help"],
    "kdtoolkit": ["-m", "kdtoolkit.cli", "distill", "--help"],
    "console": ["-c", "from kdtoolkit.cli import main; exit(main())", "describe", "resnet8"],
    "edge": ["-m", "kdtoolkit.edge", "--help"],
    "describe": ["-m", "kdtoolkit.cli", "describe", "resnet8"],
}


def interrupted(command, number, *paths):
    """Sends a signal to a command once it has printed 1; returns its status and what it said."""
    # A background process, and what it starts, ignores SIGINT; Python then leaves that as it is.
    heeding = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", heeding, *command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*paths, str(ROOT)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "1\n"
    process.send_signal(number)
    _, error = process.communicate(timeout=20)
    return process.returncode, error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_before_the_script_of_pip_has_begun(number, tmp_path):
    """It is told from other programs by its name, as soon as it imports the package."""
    script = "import kdtoolkit, time; print(1, flush=True); time.sleep(60)"
    for name in ("kdtoolkit", "mine"):
        (tmp_path / name).write_text(script)
    word = _errors._WORDS[number]
    status, error = interrupted([str(tmp_path / "kdtoolkit")], number)
    assert (status, error) == (128 + number, f"kdtoolkit: {word}\n")
    status, error = interrupted([str(tmp_path / "mine")], number)
    assert status == -number and f"kdtoolkit: {word}" not in error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("command", "library"),
    [
        *(("recipe", "absl"), ("kdtoolkit", "absl"), ("console", "absl"), ("edge", "numpy")),
        ("describe", "keras"),  # while what native code writes is held back
    ],
)
def test_interrupted_while_it_imports(command, library, number, tmp_path):
    """A library that never comes back."""
    stub = "import time; print(1, flush=True); time.sleep(60)"
    (tmp_path / f"{library}.py").write_text(stub)
    status, error = interrupted(COMMANDS[command], number, str(tmp_path))
    assert status == 128 + number
    (line,) = error.splitlines()
    assert line.endswith(_errors._WORDS[number])


@pytest.mark.parametrize(
    ("command", "status"),
    [("recipe", _errors.NOBODY_READS), ("kdtoolkit", _errors.NOBODY_READS), ("edge", 0)],
)
def test_nobody_reads_the_output(command, status):
    """argparse, which prints the last one's help, keeps that to itself."""
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [sys.executable, *COMMANDS[command]], stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert (process.returncode, process.stderr) == (status, "")


PIPES = {
    "of a worker": ("raise BrokenPipeError(32, 'Broken pipe')", "PIPE", "PIPE", 1),
    "standard output": ("print('to nobody', flush=True)", "writer", "PIPE", 141),
    "standard error": ("print('x' * 9999, file=sys.stderr)", "PIPE", "writer", 141),
}


@pytest.mark.parametrize("case", PIPES)
def test_only_a_broken_standard_stream_ends_in_silence(case):
    """The pipe, or socket, of something else that breaks is an error like others."""
    statement, output, error, status = PIPES[case]
    script = (
        "import sys; from kdtoolkit import _errors\n"
        f"def call():\n    {statement}\n    return 0\n"
        "sys.exit(_errors.guarded('test', call))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    to = {"PIPE": subprocess.PIPE, "writer": writer}
    ran = subprocess.run(
        [sys.executable, "-c", script], stdout=to[output], stderr=to[error], text=True
    )
    os.close(writer)
    assert ran.returncode == status
    assert (ran.stderr or "") == ("test: Broken pipe\n" if status == 1 else "")


def test_standard_streams_are_closed(tmp_path):
    """Files that are opened later do not become the standard output of native code."""
    script = (
        "import os, sys; from kdtoolkit import _errors\n"
        "def call():\n"
        f"    file = open({str(tmp_path / 'file')!r}, 'w')\n"
        "    print('to nobody'); os.write(1, b'nor this'); os.write(2, b'nor that')\n"
        "    return file.fileno()\n"
        "sys.exit(_errors.guarded('test', call))"
    )
    shell = f'exec {sys.executable} -c "$SCRIPT" <&- >&- 2>&-'
    ran = subprocess.run(["sh", "-c", shell], env={**os.environ, "SCRIPT": script})
    assert ran.returncode > 2
    assert (tmp_path / "file").read_bytes() == b""
