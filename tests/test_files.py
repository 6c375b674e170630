import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading

import pytest

from kdtoolkit import files


def test_whole_or_absent(tmp_path):
    path = tmp_path / "file.txt"
    files.write_atomically(path, lambda scratch: scratch.write_text("old"))

    def fail(scratch):
        scratch.write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        files.write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named(tmp_path):
    def fail(scratch):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=r"No space left on device: '.*network\.keras'"):
        files.write_atomically(tmp_path / "network.keras", fail)


def test_directory_replaces_directory(tmp_path):
    path = tmp_path / "model"
    for content in ("one", "two"):

        def write(scratch, content=content):
            scratch.mkdir()
            (scratch / content).write_text(content)

        files.write_atomically(path, write)
    assert [p.name for p in path.iterdir()] == ["two"]


def test_scratch_of_a_killed_process_is_cleared(tmp_path):
    (tmp_path / "generation_0").mkdir()
    (tmp_path / "generation_0" / f"{files._SCRATCH}12345678-network.keras").write_text("half")
    (tmp_path / "kept.txt").write_text("whole")
    files.clear_scratch(tmp_path)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["kept.txt"]


def test_what_a_link_leads_to_is_kept(tmp_path):
    for name in ("run", "kept"):
        (tmp_path / name).mkdir()
    (tmp_path / "kept" / "file.txt").write_text("whole")
    (tmp_path / "run" / f"{files._SCRATCH}12345678-export").symlink_to(tmp_path / "kept")
    files.clear_scratch(tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []
    assert (tmp_path / "kept" / "file.txt").read_text() == "whole"


def test_a_link_to_itself_is_replaced(tmp_path):
    path = tmp_path / "a.json"
    path.symlink_to(path)
    with files.locked(tmp_path):
        files.write_json(path, {"a": 1})
    assert not path.is_symlink() and files.read_json(path) == {"a": 1}


def test_scratch_keeps_the_suffix(tmp_path):
    seen = []
    files.write_atomically(
        tmp_path / "network.keras", lambda s: (seen.append(s.suffix), s.write_text(""))
    )
    assert seen == [".keras"]


@contextlib.contextmanager
def held_by_another_process(directory):
    """Yields the process, which writes a line when it holds the directory."""
    script = (
        "import sys, time; from kdtoolkit import files\n"
        "with files.locked(sys.argv[1]): print('held', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", script, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


def test_directory_is_held_until_the_process_dies(tmp_path):
    with held_by_another_process(tmp_path) as process:
        assert files.in_use(tmp_path)
        with pytest.raises(files.InUseError, match="in use"), files.locked(tmp_path):
            pass
        process.kill()
        process.wait()
        assert not files.in_use(tmp_path)
        with files.locked(tmp_path):
            pass
    assert files.contents(tmp_path) == []


def test_who_holds_a_directory_holds_it_again_and_no_other_thread_does(tmp_path):
    found = []

    def other():
        found.append(files.in_use(tmp_path))
        try:
            with files.locked(tmp_path):
                found.append("held")
        except files.InUseError:
            found.append("refused")

    with files.locked(tmp_path):
        with files.locked(tmp_path):
            assert not files.in_use(tmp_path)
        for _ in range(2):  # the inner one did not let go
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
    assert found == [True, "refused"] * 2
    assert not files.in_use(tmp_path)


def test_who_only_looks_does_not_hold(tmp_path):
    """A look is a lock too, for a moment: a run that starts in that moment is not refused."""
    with files.locked(tmp_path):
        pass
    with open(tmp_path / ".lock", "rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        threading.Timer(0.1, fcntl.flock, (stream, fcntl.LOCK_UN)).start()
        with files.locked(tmp_path):
            files.write_json(tmp_path / "a.json", {})


def test_lock_file_that_is_replaced_before_it_is_locked(tmp_path, monkeypatch):
    """The other one would hold nobody off."""
    flock, calls = files._flock, []

    def late(stream, *how):
        calls.append(how)
        if len(calls) == 1:
            (tmp_path / ".lock").unlink()
        return flock(stream, *how)

    monkeypatch.setattr(files, "_flock", late)
    with files.locked(tmp_path):
        files.write_json(tmp_path / "a.json", {})
        assert len(calls) == 2


class NoLocks:
    """`fcntl` where the file system cannot lock."""

    LOCK_EX, LOCK_SH, LOCK_NB = fcntl.LOCK_EX, fcntl.LOCK_SH, fcntl.LOCK_NB

    def flock(stream, how):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


@pytest.mark.parametrize("module", [NoLocks, None], ids=["file system", "not Unix"])
def test_where_nothing_can_be_locked(module, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", module)
    with (
        pytest.warns(UserWarning, match=r"cannot be locked \(Function not implemented\)"),
        files.locked(tmp_path),
    ):
        assert not files.in_use(tmp_path)


def test_scratch_of_a_live_process_stays(tmp_path):
    used = tmp_path / "teacher_cache"
    used.mkdir()
    ours, theirs = tmp_path / ".partial-1-a", used / ".partial-2-b"
    ours.write_text("")
    theirs.write_text("")
    with held_by_another_process(used):
        files.clear_scratch(tmp_path)
        assert theirs.exists()
        assert not ours.exists()
    files.clear_scratch(tmp_path)
    assert not theirs.exists()


@pytest.mark.parametrize("again", [False, True], ids=["removed", "replaced"])
def test_what_is_written_to_a_lost_directory_is_an_error(tmp_path, again):
    directory = tmp_path / "run"
    files.make_directory(directory / "part")
    with files.locked(directory):
        files.write_json(directory / "part" / "1.json", 1)
        shutil.rmtree(directory)
        if again:
            files.make_directory(tmp_path / "other" / "part")
            os.rename(tmp_path / "other", directory)
        for write in (
            lambda: files.write_json(directory / "2.json", 2),
            lambda: files.make_directory(directory / "part"),
        ):
            with pytest.raises(files.LostDirectoryError, match=r"run, or its \.lock, was removed"):
                write()
        files.write_json(tmp_path / "elsewhere.json", 3)
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.json")] == ["elsewhere.json"]


def test_new_names_are_on_the_disk_before_what_is_written_after_them(tmp_path, monkeypatch):
    """A name is in its directory: that is synced after the rename, as is what it names before."""
    events = []

    def fsync(descriptor):
        events.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    def replace(scratch, path):
        events.append("rename")
        rename(scratch, path)

    rename = os.replace
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    files.make_directory(tmp_path / "a" / "b")
    assert events == [str(tmp_path), str(tmp_path / "a")]
    events.clear()

    def write(scratch):
        (scratch / "inner").mkdir(parents=True)
        (scratch / "inner" / "file").write_text("content")

    files.write_atomically(tmp_path / "a" / "b" / "whole", write)
    *written, renamed, parent = events
    scratch = min(written)
    assert sorted(written) == [scratch, f"{scratch}/inner", f"{scratch}/inner/file"]
    assert (renamed, parent) == ("rename", str(tmp_path / "a" / "b"))


@pytest.mark.parametrize("call", ["open", "fsync"])
@pytest.mark.parametrize(
    ("number", "of_a_directory", "of_a_file"),
    [
        ("EINVAL", True, True),
        ("ENOTSUP", True, True),
        ("EOPNOTSUPP", True, True),
        ("EACCES", True, False),
        ("EROFS", True, False),
        ("EIO", False, False),
        ("ENOSPC", False, False),
    ],
)
def test_file_systems_that_cannot_sync(
    number, of_a_directory, of_a_file, call, tmp_path, monkeypatch
):
    """What they say so by is no error; what says that something is lost is one."""
    number = getattr(errno, number)
    refused, original = [], getattr(os, call)

    def refuse(of, *arguments):
        path = of if call == "open" else os.readlink(f"/proc/self/fd/{of}")
        if os.path.isdir(path) == refused[0]:
            raise OSError(number, os.strerror(number))
        return original(of, *arguments)

    monkeypatch.setattr(os, call, refuse)
    for directory, tolerated in ((True, of_a_directory), (False, of_a_file)):
        refused[:] = [directory]
        error = contextlib.nullcontext() if tolerated else pytest.raises(OSError)
        with error as caught:
            files.write_atomically(tmp_path / "file", lambda scratch: scratch.write_text(""))
        assert tolerated or caught.value.errno == number


VALUE = {"accuracy": 0.1, "loss": 1e-05, "rows": [{"name": "kd", "seed": 0}], "none": None}


def flips(content, step=1):
    """The content with one bit changed, of every `step`-th byte in turn."""
    for index in range(0, len(content), step):
        for bit in range(8):
            changed = bytearray(content)
            changed[index] ^= 1 << bit
            yield bytes(changed)


def test_record_holds_its_checksum(tmp_path):
    path = tmp_path / "results.json"
    files.write_record(path, VALUE)
    assert files.read_record(path) == VALUE
    text = path.read_text()
    stored = json.loads(text)
    assert {**VALUE, "sha256": stored["sha256"]} == stored
    without = text.replace(f',\n  "sha256": "{stored["sha256"]}"', "")
    assert hashlib.sha256(without.encode()).hexdigest() == stored["sha256"]


def test_every_flipped_bit_of_a_record_is_noticed(tmp_path):
    """Those of the checksum's own name, and those that change no value (1e-05, 1E-05), included."""
    path = tmp_path / "results.json"
    files.write_record(path, VALUE)
    for content in flips(path.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"results\.json"):
            files.read_record(path)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"[" * 100_000, b'{"sha256": 1}', b'{"a": NaN, "sha256": "a"}']
)
def test_what_is_no_record_is_a_value_error(tmp_path, content):
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"results\.json"):
        files.read_record(tmp_path / "results.json")


def test_fifo_is_not_waited_for(tmp_path):
    for name in (".lock", "results.json"):
        os.mkfifo(tmp_path / name)
    for read in (files.read_record, files.read_bytes, files.sha256):
        with pytest.raises(OSError, match=r"Not a regular file: .*results\.json"):
            read(tmp_path / "results.json")
    with pytest.raises(OSError, match=r"Not a regular file: .*\.lock"):
        files.in_use(tmp_path)
    with pytest.raises(OSError, match=r"Not a regular file: .*\.lock"), files.locked(tmp_path):
        pass


@pytest.mark.parametrize("number", ["EACCES", "EMFILE", "ENOMEM", "ESTALE", "EIO", "ENOENT"])
def test_what_cannot_be_read_now_may_be_whole(number):
    error = OSError(getattr(errno, number), os.strerror(getattr(errno, number)))
    assert files.is_damage(error) == (number in ("EIO", "ENOENT"))
    assert files.is_damage(files.DamagedFileError("a.json is damaged"))
