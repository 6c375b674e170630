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


def test_scratch_keeps_the_suffix(tmp_path):
    seen = []
    files.write_atomically(
        tmp_path / "network.keras", lambda s: (seen.append(s.suffix), s.write_text(""))
    )
    assert seen == [".keras"]
