"""A finished run: known again without work, by what it left; usable in plain Keras by itself."""

import contextlib
import dataclasses
import hashlib
import io
import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from kdtoolkit import cli, data, files
from kdtoolkit.recipes import (
    _command,
    _finished,
    _page,
    _report,
    _session,
    born_again,
    compress,
    distill,
    self_distillation,
)
from kdtoolkit.training import distribution
from tests.report.browser import NEEDS_CHROMIUM, check_pages

DRAWN = True
FLAGS = ["--train_examples=60", "--batch_size=30", "--deterministic=false"]
RECIPES = {
    "born_again": (born_again, ["--generations=0", "--epochs=1"]),
    "compress": (compress, ["--quantize=int8", "--structure=none", "--sensitivity"]),
    "distill": (
        distill,
        ["--student=resnet8", "--methods=kd", "--seeds=1,2", "--export=none", "--epochs=1"],
    ),
    "self_distillation": (self_distillation, ["--head_width=8", "--epochs=1"]),
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A small network that knows nothing."""
    image = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, activation="relu")(image)
    network = keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(x)))
    path = tmp_path_factory.mktemp("given") / "network.keras"
    network.save(path)
    return path


@pytest.fixture(scope="module")
def runs(teacher, tmp_path_factory):
    """Name -> the recipe, command line, output directory and what was printed."""
    given = {"compress": [f"--model={teacher}"], "distill": [f"--teacher={teacher}"]}
    found = {}
    for name, (recipe, flags) in RECIPES.items():
        directory = tmp_path_factory.mktemp(name) / "run"
        argv = [*FLAGS, *flags, *given.get(name, []), f"--output_dir={directory}"]
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            assert recipe.RECIPE.main(argv) == 0
        found[name] = recipe.RECIPE, argv, directory, output.getvalue()
    return found


@pytest.fixture(params=RECIPES)
def finished(request, runs):
    return runs[request.param]


@pytest.fixture
def copied(runs, tmp_path):
    """A run in a directory that a test may damage: recipe, command line, directory."""
    recipe, argv, directory, _ = runs["born_again"]
    copy = tmp_path / "run"
    shutil.copytree(directory, copy)
    return recipe, [*argv, f"--output_dir={copy}"], copy


def states(directory):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in directory.rglob("*")}


def test_finished_run_shows_its_table_again_and_does_nothing(finished, capsys, monkeypatch):
    recipe, argv, directory, output = finished
    before = states(directory)
    monkeypatch.setattr(_session, "load", None)
    assert recipe.main(argv) == 0
    captured = capsys.readouterr()
    assert captured.out == output
    results = json.loads((directory / "results.json").read_text())
    day, time = results["finished"][:10], results["finished"][11:16]
    (line,) = captured.err.splitlines()
    assert line.startswith(f"{recipe.name}: finished on {day} at {time} UTC (CPU ")
    assert f", in {directory};" in line
    assert states(directory) == before


def test_finished_run_needs_no_tensorflow(runs):
    calls = "".join(
        f"from kdtoolkit.recipes import {name}\nstatus |= {name}.RECIPE.main({argv})\n"
        for name, (_, argv, _, _) in runs.items()
    )
    script = f"import sys\nstatus = 0\n{calls}sys.exit(status or 'tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    expected = "".join(output for *_, output in runs.values())
    assert (done.returncode, done.stdout) == (0, expected), done.stderr


def test_everything_of_use_is_recorded(finished):
    recipe, _, directory, _ = finished
    recorded = json.loads((directory / "results.json").read_text())["files"]
    there = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    own = {
        ".lock",
        "config.flags",
        "report.html",
        "results.json",
        "comparison.json",
        "compression.json",
        "data.json",
        "generations.json",
        "model.json",
        "teacher.json",
    }
    assert {file for file in there - own if not file.startswith("logs/")} == set(recorded)
    exports = any(file.startswith("export/saved_model/") for file in recorded)
    assert exports == (recipe.name != "distill")  # which was told not to
    for file in ("sensitivity.json", "sensitivity.svg"):
        assert (file in recorded) == (recipe.name == "compress")


def test_page_is_made_again_from_the_directory(runs, capsys, tmp_path):
    for name, (recipe, argv, directory, _) in runs.items():
        page = directory / "report.html"
        made = page.read_bytes()
        page.unlink()
        assert cli.main(["report", str(directory)]) == 0
        assert capsys.readouterr().out == f"{page}\n"
        assert page.read_bytes() == made
        if name == "distill":  # and where a finished run has lost it
            page.unlink()
            assert recipe.main(argv) == 0
            assert page.read_bytes() == made
            capsys.readouterr()
    capsys.readouterr()
    files.write_record(tmp_path / "results.json", {"recipe": "bake"})
    for wrong, reason in ((tmp_path / "none", "FileNotFoundError"), (tmp_path, "is no recipe")):
        assert cli.main(["report", str(wrong)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("report: DIRECTORY must be the output directory of a finished ")
        assert reason in line


def test_page_shows_every_term_after_each_epoch(runs):
    """Curves are those of the records that each training left, of every loss term and metric."""
    _, _, directory, _ = runs["distill"]
    history = json.loads((directory / "kd" / "seed_1" / "results.json").read_text())["history"]
    assert {"loss", "accuracy", "label", "kd", "val_accuracy"} <= set(history)
    assert {len(values) for values in history.values()} == {1}
    assert history["loss"][0] == pytest.approx(history["label"][0] + history["kd"][0], rel=1e-5)
    page = (directory / "report.html").read_text()
    shown = ("loss", "accuracy", "label", "kd", "primary score")
    assert all(f"<figcaption>{name}, epoch by epoch</figcaption>" in page for name in shown)
    histories = [json.loads(p.read_text())["history"] for p in sorted(directory.glob("kd/*/r*"))]
    assert list(_page._histories(directory)) == [("kd", own) for own in histories]


def test_page_says_what_the_run_does_not_have(copied):
    """A file that failed; validation images that are not there; records without a history."""
    recipe, _, directory = copied

    def page():
        return _page.write(recipe, directory).read_text()

    assert "validation images (dashed; crosses)" in page() and "FAILED" not in page()
    results = files.read_record(directory / "results.json")
    lost = {"path": "export/a.tflite", "check": "FAILED", "failure": "differs by <1>"}
    files.write_record(
        directory / "results.json", {**results, "exports": [*results["exports"], lost]}
    )
    assert "FAILED, and not kept: export/a.tflite: differs by &lt;1&gt;" in page()
    assert "<td>export/a.tflite" not in page()
    files.write_record(directory / "results.json", {**results, "exports": [lost]})
    assert "FAILED, and not kept: export/a.tflite" in page()
    files.write_record(directory / "results.json", {**results, "exports": []})
    assert "<h2>Files</h2>" not in page()
    path = directory / "generation_0" / "results.json"
    own = files.read_record(path)
    seen = {name: v for name, v in own["history"].items() if not name.startswith("val_")}
    files.write_record(path, {**own, "history": seen})
    assert "as they were being learned.</p>" in page() and "dashed" not in page()
    files.write_record(path, {k: v for k, v in own.items() if k != "history"})
    assert "<h2>Training</h2>" not in page()


@NEEDS_CHROMIUM
def test_pages_in_a_browser(runs, tmp_path):
    """No request, no complaint; all plots are drawn, on a screen and on a telephone."""
    least = {"born_again": 2 + 5, "compress": 3, "distill": 1 + 5, "self_distillation": 2 + 5}
    pages = {directory / "report.html": least[name] for name, (*_, directory, _) in runs.items()}
    check_pages(pages, tmp_path)


def test_compress_says_what_came_of_a_target(teacher, tmp_path, capsys):
    """Of 4 channels each has 9 + 1 weights and is read by 36 x 10 others, beside 10 biases."""
    target = ["--structure=channels", "--target=parameters=0.6", "--quantize=float32"]
    directory = tmp_path / "run"
    flags = [f"--model={teacher}", "--methods=plain", "--epochs=1", f"--output_dir={directory}"]
    assert compress.RECIPE.main([*FLAGS, *target, *flags]) == 0
    words = "parameters=0.6: 750 of 1,490 parameters, asked for 894; 4 networks measured"
    assert words in capsys.readouterr().out.splitlines()
    assert "750 of 1,490 parameters" in (directory / "report.html").read_text()


def test_exports_that_are_not_as_they_were_are_made_again(copied, capsys):
    recipe, argv, directory = copied
    (file,) = directory.glob("export/*.tflite")
    networks = {path: path.read_bytes() for path in directory.rglob("network.keras")}
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    facts = directory / "generation_0" / "network.json"
    described = facts.read_text()
    facts.write_text(described.replace("0", "1", 1))
    (directory / "export" / "notes.txt").write_text("mine")  # which is nobody's business
    assert recipe.main(argv) == 0
    said = f"{directory}: export/student.tflite, generation_0/network.json are not as the finished"
    assert capsys.readouterr().err.startswith(f"{said} run left them; made again\n")
    assert facts.read_text() == described
    assert len(file.read_bytes()) == len(content)
    assert {path: path.read_bytes() for path in networks} == networks
    assert recipe.main(argv) == 0
    assert "finished on" in capsys.readouterr().err


def test_damaged_results_are_not_shown(copied):
    """Not one bit of them: the run looks for itself."""
    recipe, argv, directory = copied
    path = directory / "results.json"
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.choice(len(content), 200, replace=False):
        damaged = bytearray(content)
        damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        flags = _command.Flags()
        recipe.define(flags)
        flags.parse(argv)
        assert _finished.results(recipe.name, flags) is None


def test_run_killed_while_it_exports_goes_on(copied, capsys):
    """The results were written, without exports."""
    recipe, argv, directory = copied
    results = files.read_record(directory / "results.json")
    kept = {key: results[key] for key in results.keys() - {"exports", "finished", "files"}}
    files.write_record(directory / "results.json", kept)
    shutil.rmtree(directory / "export")
    assert recipe.main(argv) == 0
    assert "finished on" not in capsys.readouterr().err
    again = json.loads((directory / "results.json").read_text())
    assert again["files"] == _report.left(directory)
    assert {row["format"] for row in again["exports"]} == {"saved_model", "litert"}


def test_results_of_other_data_are_not_gone_on_with(finished, monkeypatch, capsys):
    recipe, argv, directory, _ = finished
    known = data.load("digits", train_examples=60)
    mirrored = data.Split(known.train.images[:, ::-1], known.train.labels, known.preprocessing)
    other = dataclasses.replace(known, train=mirrored)
    monkeypatch.setattr(_session, "load", lambda flags: other)
    monkeypatch.setattr(_finished, "results", lambda *arguments: None)
    before = states(directory)
    assert recipe.main(argv) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"{recipe.name}: ") and f"output_dir={directory}, with data=" in line
    assert {path.name for path, at in states(directory).items() if at != before.get(path)} <= {
        *("config.flags", directory.name)
    }


def test_finished_run_knows_the_files_of_its_data(tmp_path):
    """Of a folder the names and sizes of images, by this formula; of an archive every byte."""
    for name in ("train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"0" * int(name[-5]))
    names = ("train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png")
    text = "".join(f"('{name}', {size})" for size, name in enumerate(names, start=1))
    expected = hashlib.sha256(text.encode()).hexdigest()
    assert _session.data_digest(str(tmp_path)) == expected
    (tmp_path / "train" / "notes.txt").write_text("no image")
    assert _session.data_digest(str(tmp_path)) == expected
    (tmp_path / "test" / "b" / "4.png").write_bytes(b"another")
    assert _session.data_digest(str(tmp_path)) != expected


def test_finished_run_of_other_data_is_not_shown(tmp_path):
    archive, directory = tmp_path / "d.npz", tmp_path / "run"
    np.savez(archive, images=np.zeros((20, 8, 8, 1), np.uint8), labels=np.arange(20) % 2)
    flags = _command.Flags()
    recipe = born_again.RECIPE
    recipe.define(flags)
    flags.parse([f"--dataset={archive}", f"--output_dir={directory}"])
    recipe.check(flags)
    with contextlib.ExitStack() as held:
        flags.remember([], held)
        _command.claim_output_dir(flags)
    loaded = data.load(str(archive))
    given = {"given": _session.given_data(loaded.info)}
    _session.finish(recipe.name, flags, directory, loaded, given)
    assert _finished.results(recipe.name, flags)["given"] == {"dataset": files.sha256(archive)}
    np.savez(archive, images=np.ones((20, 8, 8, 1), np.uint8), labels=np.arange(20) % 2)
    assert _finished.results(recipe.name, flags) is None


def test_page_of_an_older_start_does_not_outlast_a_kill(copied, monkeypatch):
    recipe, argv, directory = copied
    page = directory / "report.html"
    page.write_text("older")
    (directory / "export" / "labels.txt").unlink()

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(_page, "write", kill)
        recipe._main(argv)
    assert not page.exists()
    assert recipe.main(argv) == 0
    assert "<h1>resnet8 in generations on digits</h1>" in page.read_text()


def test_workers_prepare_their_process_before_they_meet(monkeypatch, tmp_path):
    """A kernel that was made before operations are deterministic keeps to what held then."""
    workers = {"cluster": {"worker": ["localhost:1", "localhost:2"]}, "task": {}}
    workers["task"] = {"type": "worker", "index": 0}
    monkeypatch.setenv("TF_CONFIG", json.dumps(workers))
    done = []

    def noting(name, value=None):
        return lambda *_, **__: (done.append(name), value)[1]

    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", noting("deterministic"))
    monkeypatch.setattr(distribution, "strategy", noting("workers"))
    monkeypatch.setattr(distribution, "from_chief", noting("message"))
    monkeypatch.setattr(data, "load", noting("data"))
    flags = _command.Flags()
    born_again.RECIPE.define(flags)
    argv = ["--deterministic=true", "--strategy=multi_worker", f"--output_dir={tmp_path}"]
    flags.parse(argv)
    assert _finished.results("born_again", flags) is None
    assert done[:2] == ["deterministic", "workers"] and done[-1] == "message"
    done.clear()
    _session.load(flags)
    assert done == ["deterministic", "workers", "data"]


@pytest.mark.parametrize(("name", "flag"), [("compress", "model"), ("distill", "teacher")])
def test_another_given_network_is_not_taken_for_the_first(runs, name, flag, teacher, capsys):
    recipe, argv, _, _ = runs[name]
    content = teacher.read_bytes()
    network = keras.models.load_model(teacher)
    network.set_weights([weight + 1 for weight in network.get_weights()])
    try:
        network.save(teacher)
        assert recipe.main(argv) == 2
    finally:
        teacher.write_bytes(content)
    assert f"--{flag}={teacher} is another file than" in capsys.readouterr().err


def test_networks_work_in_plain_keras(finished):
    """As the README says: with what lies beside each."""
    recipe, _, directory, _ = finished
    split = data.load("digits", train_examples=60).test
    images, truth = split.pixels()
    networks = sorted(directory.rglob("network.keras"))
    assert bool(networks) == (recipe.name != "compress")  # which trains nothing here
    for path in networks:
        network = keras.models.load_model(path)
        facts = json.loads(path.with_name("network.json").read_text())
        x = (images / 255 - np.array(facts["mean"])) / np.array(facts["std"])
        logits = network.predict(x, verbose=0)
        if isinstance(logits, dict):
            logits = logits[max(logits)]
        labels = [facts["labels"][index] for index in logits.argmax(axis=-1)]
        row = json.loads(path.with_name("results.json").read_text())
        figures = row.get("exits", {"exit": row})
        figures = figures[max(name for name in figures if name.startswith("exit"))]
        accuracy = np.mean(np.array(labels) == truth.astype(str))
        assert accuracy == pytest.approx(figures["test_accuracy"])


def test_network_of_a_run_as_one_file(runs, tmp_path):
    """Bytes in: the figures of the last generation, from one file in plain Keras."""
    _, _, directory, _ = runs["born_again"]
    output = tmp_path / "digits.keras"
    arguments = ["export", str(directory), "--with_preprocessing", f"--output={output}"]
    assert cli.main(arguments) == 0
    images, truth = data.load("digits", train_examples=60).test.pixels()
    classes = keras.models.load_model(output).predict(images, verbose=0).argmax(axis=-1)
    row = json.loads((directory / "results.json").read_text())["generations"][-1]
    assert np.mean(classes == truth) == pytest.approx(row["test_accuracy"])
    assert json.loads(output.with_suffix(".json").read_text())["labels"] == list("0123456789")
