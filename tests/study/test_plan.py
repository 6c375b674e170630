"""Plans: what they say, and one line for each mistake."""

import dataclasses
import shlex
from pathlib import Path

import numpy as np
import pytest

from kdtoolkit import cli, files, study
from kdtoolkit.report.svg import svg
from kdtoolkit.study import page, teachers
from kdtoolkit.study.results import pack, unpack

GOOD = """
title = "A study"
recipe = "born_again"
seeds = [1, 2]
[flags]
dataset = "digits"
epochs = 1
[arms.strict]
title = "D(1, 0.5)"
flags = { primary_score = 1.0, kd_weight = [0.5, 0.6] }
[arms.tolerant]
patriarch_of = "strict"
flags = { primary_score = 1.0, kd_weight = 0.7 }
[[comparisons]]
of = ["tolerant", "generation 1"]
to = ["strict", "generation 0"]
"""
OWN = 'patriarch_of = "strict"\nflags = { primary_score = 1.0, kd_weight = 0.7 }'


def test_a_plan(tmp_path):
    (tmp_path / "good.toml").write_text(GOOD)
    plan = study.read_plan(tmp_path / "good.toml")
    assert (plan.name, plan.title, plan.seeds) == ("good", "A study", (1, 2))
    strict, tolerant = plan.arms
    assert dict(strict.flags) == {
        "dataset": "digits",
        "epochs": 1,
        "primary_score": 1.0,
        "kd_weight": [0.5, 0.6],
    }
    assert (strict.title, tolerant.title, tolerant.patriarch_of) == (
        "D(1, 0.5)",
        "tolerant",
        "strict",
    )
    assert plan.comparisons[0].of == ("tolerant", "generation 1")


