"""Early exit by the recipe's flags; the choice itself is tested in tests/export."""

import json

from kdtoolkit.recipes import self_distillation


def untrained(session, variants, evaluate):
    """Costs do not depend on what a network has learned."""
    networks = {name: build() for name, (build, _) in variants.items()}
    rows = {name: {**evaluate(name, network), "seconds": 0.0} for name, network in networks.items()}
    return networks, rows


def test_costs_in_milliseconds(tmp_path, monkeypatch, capsys):
    """Of the plain network's own file, which has no heads: that one is 1."""
    # Tests share a process, in which operations stay as they are.
    monkeypatch.setattr("kdtoolkit.recipes._session.prepare_process", lambda flags: None)
    monkeypatch.setattr("kdtoolkit.recipes._session.Session.train", untrained)
    flags = ["--smoke", "--model=resnet8", "--cost=milliseconds", "--baseline"]
    command = [*flags, f"--output_dir={tmp_path / 'run'}"]
    assert self_distillation.RECIPE.main(command) == 0, capsys.readouterr().err
    export = tmp_path / "run-smoke" / "export"
    curve = json.loads((export / "early_exit.json").read_text())
    alone = {choice["name"]: choice["cost"] for choice in curve["alone"]}
    assert curve["cost_unit"] == "milliseconds"
    assert alone["exit_3"] == alone["baseline"] == 1
    assert curve["costs"] == sorted(curve["costs"])
    for name, cost in zip(curve["exits"], curve["costs"], strict=True):
        assert 0 < alone[name] <= cost
    assert (export / "early_exit-float32.tflite").exists()
