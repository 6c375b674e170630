"""The recipes from flags to files that run on a device, on a few real digits."""

import contextlib
import importlib
import io
import json

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from kdtoolkit import data, files, models
from kdtoolkit.edge import EarlyExitClassifier
from kdtoolkit.recipes import _command, _session, born_again
from kdtoolkit.training import finiteness
from tests import processes
from tests.losses import reference
from tests.recipes import small_family

EXACT = "--precision=float32"  # on every machine
SMALL = ("--train_examples=300", "--epochs=3")


@pytest.fixture(scope="module", autouse=True)
def registered():
    with pytest.MonkeyPatch.context() as patch:
        small_family.register(patch)
        yield


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", train_examples=300).test


# Of 1,797 a fifth is tested on, a tenth of the others validates.
DIGITS = {
    "train": 300,
    "validation": 144,
    "test": 359,
    "validation_from": "held out of the training images",
    "test_from": "held out of the training images",
    "classes": 10,
    "first_classes": ["0", "1", "2"],
    "image_shape": [8, 8, 1],
}
LOADED = (
    "Data: 300 images to train on, 144 to validate on (held out of the training images), "
    "359 to test on (held out of the training images), 8x8x1, 10 classes (0, 1, 2, ...)"
)


def run(recipe, output_dir, *flags):
    """What a run in this process prints, and its results."""
    output, error = io.StringIO(), io.StringIO()
    module = importlib.import_module(f"kdtoolkit.recipes.{recipe}")
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(error):
        status = module.RECIPE.main([f"--output_dir={output_dir}", *SMALL, *flags])
    assert status == 0, error.getvalue()
    return output.getvalue(), checked(output_dir, error.getvalue())


def run_command(recipe, output_dir, *flags):
    """The same of a process of its own, as a user starts it."""
    command = ("-m", f"kdtoolkit.recipes.{recipe}", f"--output_dir={output_dir}")
    done = processes.run(*command, *SMALL, *flags)
    assert done.returncode == 0, done.stderr
    return done.stdout, checked(output_dir, done.stderr)


def checked(output_dir, error):
    results = json.loads((output_dir / "results.json").read_text())
    assert results["data"] == DIGITS
    said = error.splitlines()
    assert LOADED in said
    for row in results.get("exports", ()):
        assert f"Exporting and checking {row['path']}" in said
    return results


def normalised(split):
    """The images as a network takes them, by the formula, in float64."""
    preprocessing = split.preprocessing
    images = split.images / 255.0 - np.asarray(preprocessing.mean)
    return (images / np.asarray(preprocessing.std)).astype("float32")


def test_born_again_exports_the_ensemble(tmp_path, digits):
    output, results = run_command("born_again", tmp_path, "--generations=1", "--export=ensemble")
    networks = [
        keras.models.load_model(tmp_path / f"generation_{g}" / "network.keras") for g in (0, 1)
    ]
    x = normalised(digits)
    probabilities = [reference.softmax(network.predict(x, verbose=0)) for network in networks]
    mean = np.mean(probabilities, axis=0)
    accuracies = [(p.argmax(-1) == digits.labels).mean() for p in (*probabilities, mean)]
    rows = results["generations"]
    assert rows[0]["test_accuracy"] == pytest.approx(accuracies[0])
    assert rows[1]["test_accuracy"] == pytest.approx(accuracies[1])
    assert rows[1]["ensemble_test_accuracy"] == pytest.approx(accuracies[2])
    truth = probabilities[1][np.arange(len(mean)), digits.labels]
    assert rows[1]["test_loss"] == pytest.approx(-np.log(truth).mean(), rel=1e-4)
    assert rows[1]["primary_score"] == pytest.approx(probabilities[1].max(-1).mean(), rel=1e-5)
    assert f"{accuracies[2]:.2%}" in output

    saved_model, litert = results["exports"]
    assert (saved_model["format"], litert["format"]) == ("saved_model", "litert")
    for row in results["exports"]:
        assert row["test_accuracy"] == pytest.approx(accuracies[2])
        assert row["max_difference"] < 1e-4
    runner = Interpreter(str(tmp_path / litert["path"])).get_signature_runner("serving_default")
    exported = [runner(image=image[None])["probabilities"][0] for image in digits.images[:20]]
    np.testing.assert_allclose(exported, mean[:20], atol=1e-5)


@pytest.fixture(scope="module")
def self_distilled(tmp_path_factory):
    directory = tmp_path_factory.mktemp("self_distilled") / "run"
    # A drop that some thresholds keep, whatever few epochs make of the exits.
    flags = ("--baseline", "--deep_supervision", "--epochs=8", "--max_accuracy_drop=0.3", EXACT)
    return (directory, *run("self_distillation", directory, *flags))


