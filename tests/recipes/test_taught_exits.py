"""Self-distillation in generations: exits that a network before taught as well."""

import keras
import pytest

from kdtoolkit import files, models
from kdtoolkit.recipes.self_distillation import RECIPE
from tests.recipes import small_family

SMALL = ("--model=staged", "--train_examples=60", "--batch_size=30", "--export=none")
SMALL = (*SMALL, "--deterministic=false", "--head_width=4")


@pytest.fixture(scope="module", autouse=True)
def registered():
    with pytest.MonkeyPatch.context() as patch:
        small_family.register(patch)
        yield


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    directory = tmp_path_factory.mktemp("exits") / "before"
    flags = ["--primary_score=0.6", "--epochs=1", f"--output_dir={directory}"]
    assert RECIPE.main([*SMALL, *flags]) == 0
    return directory


def test_a_generation_remembers_its_teacher(before, tmp_path, capsys):
    flags = [*SMALL, "--epochs=2", f"--output_dir={tmp_path / 'run'}"]
    flags.append("--methods=kd+embedding+probability_shift+focal")
    assert RECIPE.main([*flags, f"--teacher={before}"]) == 0
    given = files.read_record(tmp_path / "run" / "results.json")["given"]
    network = before / "self_distillation" / "network.keras"
    assert given == {"teacher": files.sha256(network)}
    capsys.readouterr()
    assert RECIPE.main([*flags, f"--teacher={before}"]) == 0
    assert "finished on" in capsys.readouterr().err
    assert RECIPE.main(flags) == 2  # without the teacher it is another run
    assert "--teacher" in capsys.readouterr().err


def test_a_teacher_without_exits(before, tmp_path, capsys):
    network = keras.models.load_model(before / "self_distillation" / "network.keras")
    models.cut(network, "exit_2").save(tmp_path / "cut.keras")
    flags = [
        f"--teacher={tmp_path / 'cut.keras'}",
        "--epochs=1",
        f"--output_dir={tmp_path / 'run'}",
    ]
    assert RECIPE.main([*SMALL, *flags]) == 2
    error = capsys.readouterr().err
    assert "--teacher" in error and "exits" in error and error.count("\n") == 1
    assert RECIPE.main([*SMALL, f"--teacher={before}", "--model=resnet8x4", *flags[1:]]) == 2
    error = capsys.readouterr().err
    assert "--teacher must have exits with features as wide" in error
    assert RECIPE.main([*SMALL, f"--teacher={before}", "--image_size=16", *flags[1:]]) == 2
    error = capsys.readouterr().err
    assert "--teacher must be a network for images of shape (16, 16, 1)" in error
    assert not (tmp_path / "run").exists()
