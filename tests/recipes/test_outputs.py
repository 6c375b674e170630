"""Another run's directory as a network: only as the run left it."""

import json
import shutil
import types

import pytest

from kdtoolkit import files
from kdtoolkit.data import Preprocessing, beside
from kdtoolkit.recipes import _outputs
from kdtoolkit.recipes._command import UsageError
from kdtoolkit.recipes._outputs import network_path
from kdtoolkit.training import record

RESULTS = {"recipe": "born_again", "generations": [{"generation": 0}, {"generation": 1}]}


@pytest.fixture
def run(tmp_path):
    for generation in range(2):
        name = f"generation_{generation}"
        (tmp_path / name).mkdir()
        (tmp_path / name / "network.keras").write_text(f"network {generation}")
        record.write(tmp_path / name, {"generation": generation}, {"name": name})
    files.write_record(tmp_path / "results.json", RESULTS)
    return tmp_path


def test_last_generation(run):
    assert network_path(str(run), "--teacher") == run / "generation_1" / "network.keras"


def change(name, old, new):
    def do(run):
        text = (run / name).read_text()
        assert old in text
        (run / name).write_text(text.replace(old, new))

    return do


def copy_generation(run):
    shutil.copytree(run / "generation_0", run / "generation_1", dirs_exist_ok=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change("results.json", "born_again", "born_agaim"), "match its checksum"),
        (change("results.json", '"sha256"', '"sha25v"'), "no checksum"),
        (lambda run: (run / "results.json").write_text(json.dumps(RESULTS)), "older version"),
        (change("generation_1/results.json", '"generation": 1', '"generation": 0'), "checksum"),
        (change("generation_1/network.keras", "1", "0"), r"network\.keras is not the one"),
        (lambda run: (run / "generation_1/network.keras").unlink(), r"network\.keras"),
        (copy_generation, "another training: name 'generation_0', not 'generation_1'"),
    ],
)
def test_what_the_run_did_not_leave_is_refused(run, damage, message):
    damage(run)
    with pytest.raises(UsageError, match=f"^--teacher={run} is not .*{message}"):
        network_path(str(run), "--teacher")
    path = run / "generation_0" / "network.keras"
    assert network_path(str(path), "--teacher") == path


def test_a_network_of_other_normalisation_is_told(tmp_path, capsys):
    path, flags = tmp_path / "network.keras", types.SimpleNamespace(strategy="one_device")

    def said(mean):
        here = Preprocessing((8, 8, 1), (mean,), (0.38,))
        _outputs.say_normalisation(flags, "model", path, here)
        return capsys.readouterr().err

    assert said(0.3) == ""  # nothing is known of it
    beside.write(path, Preprocessing((8, 8, 1), (0.3,), (0.25,)), ["a", "b"])
    assert said(0.3) == (
        "--model: it was trained on images normalised by mean 0.300 and deviation 0.250; here it "
        "sees them by this data set's, 0.300 and 0.380\n"
    )
    beside.write(path, Preprocessing((8, 8, 1), (0.3001,), (0.38,)), ["a", "b"])
    assert said(0.3) == ""
    path.with_suffix(".json").write_text("[]")
    assert said(0.3) == ""


def test_shrink_ends_with_no_network(run):
    files.write_record(run / "results.json", {"recipe": "shrink"})
    with pytest.raises(UsageError, match=f"^--teacher={run} is of shrink, which ends with a file"):
        network_path(str(run), "--teacher")