def test_self_distillation_table(self_distilled, digits):
    directory, output, results = self_distilled
    x = normalised(digits)
    for row in results["exits"]:
        network = keras.models.load_model(directory / row["method"] / "network.keras")
        logits = network.predict(x, verbose=0)
        if row["method"] == "baseline":
            logits = {"network": logits}
        else:
            logits["ensemble"] = np.mean(list(logits.values()), axis=0)
        assert row["exits"].keys() == logits.keys()
        for name, z in logits.items():
            accuracy = (z.argmax(-1) == digits.labels).mean()
            assert row["exits"][name]["test_accuracy"] == pytest.approx(accuracy)
            assert f"{accuracy:.2%}" in output
    assert [row["method"] for row in results["exits"]] == [
        "baseline",
        "deep_supervision",
        "self_distillation",
    ]


def test_early_exit_file_is_what_the_network_decides(self_distilled, digits):
    """Stops and decisions of the packaged file, from the Keras logits in NumPy."""
    directory, _, results = self_distilled
    network = keras.models.load_model(directory / "self_distillation" / "network.keras")
    logits = network.predict(normalised(digits), verbose=0)
    curve = json.loads((directory / "export" / "early_exit.json").read_text())
    point = curve["operating_points"][curve["operating_point"]]
    thresholds = [*point["thresholds"], 0]
    predicted, costs = [], []
    for i in range(len(digits.labels)):
        for k, name in enumerate(models.exit_names(network)):
            f = reference.softmax(logits[name][i] / curve["temperatures"][k])
            if f.max() >= thresholds[k]:
                break
        predicted.append(f.argmax())
        costs.append(curve["costs"][k])
    accuracy = (np.array(predicted) == digits.labels).mean()
    assert point["test_accuracy"] == pytest.approx(accuracy)
    assert point["test_cost"] == pytest.approx(np.mean(costs))

    row = results["exports"][0]
    assert row["quantization"] == "float32"
    assert row["test_accuracy"] == pytest.approx(accuracy)
    assert row["mean_exit_cost"] == pytest.approx(np.mean(costs))
    classifier = EarlyExitClassifier(directory / row["path"])
    assert classifier.labels == tuple("0123456789")
    assert [p.index for p in classifier.predict(list(digits.images))] == predicted
    assert (directory / "export" / "early_exit.png").read_bytes().startswith(b"\x89PNG")


def alone(results):
    """What runs without other exits, cheapest first: name -> figures, with MACs of ResNet-8."""
    figures = {**results["exits"][-1]["exits"], "baseline": results["exits"][0]["exits"]["network"]}
    stem_and_stage1, stage2, stage3 = 304_128, 229_376, 230_016
    head1 = 64 * 16 * 16 + 4 * (16 * 16 * 16 + 16 * 64) + 640
    head2 = 16 * 32 * 16 + 4 * (4 * 16 * 16 + 16 * 64) + 640
    whole = stem_and_stage1 + stage2 + stage3
    costs = {
        "exit_1": (stem_and_stage1 + head1) / whole,
        "exit_2": (stem_and_stage1 + stage2 + head2) / whole,
        "exit_3": 1.0,
        "baseline": 1.0,
    }
    return {name: {"cost": cost, **figures[name]} for name, cost in costs.items()}


def test_no_operating_point_is_beaten(self_distilled):
    """By the plain network, or by an exit alone; the costs are worked out by hand."""
    directory, output, results = self_distilled
    curve = json.loads((directory / "export" / "early_exit.json").read_text())
    others = alone(results)
    assert [choice["name"] for choice in curve["alone"]] == list(others)
    for choice in curve["alone"]:
        expected = others[choice["name"]]
        assert choice["cost"] == pytest.approx(expected["cost"])
        for figure in ("validation_accuracy", "test_accuracy"):
            assert choice[figure] == pytest.approx(expected[figure])
    assert curve["operating_points"]
    for point in curve["operating_points"]:
        for other in others.values():
            more_accurate = point["validation_accuracy"] > other["validation_accuracy"] + 1e-9
            assert more_accurate or point["cost"] < other["cost"] - 1e-9
    assert curve["costs"] == list(results["exit_costs"].values())
    assert curve["costs"][-1] > 1  # with all heads
    assert results["early_exit"]["verdict"] == curve["verdict"]
    assert curve["verdict"] in output.splitlines()


def test_single_exit_meets_the_accuracy(self_distilled):
    directory, _, results = self_distilled
    figures = alone(results)
    best = max(figures[name]["validation_accuracy"] for name in ("exit_3", "baseline"))
    enough = [n for n in figures if figures[n]["validation_accuracy"] >= best - 0.3]
    expected = min(enough, key=lambda n: (figures[n]["cost"], -figures[n]["validation_accuracy"]))
    saved_model, litert = results["exports"][-2:]
    assert litert["path"] == f"export/{expected}.tflite"
    for row in (saved_model, litert):
        assert row["test_accuracy"] == pytest.approx(figures[expected]["test_accuracy"])
        assert (directory / row["path"]).exists()


