"""`--protocol=benchmark`: all training images, nothing held out, nothing chosen."""

import json

import keras
import pytest

from kdtoolkit import data
from kdtoolkit.recipes import _flags, distill
from kdtoolkit.training.schedules import SCHEDULES

BENCHMARK = "--protocol=benchmark"


def schedule(*argv):
    flags, (usual, *_) = distill.RECIPE.parse(argv)
    return flags, _flags.schedule(flags, usual)


@pytest.mark.parametrize(
    ("student", "rate"),
    [("resnet8x4", 0.05), ("vgg8", 0.05), ("shufflenetv1", 0.01), ("mobilenetv2-0.5", 0.01)],
)
def test_schedule_of_the_benchmark(student, rate):
    """As its public code has it: batches of 64, 240 epochs, plain momentum, tenths of the rate."""
    flags, found = schedule(BENCHMARK, f"--student={student}", "--image_size=32")
    assert (flags.epochs, flags.batch_size, flags.validation_fraction) == (240, 64, 0)
    assert (found.momentum, found.nesterov, found.weight_decay) == (0.9, False, 5e-4)
    assert found.learning_rates() == pytest.approx((rate, rate / 10, rate / 100, rate / 1000))
    # 50,000 images are 782 batches.
    assert found.drop_steps(240, 782) == (150 * 782, 180 * 782, 210 * 782)
    assert not found.optimizer(240, 782).nesterov


def test_the_usual_protocol_stays():
    flags, found = schedule("--dataset=digits")
    assert flags.validation_fraction == 0.1 and flags.export == "best"
    assert found == SCHEDULES["digits"] and found.optimizer(2, 5).nesterov


def test_momentum_without_nesterov_takes_its_step():
    """`m = 0.9 m - rate g; w += m`, twice with a gradient of 1."""
    variable = keras.Variable([0.0])
    _, found = schedule(BENCHMARK)
    optimizer = found.optimizer(240, 782)
    for _ in range(2):
        optimizer.apply([keras.ops.ones(1)], [variable])
    assert float(variable[0]) == pytest.approx(-0.05 - (0.9 * 0.05 + 0.05))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--protocol=bench"], "--protocol must be one of held_out, benchmark"),
        ([BENCHMARK, "--validation_fraction=0.2"], "--validation_fraction applies to"),
        ([BENCHMARK, "--schedule=densenet"], "--schedule applies to"),
        ([BENCHMARK, "--export=best", "--seeds=1,2"], "--export must be none with --protocol"),
        (["--validation_fraction=0"], "--validation_fraction must be in (0, 1)"),
    ],
)
def test_mistakes_are_one_line(flags, said, tmp_path, capsys):
    assert distill.RECIPE.main([*flags, f"--output_dir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error
    assert not list(tmp_path.iterdir())


def test_a_run(tmp_path, capsys):
    """Every image that is no test image is trained on, and none validates."""
    command = [BENCHMARK, "--methods=kd", "--epochs=1", "--teacher=resnet8", "--batch_size=128"]
    command += [f"--output_dir={tmp_path / 'run'}", "--deterministic=false"]
    assert distill.RECIPE.main(command) == 0
    output = capsys.readouterr()
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    splits = data.load("digits")
    everything = len(splits.train) + len(splits.validation)
    assert results["data"]["train"] == everything and results["data"]["validation"] == 0
    assert results["data"]["test"] == len(splits.test)
    assert results["data"]["test_from"] == "held out of the training images"
    (row,) = results["methods"]
    assert row["validation_accuracy"] is None and 0 <= row["test_accuracy"] <= 1
    assert f"{everything:,} images to train on, 0 to validate on (none)" in output.err
    assert "val_accuracy" not in output.err
    assert "Exported: kd, seed 0\n" in output.out
    assert distill.RECIPE.main(command) == 0 and "finished on" in capsys.readouterr().err
