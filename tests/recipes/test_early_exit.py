"""Early exit by the recipe's flags; the choice itself is tested in tests/export."""

import pytest

from kdtoolkit import export
from kdtoolkit.recipes import _command, self_distillation


def untrained(session, variants, evaluate, transfer=None):
    """What is asked of the package does not depend on what a network has learned."""
    networks = {name: build() for name, (build, _) in variants.items()}
    rows = {name: {**evaluate(name, network), "seconds": 0.0} for name, network in networks.items()}
    return networks, rows


def test_one_validation_image_certifies_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("kdtoolkit.recipes._session.prepare_process", lambda flags: None)
    flags = ["--model=resnet8", "--validation_fraction=0.0005", "--certify=0.1"]
    assert self_distillation.RECIPE.main([*flags, f"--output_dir={tmp_path / 'run'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--certify must be left out where there is but one validation image" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--cost=milliseconds"], {"cost_unit": "milliseconds", "certify": None, "budget": None}),
        (["--budget=0.9", "--quantize=int8"], {"budget": 0.9, "quantizations": ["int8"]}),
        (["--certify=0.02", "--confidence=0.8"], {"certify": 0.02, "confidence": 0.8}),
        (["--max_accuracy_drop=0.1"], {"max_accuracy_drop": 0.1, "cost_unit": "macs"}),
    ],
)
def test_flags_are_arguments_of_the_package(flags, expected, tmp_path, monkeypatch, capsys):
    # Tests share a process, in which operations stay as they are.
    monkeypatch.setattr("kdtoolkit.recipes._session.prepare_process", lambda flags: None)
    monkeypatch.setattr("kdtoolkit.recipes._session.Session.train", untrained)
    given = {}

    def package(network, data, directory, **options):
        given.update(options)
        raise _command.RunError("enough")

    monkeypatch.setattr(export, "package_early_exit", package)
    command = ["--smoke", "--model=resnet8", "--baseline", f"--output_dir={tmp_path / 'run'}"]
    assert self_distillation.RECIPE.main([*command, *flags]) == 1, capsys.readouterr().err
    assert expected.items() <= given.items()
    assert given["baseline"].name == "resnet8"