SAID = ("--author=A. Nt", "--license=Apache-2.0")
TAUGHT = ("--teacher_epochs=4", "--student=staged", "--methods=plain,kd+attention", "--seeds=1,2")


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    directory = tmp_path_factory.mktemp("distilled") / "run"
    return (directory, *run("distill", directory, "--teacher=resnet8", EXACT, *TAUGHT, *SAID))


def test_distill_table(distilled, digits):
    directory, output, results = distilled
    x = normalised(digits)
    accuracies = {}
    for row in [*results["methods"], {**results["teacher"], "method": "teacher"}]:
        name = row["method"] if "seed" not in row else f"{row['method']}/seed_{row['seed']}"
        network = keras.models.load_model(directory / name / "network.keras")
        accuracy = (network.predict(x, verbose=0).argmax(-1) == digits.labels).mean()
        assert row["test_accuracy"] == pytest.approx(accuracy)
        accuracies.setdefault(row["method"], []).append(accuracy)
    plain, taught = accuracies["plain"], accuracies["kd+attention"]
    for method, row in zip(("plain", "kd+attention"), results["summary"], strict=True):
        mean, deviation = np.mean(accuracies[method]), np.std(accuracies[method], ddof=1)
        assert row["test_accuracy"] == pytest.approx(mean)
        assert row["test_accuracy_deviation"] == pytest.approx(deviation, abs=1e-9)
        assert f"{mean:.2%} ± {100 * deviation:.2f}" in output
    gain = np.mean(np.subtract(taught, plain))
    assert results["summary"][1]["gain"] == pytest.approx(gain, abs=1e-9)
    assert f"{100 * gain:+.2f}" in output
    best = max(results["methods"], key=lambda row: row["validation_accuracy"])
    assert results["best"] == best
    assert {row["test_accuracy"] for row in results["exports"]} == {best["test_accuracy"]}
    student = (directory / "export" / "student.tflite").read_bytes()
    assert b"A. Nt" in student and b"Apache-2.0" in student and b"0\n1\n2\n3\n" in student
    labels = directory / "export" / "labels.txt"
    assert labels.read_text().split() == list("0123456789")


def test_teacher_from_a_file_teaches_the_same(distilled, tmp_path):
    """The first run's teacher, as a file: students end with the same weights, bit for bit."""
    directory, _, _ = distilled
    teacher = tmp_path / "teacher.keras"
    teacher.write_bytes((directory / "teacher" / "network.keras").read_bytes())
    flags = (f"--teacher={teacher}", *TAUGHT[1:2], "--method=kd+attention", "--seed=2", EXACT)
    run("distill", tmp_path / "run", *flags, "--export=none")
    networks = [
        keras.models.load_model(run / "kd+attention" / "seed_2" / "network.keras")
        for run in (directory, tmp_path / "run")
    ]
    pairs = zip(*(network.get_weights() for network in networks), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)

    assert json.loads((tmp_path / "run" / "results.json").read_text())["seed"] == 2
    keras.models.load_model(teacher).save(teacher)  # another file of the same network
    with pytest.raises(AssertionError, match=r"--teacher=.* is another file"):
        run("distill", tmp_path / "run", *flags, "--export=none")


def test_cached_teacher_is_computed_once_for_all_methods(distilled, tmp_path):
    """As many views as epochs: the plain student sees what it sees without them."""
    directory, _, _ = distilled
    teacher = f"--teacher={directory / 'teacher' / 'network.keras'}"
    flags = (teacher, "--student=staged", "--methods=plain,kd+attention", "--seed=1", EXACT)
    cache = ("--cache_teacher", "--views=3", "--teacher_seed=1")
    _, results = run("distill", tmp_path / "run", *flags, *cache, "--export=none")
    plain, taught = results["methods"]
    assert plain["test_accuracy"] == distilled[2]["methods"][0]["test_accuracy"]
    networks = [
        keras.models.load_model(run / "plain" / "seed_1" / "network.keras")
        for run in (directory, tmp_path / "run")
    ]
    pairs = zip(*(network.get_weights() for network in networks), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)
    # float16 moves a loss in its fourth digit; the training is short.
    expected = distilled[2]["methods"][1]["test_loss"]
    assert taught["test_loss"] == pytest.approx(expected, rel=0.2)
    (cached,) = files.contents(tmp_path / "run" / "teacher_cache")
    images = 3 * 300 * np.dtype(np.float16).itemsize
    sizes = sorted(path.stat().st_size for path in cached.glob("*.npy"))
    stages = [8 * 8 * 16, 4 * 4 * 32, 2 * 2 * 64]
    assert sizes == sorted(128 + images * values for values in (10, *stages))


