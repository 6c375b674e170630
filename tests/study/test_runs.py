"""Studies that are run: shared patriarchs, and kills that change no figure."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from kdtoolkit import cli, files, study
from kdtoolkit.study import runs
from kdtoolkit.study.results import pack

PLAN = """
title = "small"
recipe = "born_again"
seeds = [3]
[flags]
dataset = "digits"
model = "resnet8"
train_examples = 100
epochs = 2
generations = 1
export = "none"
[arms.a]
flags = { primary_score = 1.0, kd_weight = 0.5 }
[arms.same]
patriarch_of = "a"
flags = { primary_score = 1.0, kd_weight = 0.5 }
"""
KILLS = int(os.environ.get("KDTOOLKIT_TEST_KILLS", os.environ.get("KDTOOLKIT_TEST") == "all"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("study")
    plan = directory / "small.toml"
    plan.write_text(PLAN)
    assert cli.main(["study", str(plan), f"--output_dir={directory / 'out'}"]) == 0
    return directory, study.read_results(directory / "small.json")


@pytest.fixture
def started(monkeypatch):
    """Module, arm, seed and arguments of what a study starts, which only writes its files."""
    called = []

    def process(module, given, arm, seed, output_dir, where):
        called.append((module, arm.name, seed, given))
        if module == "timing":
            return files.write_record(given[1], {"it": 7.0})
        (output_dir / arm.name / f"seed_{seed}" / "generation_0").mkdir(parents=True, exist_ok=True)
        outcome = {"test_accuracy": 1.0, "milliseconds_per_image": 1.0, "correct": pack([True])}
        environment = {"device": "CPU", "cores": 2, "versions": {"keras": "3"}}
        record = {"environment": environment, "finished": "now", "outcomes": {"it": outcome}}
        return files.write_record(given[1], {**record, "command": given[3]})

    monkeypatch.setattr(runs, "_process", process)
    return called


def figures(results):
    """Without how long it took."""
    return {
        (*key, name): (
            {k: v for k, v in run.outcomes[name].items() if k != "seconds"},
            run.correct[name].tolist(),
        )
        for key, run in results.runs.items()
        for name in run.outcomes
    }


def test_a_shared_patriarch_is_the_one_that_would_be_trained(finished):
    directory, results = finished
    own, shared = results.runs["a", 3], results.runs["same", 3]
    assert own.outcomes.keys() == {"generation 0", "generation 1", "ensemble 0..1"}
    for name in own.outcomes:
        assert np.array_equal(own.correct[name], shared.correct[name])
    first = (directory / "out/a/seed_3/generation_0/network.keras").read_bytes()
    assert first == (directory / "out/same/seed_3/generation_0/network.keras").read_bytes()
    assert (directory / "out" / "report.html").read_text().count("<svg") == 1


def test_a_finished_study_is_not_run_again(finished, capsys):
    directory, results = finished
    assert cli.main(["study", str(directory / "small.toml"), f"--output_dir={directory}/new"]) == 0
    assert "Study small" not in capsys.readouterr().err
    assert not list((directory / "new").glob("*/*"))
    assert figures(study.read_results(directory / "small.json")) == figures(results)


def test_results_of_other_flags_are_refused(finished, tmp_path, capsys):
    directory, _ = finished
    plan = tmp_path / "small.toml"
    plan.write_text(PLAN.replace("epochs = 2", "epochs = 3"))
    arguments = [f"--results={directory / 'small.json'}", f"--output_dir={tmp_path / 'out'}"]
    assert cli.main(["study", str(plan), *arguments]) == 2
    assert "holds arm a, seed 3, with other flags" in capsys.readouterr().err
    # Nor are what is left of them in the directories of its runs.
    arguments = [f"--results={tmp_path / 'new.json'}", f"--output_dir={directory / 'out'}"]
    assert cli.main(["study", str(plan), *arguments]) == 2
    error = capsys.readouterr().err
    assert "/out holds arm a, seed 3, with other flags: python -m" in error
    assert "--epochs=2" in error and not (tmp_path / "new.json").exists()


def test_results_that_a_plan_has_not_are_not_lost(finished, tmp_path, capsys):
    directory, _ = finished
    plan = tmp_path / "small.toml"
    plan.write_text(PLAN.replace("seeds = [3]", "seeds = [4]"))
    content = (directory / "small.json").read_bytes()
    arguments = [f"--results={directory / 'small.json'}", f"--output_dir={tmp_path / 'out'}"]
    assert cli.main(["study", str(plan), *arguments]) == 2
    assert "holds arm a, seed 3, which the plan has not" in capsys.readouterr().err
    assert (directory / "small.json").read_bytes() == content


def test_timing_loses_no_results_either(started, tmp_path, capsys):
    plan = tmp_path / "small.toml"
    arguments = ["study", str(plan), f"--output_dir={tmp_path / 'out'}"]
    plan.write_text(PLAN)
    assert cli.main(arguments) == 0
    content = (tmp_path / "small.json").read_bytes()
    plan.write_text(PLAN.partition("[arms.same]")[0])
    assert cli.main([*arguments, "--time"]) == 2
    assert "holds arm same, seed 3, which the plan has not" in capsys.readouterr().err
    assert (tmp_path / "small.json").read_bytes() == content


def test_networks_of_other_flags_are_not_used(started, tmp_path, capsys):
    """Not to be timed, as a patriarch, or as a teacher, where the results file knows their arms."""
    plan = tmp_path / "small.toml"

    def run(text, output_dir, *more):
        plan.write_text(text)
        started.clear()
        results = f"--results={tmp_path / 'new.json'}"
        return cli.main(
            ["study", str(plan), f"--output_dir={tmp_path / output_dir}", results, *more]
        )

    alone = PLAN.partition("[arms.same]")[0]
    assert run(alone, "old") == 0
    (tmp_path / "new.json").unlink()
    other, both = (
        alone.replace("epochs = 2", "epochs = 1"),
        PLAN.replace("epochs = 2", "epochs = 1"),
    )
    assert run(other, "new") == 0 and len(started) == 1
    taught = f'{other}[arms.taught]\nflags = {{ model = "{{runs}}/a/seed_{{seed}}" }}\n'
    for text, more in ((other, ["--time"]), (both, []), (taught, [])):
        assert run(text, "old", *more) == 2
        assert "/old holds arm a, seed 3, with other flags: python -m" in capsys.readouterr().err
        assert started == []
    # What was not finished says nothing of its flags.
    (tmp_path / "old" / "a" / "seed_3.json").unlink()
    assert run(other, "old", "--time") == 0 and started == []
    assert run(both, "old") == 0
    assert [(arm, given[2]) for _, arm, _, given in started] == [("same", "")]
    assert run(both, "new") == 0 and started == []


def test_directories_that_are_not_there_are_named_before_anything_is_run(started, tmp_path, capsys):
    plan, output_dir = tmp_path / "small.toml", tmp_path / "out"
    plan.write_text(PLAN)
    arguments = ["study", str(plan), f"--output_dir={output_dir}"]
    results = tmp_path / "nowhere" / "small.json"
    assert cli.main([*arguments, f"--results={results}"]) == 2
    said = f"{results}, of the results, must be in a directory that exists\n"
    assert capsys.readouterr().err.endswith(said) and started == []
    assert cli.main(arguments) == 0
    started.clear()
    shutil.rmtree(output_dir)
    assert cli.main([*arguments, "--time"]) == 2
    assert f"study: {output_dir} must be the directory of the runs" in capsys.readouterr().err
    assert started == [] and not output_dir.exists()


def test_a_tilde_is_the_home_directory(started, tmp_path, monkeypatch):
    """As it is to the recipes, whose directories lie in that of the study."""
    home, here = tmp_path / "home", tmp_path / "here"
    for directory in (home, here):
        directory.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    plan = here / "small.toml"
    plan.write_text(PLAN)
    arguments = ["--output_dir=~/out", "--results=~/small.json"]
    assert cli.main(["study", "small.toml", *arguments]) == 0
    assert (home / "out" / "report.html").exists() and (home / "small.json").exists()
    study.run_study(study.read_plan(plan), "~/again", "~/again.json")
    assert (home / "again" / "a" / "seed_3.json").exists() and (home / "again.json").exists()
    assert list(here.iterdir()) == [plan]


@pytest.mark.skipif(not KILLS, reason="set KDTOOLKIT_TEST=all, or KDTOOLKIT_TEST_KILLS to a number")
def test_kills_change_no_figure(finished, tmp_path):
    plan = tmp_path / "small.toml"
    plan.write_text(PLAN.partition("[arms.same]")[0])
    command = [sys.executable, "-m", "kdtoolkit.cli", "study", str(plan)]
    command += [f"--output_dir={tmp_path / 'out'}"]
    chance, killed = random.Random(5), 0
    while killed < KILLS:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(3, 12))
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            break
        killed += 1
    # The process that computed ends by itself, and lets go of its directory.
    deadline = time.monotonic() + 60
    while (status := subprocess.run(command, capture_output=True).returncode) == 1:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert status == 0 and killed > 0
    found = figures(study.read_results(tmp_path / "small.json"))
    expected = figures(finished[1])
    assert found == {key: expected[key] for key in expected if key[0] == "a"}


def test_milliseconds_are_measured_when_a_run_ends_and_again_when_asked(
    tmp_path, capsys, monkeypatch
):
    """With processes that only write what the real ones would."""
    plan = tmp_path / "exits.toml"
    plan.write_text(PLAN.partition("[arms.same]")[0].replace("[3]", "[3, 4]"))
    arguments = ["study", str(plan), f"--output_dir={tmp_path / 'out'}"]
    assert cli.main([*arguments, "--time"]) == 2
    assert "exits.json must hold finished runs" in capsys.readouterr().err
    called, measured = [], iter([study.RunFailedError("a", 3, 1), 5.0, 6.0, 7.0])

    def process(module, given, arm, seed, output_dir, where):
        called.append((module, seed))
        path = tmp_path / "out" / "a" / f"seed_{seed}"
        path.mkdir(exist_ok=True)
        if module == "worker":
            timed = {"test_accuracy": 0.5, "milliseconds_per_image": None}
            outcomes = {"fast": timed, "other": {"test_accuracy": 0.5}}
            outcomes = {
                name: {**one, "correct": pack([True, False])} for name, one in outcomes.items()
            }
            environment = {"device": "CPU", "cores": 2, "versions": {"keras": "3"}}
            record = {"environment": environment, "finished": "now", "outcomes": outcomes}
            record["command"] = given[3]
            return files.write_record(given[1], record)
        found = next(measured)
        if isinstance(found, Exception):
            raise found
        return files.write_record(given[1], {"fast": found})

    def milliseconds():
        runs = study.read_results(tmp_path / "exits.json").runs
        return [run.outcomes["fast"]["milliseconds_per_image"] for run in runs.values()]

    monkeypatch.setattr(runs, "_process", process)
    assert cli.main(arguments) == 1  # stopped while it measures: what was trained is there
    assert cli.main(arguments) == 0
    assert called == [("worker", 3), ("timing", 3), ("timing", 3), ("worker", 4), ("timing", 4)]
    assert milliseconds() == [5.0, 6.0]
    (tmp_path / "out" / "a" / "seed_3").rmdir()
    assert cli.main([*arguments, "--time"]) == 0
    assert called[5:] == [("timing", 4)] and milliseconds() == [5.0, 7.0]
    found = study.read_results(tmp_path / "exits.json").runs["a", 3]
    assert "milliseconds_per_image" not in found.outcomes["other"]


def test_a_network_that_is_gone_is_trained_again_where_an_arm_needs_it(tmp_path, monkeypatch):
    """And what was found of it stays; with processes that only write what the real ones would."""
    plan, started, stop_at = tmp_path / "chain.toml", [], None

    def process(module, given, arm, seed, output_dir, where):
        started.append((arm.name, seed))
        if len(started) == stop_at:
            (output_dir / arm.name / f"seed_{seed}").mkdir()
            raise runs.RunFailedError(arm.name, seed, 1)
        (output_dir / arm.name / f"seed_{seed}").mkdir(exist_ok=True)
        outcomes = {"it": {"test_accuracy": len(started), "correct": pack([True])}}
        environment = {"device": "CPU", "cores": 2, "versions": {"keras": "3"}}
        record = {"environment": environment, "finished": "now", "outcomes": outcomes}
        record["command"] = given[3]
        files.write_record(given[1], record)

    def arm(name, before=None):
        model = f"{{runs}}/{before}/seed_{{seed}}" if before else "resnet8"
        return f'[arms.{name}]\nrecipe = "born_again"\nflags = {{ model = "{model}" }}\n'

    def run(output_dir, *arms):
        plan.write_text('title = "chain"\nseeds = [0, 1]\n' + "".join(arms))
        status = cli.main(["study", str(plan), f"--output_dir={tmp_path / output_dir}"])
        assert status == (0 if stop_at is None else 1)
        found = study.read_results(tmp_path / "chain.json").runs
        return {key: one.outcomes["it"]["test_accuracy"] for key, one in found.items()}

    monkeypatch.setattr(runs, "_process", process)
    arms = [arm("first"), arm("second", "first")]
    before = run("out", *arms)
    assert started == [("first", 0), ("second", 0), ("first", 1), ("second", 1)]
    started.clear()
    after = run("elsewhere", *arms, arm("third", "second"), arm("alone"))
    chain = ["first", "second", "third", "alone"]
    assert started == [(name, seed) for seed in (0, 1) for name in chain]
    assert before.items() <= after.items()
    # One that was stopped while it was trained again is not taken for whole.
    for name in ("first", "second", "third"):
        shutil.rmtree(tmp_path / "elsewhere" / name / "seed_0")
    started.clear()
    stop_at = 2
    arms += [arm("third", "second"), arm("alone"), arm("fourth", "third")]
    run("elsewhere", *arms)
    assert started == [("first", 0), ("second", 0)]
    started.clear()
    stop_at = None
    run("elsewhere", *arms)
    assert started[:3] == [(name, 0) for name in ("second", "third", "fourth")]