def test_students_of_a_shared_patriarch_may_be_taught_by_any_method(tmp_path):
    text = GOOD.replace("kd_weight = 0.7", 'methods = "dkd+standardize", dkd_alpha = 2.0')
    assert text != GOOD
    (tmp_path / "good.toml").write_text(text)
    assert study.read_plan(tmp_path / "good.toml").arm("tolerant").patriarch_of == "strict"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("[1, 2]", "[1, 1]"), "`seeds` must be different integers from 0"),
        (("[1, 2]", "[]"), "`seeds` must be"),
        (("[1, 2]", "[1, 3000000000]"), "`seeds` must be different integers from 0 to 2147483647"),
        (('title = "A study"', ""), "`title` is missing"),
        (("[flags]", "[flag]"), "Near matches: flags"),
        (("epochs = 1", "seed = 1"), "--seed is the study's own"),
        (("epochs = 1", "epochs = {}"), "--epochs of arms.strict must be text, a number"),
        (("epochs = 1", "epoch = 1"), "arms.strict: Unknown command line flag 'epoch'"),
        (('recipe = "born_again"', ""), "`recipe` is missing: for arms.strict"),
        (
            ('patriarch_of = "strict"', 'recipe = "born"'),
            "of arms.tolerant must be one of born_again",
        ),
        (("primary_score = 1.0, kd_weight = 0.7", "primary_score = 0.6"), "by --primary_score"),
        (('of = ["tolerant"', 'of = ["other"'), "must be the name of an arm, of strict, tolerant"),
        (('patriarch_of = "strict"', 'patriarch_of = "tolerant"'), "must be an arm before it"),
        (("[arms.strict]", "[arms.Strict]"), "must be lower-case letters"),
        (("[arms.strict]", "[arms.strict]\nseeds = [1, 1]"), "`seeds` of arms.strict must be diff"),
        (("[arms.strict]", "[arms.strict]\nseeds = [1, 3]"), "must be of the plan's, 1, 2. Rec"),
        (("[arms.strict]", "[arms.strict]\nseeds = [2]"), "must be an arm that has its seeds"),
        (("title =", "title"), "is no TOML file"),
        (("epochs = 1", 'model = "{runs}/strict/seed_{seed}"'), "of which there is none. Rec"),
        (
            (OWN, 'flags = { dataset = "other.npz", model = "{runs}/strict/seed_{seed}" }'),
            "Received: --dataset=other.npz of arms.tolerant, --dataset=digits of arms.strict",
        ),
        (
            (OWN, 'flags = { model = "{runs}/strict/seed_{seed}", epoch = 3 }'),
            "arms.tolerant: Unknown command line flag 'epoch'",
        ),
        (
            (OWN, 'flags = { model = "{runs}/strikt/seed_{seed}" }'),
            "--model of arms.tolerant must name an arm before it after {runs}/, strict. Received: "
            "'strikt'. Near matches: strict.",
        ),
    ],
)
def test_a_mistake_is_one_line(change, said, tmp_path, capsys):
    path = tmp_path / "bad.toml"
    assert change[0] in GOOD
    path.write_text(GOOD.replace(*change, 1))
    assert cli.main(["study", str(path), f"--output_dir={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error and error.startswith("study: ")
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "FILE"),
        (["nothing.toml"], "FILE must be a file. Received: nothing.toml"),
        (["setup.cfg"], "FILE must be one NAME.toml"),
        (["setup.cfg", "--time"], "--time applies to a plan, NAME.toml"),
        (["setup.cfg", "--results=x.json"], "--results applies to a plan, NAME.toml"),
        (["setup.cfg", "--output_dir=x"], "--output_dir applies to a plan, NAME.toml"),
        (["setup.cfg", "--data_dir=x"], "--data_dir applies to a plan, NAME.toml"),
        (["setup.cfg", "--plots=x"], "--plots applies to a page, --page"),
        (["pyproject.toml", "--page=x.md"], "--page applies to results, NAME.json"),
        (["pyproject.toml", "--plots=x"], "--plots applies to results, NAME.json"),
    ],
)
def test_a_wrong_command_is_one_line(arguments, said, capsys, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    assert cli.main(["study", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error


def test_booleans_as_text():
    correct = np.random.default_rng(0).random(1003) < 0.3
    text = pack(correct)
    assert np.array_equal(unpack(text), correct)
    assert len(text) < 1003 / 8 * 4 / 3 + 30


def test_seeds_of_an_arm(tmp_path):
    path = tmp_path / "good.toml"
    path.write_text(GOOD.replace("[arms.tolerant]", "[arms.tolerant]\nseeds = [2]"))
    plan = study.read_plan(path)
    expected = [("strict", 1), ("strict", 2), ("tolerant", 2)]
    assert [(arm.name, seed) for arm, seed in plan.runs()] == expected
    study.write_results(tmp_path / "good.json", study.Results(plan, {}))
    assert study.read_results(tmp_path / "good.json").plan == plan


def results(tmp_path):
    """Two seeds of two arms on eight images, whose tables are known."""
    (tmp_path / "good.toml").write_text(GOOD)
    plan = study.read_plan(tmp_path / "good.toml")
    facts = {
        "commit": "0123456789",
        "environment": {"device": "CPU", "cores": 2, "versions": {"keras": "3"}},
        "finished": "2026-01-01T00:00:00+00:00",
    }
    right = {"strict": "11110000", "tolerant": "11111000"}
    runs = {}
    for seed in (1, 2):
        for arm, bits in right.items():
            name = "generation 0" if arm == "strict" else "generation 1"
            correct = np.array([bit == "1" for bit in bits])
            if seed == 2 and arm == "tolerant":
                correct[5:7] = True
            figures = {"test_accuracy": float(correct.mean()), "seconds": 1800.0}
            runs[arm, seed] = study.Run(
                arm, seed, "command", facts, {name: figures}, {name: correct}
            )
    return study.Results(plan, runs)


def test_results_are_kept_and_every_flipped_byte_is_noticed(tmp_path):
    found = results(tmp_path)
    path = tmp_path / "good.json"
    study.write_results(path, found)
    again = study.read_results(path)
    assert again.plan == found.plan and again.runs.keys() == found.runs.keys()
    for key, run in found.runs.items():
        assert again.runs[key].outcomes == run.outcomes and again.runs[key].facts == run.facts
        for name, correct in run.correct.items():
            assert np.array_equal(again.runs[key].correct[name], correct)
    content = path.read_bytes()
    for place in range(0, len(content), 41):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(files.DamagedFileError, match=r"good\.json"):
            study.read_results(path)


def test_tables(tmp_path):
    """Strict 4 of 8 twice; tolerant 5 and 7 of 8: differences of 1/8 and 3/8."""
    text = page.text(results(tmp_path))
    assert "| D(1, 0.5) | generation 0 | 50.00 ± 0.00 | 2 |" in text
    # The deviation of 62.5 and 87.5.
    assert "| tolerant | generation 1 | 75.00 ± 17.68 | 2 |" in text
    # 12.706205 is t of 0.975 with one degree of freedom; the deviation of 12.5 and 37.5 is 17.678.
    assert "| +25.00 | [-133.83, +183.83] |" in text and "| +12.50, +37.50 |" in text
    assert "4 runs, 2.0 hours of training; CPU, 2 cores; keras 3; commit 0123456." in text


def test_a_comparison_of_an_outcome_that_no_run_has_is_one_line(tmp_path, capsys):
    found = results(tmp_path)
    comparison = study.Comparison(("tolerant", "generatoin 1"), ("strict", "generation 0"))
    plan = dataclasses.replace(found.plan, comparisons=(comparison,))
    study.write_results(tmp_path / "good.json", study.Results(plan, found.runs))
    assert cli.main(["study", str(tmp_path / "good.json")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "outcome of arms.tolerant, generation 1. Received: 'generatoin 1'. Near matches" in error
    # A run that has not ended may have it.
    del found.runs["tolerant", 2]
    assert page.compared(study.Results(plan, found.runs)) == []


def test_a_comparison_on_other_images_is_one_line(tmp_path, capsys):
    found = results(tmp_path)
    for seed in (1, 2):
        correct = found.runs["strict", seed].correct
        correct["generation 0"] = correct["generation 0"][:7]
    study.write_results(tmp_path / "good.json", found)
    assert cli.main(["study", str(tmp_path / "good.json")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "tolerant, generation 1 - D(1, 0.5), generation 0: Argument `than` must be of" in error


def test_what_arms_share_is_shown_once(tmp_path):
    """A row of the same name, right on the same images, of the same size, with both seeds."""
    found = results(tmp_path)
    for (arm, seed), run in found.runs.items():
        own = seed if arm == "strict" else 3
        for name, places in {"original": [], "level": [own], "smaller": []}.items():
            run.correct[name] = np.ones(8, bool)
            run.correct[name][places] = False
            run.outcomes[name] = {
                "test_accuracy": float(run.correct[name].mean()),
                "bytes": 1000 * (own if name == "smaller" else 7),
                "seconds": own,
                "milliseconds_per_image": own,
            }
    text = page.text(found)
    rows = [line.split(" | ")[:2] for line in text.splitlines() if line.startswith("| ")][2:10]
    assert rows[:7] == [
        ["| D(1, 0.5)", "generation 0"],
        ["| D(1, 0.5)", "original"],
        ["| D(1, 0.5)", "level"],
        ["| D(1, 0.5)", "smaller"],
        ["| tolerant", "generation 1"],
        ["| tolerant", "level"],
        ["| tolerant", "smaller"],
    ]
    said = "What several arms have, the same image by image, is shown once."
    assert text.count(said) == 1 and said not in page.text(results(tmp_path))
    pictured = page.plot(found).axes[0].get_yticklabels()
    assert len(pictured) == 7


def test_a_page_is_filled(tmp_path, capsys):
    study.write_results(tmp_path / "good.json", results(tmp_path))
    target = tmp_path / "evidence.md"
    target.write_text(
        "before\n<!-- study good: generated -->\nold\n<!-- study good: end -->\nafter\n"
    )
    arguments = ["study", str(tmp_path / "good.json"), f"--page={target}", f"--plots={tmp_path}"]
    for _ in range(2):
        assert cli.main(arguments) == 0
        text = target.read_text()
        assert text.startswith("before\n<!--") and text.endswith("end -->\nafter\n")
        assert "old" not in text and text.count("62.50") == 0 and text.count("75.00") == 1
    drawn = (tmp_path / "good.svg").read_text()
    assert drawn.count('id="row') == 2
    begin, end = "<!-- study good: generated -->", "<!-- study good: end -->"
    for text, said in {
        "<!-- study other: generated -->": "other",
        f"{end}\n{begin}": "good",
    }.items():
        target.write_text(f"{text}\nrest\n")
        assert cli.main(arguments) == 2
        assert f"study {said} has no end, or no results" in capsys.readouterr().err
        assert target.read_text() == f"{text}\nrest\n"


def test_titles_are_any_text(tmp_path):
    """What is no formula of Matplotlib's; what would end a cell of a Markdown table."""
    found, title = results(tmp_path), r"a|b $\frac$"
    arms = tuple(dataclasses.replace(arm, title=title) for arm in found.plan.arms)
    found = study.Results(dataclasses.replace(found.plan, arms=arms), found.runs)
    text = page.text(found)  # of two rows, and a difference of the two
    assert text.count(r"| a\|b $\frac$, ") == 1 and text.count(r"| a\|b $\frac$ |") == 2
    assert "a|b" not in text
    students = [teachers.Taught("good", title, 1, 1, 0.9, 0.1)]
    for figure in (page.plot(found), teachers.plot(students)):
        assert title in svg(figure, "name")


def test_two_files_of_one_study_are_refused(tmp_path, capsys):
    paths = [tmp_path / name for name in ("good.json", "again.json")]
    for path in paths:
        study.write_results(path, results(tmp_path))
    assert cli.main(["study", *map(str, paths)]) == 2
    said = f"FILE must be one of each study. Received: {paths[1]}, the second of good"
    assert said in capsys.readouterr().err


def test_committed_results_are_of_their_plans():
    """A plan may have grown since; the page, made anew from the results, does not change."""
    root = Path(__file__).parents[2]
    found = {}
    for path in sorted((root / "benchmarks" / "studies").glob("*.json")):
        one = study.read_results(path)
        plan = study.read_plan(path.with_suffix(".toml"))
        assert set(one.plan.seeds) <= set(plan.seeds)
        assert [arm for arm in plan.arms if arm in one.plan.arms] == list(one.plan.arms)
        assert set(one.plan.comparisons) <= set(plan.comparisons)
        for run in one.runs.values():
            assert shlex.split(run.command)[:3] == [
                "python",
                "-m",
                f"kdtoolkit.recipes.{one.plan.arm(run.arm).recipe}",
            ]
            for name, figures in run.outcomes.items():
                assert run.correct[name].mean() == pytest.approx(
                    figures["test_accuracy"], abs=2.5 / len(run.correct[name])
                )
        found[one.plan.name] = one
    evidence = root / "docs" / "evidence.md"
    if evidence.exists():
        text = evidence.read_text()
        assert page.fill(text, found) == text
        assert all(f"<!-- study {name}: generated -->" in text for name in found)


def test_gains_against_how_sure_the_teacher_is(tmp_path):
    """The plain network has 4 of 8; students have 5 and 7, of teachers whose scores are known."""
    found = results(tmp_path)
    runs = {}
    for (arm, seed), run in found.runs.items():
        zero = {"test_accuracy": 0.5, "train_primary_score": 0.9 if seed == 1 else 0.8}
        outcomes = {**run.outcomes, "generation 0": zero, "ensemble 0..1": {"test_accuracy": 1.0}}
        outcomes["generation 1"] = {
            **outcomes.get("generation 1", zero),
            "train_primary_score": 0.7,
        }
        correct = dict.fromkeys(outcomes, np.ones(8, bool))
        runs[arm, seed] = dataclasses.replace(run, outcomes=outcomes, correct=correct)
    found = study.Results(found.plan, runs)
    students = teachers.taught([found])
    assert [
        (one.arm, one.seed, one.generation, one.teacher_score, one.gain) for one in students
    ] == [
        ("D(1, 0.5)", 1, 1, 0.9, 0.0),
        ("D(1, 0.5)", 2, 1, 0.8, 0.0),
        ("tolerant", 1, 1, 0.9, 0.125),
        ("tolerant", 2, 1, 0.8, 0.375),
    ]
    study.write_results(tmp_path / "good.json", found)
    target = tmp_path / "evidence.md"
    target.write_text("<!-- teachers go: generated -->\n<!-- teachers go: end -->\nafter\n")
    arguments = ["study", str(tmp_path / "good.json"), f"--page={target}", f"--plots={tmp_path}"]
    for _ in range(2):
        assert cli.main(arguments) == 0
        text = target.read_text()
        assert "| good | tolerant | 1 | 0.850 | +25.00 | +12.50, +37.50 |" in text
        assert text.endswith("end -->\nafter\n")
    assert (tmp_path / "teachers-go.svg").read_text().count('id="student') == 4
    assert page.fill(text, {"good": found}) == text
    with pytest.raises(ValueError, match="teachers other has no end, or no results"):
        page.fill("<!-- teachers other: generated -->", {"good": found})