@pytest.fixture(scope="module")
def compressed(distilled, tmp_path_factory):
    directory = tmp_path_factory.mktemp("compressed") / "run"
    flags = (f"--model={distilled[0]}", "--sparsity=0.7", "--quantize=int8,qat")
    return (directory, *run("compress", directory, *flags))


def test_compress_table(compressed, digits):
    directory, output, results = compressed
    names = ["original", "original, int8"]
    names += ["70% weights", "70% weights, int8", "70% weights, qat"]
    assert [row["variant"] for row in results["variants"]] == names
    page = (directory / "report.html").read_text()
    for row in results["variants"]:
        runner = Interpreter(str(directory / row["path"])).get_signature_runner("serving_default")
        right = [
            runner(image=image[None])["probabilities"][0].argmax() == label
            for image, label in zip(digits.images, digits.labels, strict=True)
        ]
        assert row["test_accuracy"] == pytest.approx(np.mean(right))
        assert row["bytes"] == (directory / row["path"]).stat().st_size
        for cell in (row["variant"], f"{np.mean(right):.2%}", f"{row['gzipped_bytes']:,d}"):
            assert cell in output
            assert f">{cell}</td>" in page


def test_compressed_network_has_its_zeros(compressed):
    """All but the first convolution and the small head; the zeros outlast quantisation."""
    directory, _, results = compressed
    network = keras.models.load_model(directory / "pruned" / "network.keras")
    kernels = {
        layer.name: layer.kernel.numpy() for layer in network.layers if hasattr(layer, "kernel")
    }
    for name, kernel in kernels.items():
        expected = 0 if name in ("stem_conv", "logits") else 0.7
        assert np.mean(kernel == 0) == pytest.approx(expected, abs=0.5 / kernel.size + 1e-9)
    zeros = sum((kernel == 0).sum() for kernel in kernels.values())
    share = zeros / sum(kernel.size for kernel in kernels.values())
    _, _, *pruned = results["variants"]
    assert [row["sparsity"] for row in pruned] == pytest.approx([share] * 3, abs=1e-3)


def test_compress_takes_channels_out(distilled, tmp_path):
    teacher = distilled[0] / "teacher" / "network.keras"
    flags = (f"--model={teacher}", "--structure=channels", "--methods=plain", "--epochs=1")
    _, results = run("compress", tmp_path / "run", *flags, "--quantize=float32")
    before, after = results["variants"]
    network = keras.models.load_model(tmp_path / "run" / "pruned" / "network.keras")
    assert network.get_layer("stage2_block1_conv1").kernel.shape == (3, 3, 8, 16)
    assert after["parameters"] < before["parameters"] / 3
    assert after["macs"] < before["macs"] / 3


def test_training_that_overflows_is_one_line_and_leaves_nothing_finished(
    tmp_path, capsys, monkeypatch
):
    """Its loss is finite; its moving variances are not. The advice is one that is accepted."""
    monkeypatch.setattr("kdtoolkit.recipes._session.prepare_process", lambda flags: None)
    command = [
        *("--precision=float32", "--epochs=2", "--generations=0", "--train_examples=300"),
        *("--export=none", f"--output_dir={tmp_path / 'run'}"),
    ]
    assert born_again.RECIPE.main(["--learning_rate=3e3", *command]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    *_, line = captured.err.splitlines()
    assert line.startswith("born_again: Generation 0: ")
    assert "is not finite" in line
    assert "A lower --learning_rate may help, in another --output_dir" in line
    left = {path.name for path in tmp_path.rglob("*") if path.suffix in (".keras", ".state")}
    assert left == set()
    assert not list(tmp_path.rglob("results.json"))
    assert born_again.RECIPE.main(["--learning_rate=0.1", *command]) == 2


@pytest.mark.parametrize(
    ("error", "helps"),
    [
        (finiteness.NonFiniteInputError(0, 3, 7), False),
        (finiteness.NonFiniteInputError(2, 0, None), False),
        (finiteness.UnknownClassError(1, 3, 7, 10), False),
        (finiteness.NonFiniteLossError(0, 0, "labels"), False),
        (finiteness.NonFiniteLossError(0, 1, "labels"), True),
        (finiteness.NonFiniteLossError(1, 0, "labels"), True),
        (finiteness.NonFiniteVariableError(0, "dense/kernel"), True),
        (finiteness.NonFiniteError("The trained network's figures are not finite"), True),
    ],
)
def test_a_lower_learning_rate_is_advised_where_it_may_help(error, helps):
    """Not for images that are not finite, nor before there was a step."""
    with (
        pytest.raises(_command.RunError) as caught,
        _session.one_line_errors(data.load("digits", train_examples=60)),
    ):
        raise error
    assert str(caught.value).startswith(str(error))
    assert ("lower --learning_rate" in str(caught.value)) == helps
