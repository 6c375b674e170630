"""From a classifier to the chosen file, in one command; interrupted, it ends the same."""

import contextlib
import json
import signal

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers
from PIL import Image
from sklearn.datasets import load_sample_images

from kdtoolkit import data, files, training
from kdtoolkit.edge import EarlyExitClassifier
from kdtoolkit.edge.__main__ import main as edge_command
from kdtoolkit.recipes import shrink
from kdtoolkit.training import checkpoint, evaluation
from tests.processes import run
from tests.recipes import small_family
from tests.report.browser import NEEDS_CHROMIUM, check_pages


@pytest.fixture(autouse=True)
def same_process(monkeypatch):
    # Tests share a process, in which operations stay as they are.
    monkeypatch.setattr("kdtoolkit.recipes._session.prepare_process", lambda flags: None)


def right(path, images, labels):
    """The share of right decisions of a file, by LiteRT alone."""
    runner = Interpreter(str(path)).get_signature_runner("serving_default")
    decided = [runner(image=image[None])["probabilities"][0].argmax() for image in images]
    return np.mean(np.array(decided) == labels)


def results(directory):
    return json.loads((directory / "results.json").read_text())


def assert_chosen(directory, cost, validation, limit):
    """The chosen file keeps the limit, and nothing smaller does; worked out anew."""
    found = results(directory)
    rows = [row for row in found["files_tried"] if row["failure"] is None]
    accuracies = {}
    for row in rows:
        path = directory / row["path"]
        assert row["bytes"] == path.stat().st_size
        if row["candidate"] == "early_exit":
            classifier, (images, labels) = EarlyExitClassifier(path), validation
            decided = [prediction.index for prediction in classifier.predict(list(images))]
            accuracies[row["name"]] = np.mean(np.array(decided) == labels)
        else:
            accuracies[row["name"]] = right(path, *validation)
        assert row["validation_accuracy"] == pytest.approx(accuracies[row["name"]])
    assert rows[0]["name"] == "classifier, float32"
    least = accuracies["classifier, float32"] - limit - 1e-9
    chosen = found["chosen"]
    assert accuracies[chosen["name"]] >= least
    for row in rows:
        assert accuracies[row["name"]] < least or row[cost] >= chosen[cost]
    copy = directory / "export" / "chosen.tflite"
    assert files.sha256(copy) == files.sha256(directory / chosen["path"])
    assert [row["name"] for row in rows if row["chosen"]] == [chosen["name"]]
    return found


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """`photos/` of dark ants and bright bees, and weights of a backbone."""
    path = tmp_path_factory.mktemp("shrink")
    random = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 4)):
        for name, least in (("ant", 0), ("bee", 56)):
            (path / "photos" / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(least, least + 200, (32, 32, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(path / "photos" / split / name / f"{index}.png")
    keras.utils.set_random_seed(3)
    small_family.backbone((32, 32, 3)).save_weights(path / "trained.weights.h5")
    return path


def test_photos_and_trained_weights(photos, tmp_path, monkeypatch, capsys):
    """The classifier is fine-tuned first. It is too short for exits: a line says so."""
    small_family.register(monkeypatch)
    flags = [f"--dataset={photos / 'photos'}", "--image_size=32", "--model=small"]
    flags += [f"--weights={photos / 'trained.weights.h5'}", "--epochs=3", "--batch_size=16"]
    flags += ["--freeze_epochs=1", "--candidates=early_exit", "--target=bytes"]
    directory = tmp_path / "run"
    assert shrink.RECIPE.main([*flags, f"--output_dir={directory}"]) == 0
    output = capsys.readouterr().out
    loaded = data.load(str(photos / "photos"), image_size=32)
    found = assert_chosen(directory, "bytes", loaded.validation.spread(2_000), 0.01)
    outcomes = {row["candidate"]: row["outcome"] for row in found["tried"]}
    assert outcomes["early_exit"] == "small has no place where an exit saves anything"
    assert outcomes["early_exit"] in " ".join(output.split())
    assert found["verdict"] in output
    command = f"python -m kdtoolkit.edge {directory}/export/chosen.tflite IMAGE"
    assert f"    {command}" in output.splitlines()
    photo = next((photos / "photos").rglob("*.png"))
    assert edge_command([str(directory / "export" / "chosen.tflite"), str(photo)]) == 0
    said = capsys.readouterr().out.split("\t")
    assert said[0] == str(photo) and said[1] in ("ant", "bee")
    assert (directory / "export" / "labels.txt").read_text().split() == ["ant", "bee"]
    row = results(directory / "classifier" / "generation_0")
    images, labels = loaded.test.pixels()
    accuracy = right(directory / found["files_tried"][0]["path"], images, labels)
    assert row["test_accuracy"] == pytest.approx(accuracy)
    assert list(found["given"]) == ["weights", "dataset"]


def staged(shape, classes):
    """A network with stages, of few channels."""
    x = image = keras.Input(shape)
    for stage, channels, stride in ((1, 12, 4), (2, 16, 2)):
        x = layers.Conv2D(channels, 3, stride, padding="same", use_bias=False)(x)
        x = layers.ReLU(name=f"stage{stage}")(layers.BatchNormalization(momentum=0.9)(x))
    return keras.Model(
        image, layers.Dense(classes)(layers.GlobalAveragePooling2D()(x)), name="small"
    )


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A folder of real images of 64 pixels: parts of the halves of two photographs, four classes.

    Beside it `small.keras`, a classifier that knows something of them.
    """
    path = tmp_path_factory.mktemp("parts")
    sample = load_sample_images()
    for photograph, pixels in zip(("china", "flower"), sample.images, strict=True):
        for half, begin in (("top", 0), ("bottom", 213)):
            for number, (row, column) in enumerate(np.ndindex(6, 19)):
                split = "test" if number % 6 == 5 else "train"
                folder = path / "photos" / split / f"{photograph}_{half}"
                folder.mkdir(parents=True, exist_ok=True)
                top, left = begin + 30 * row, 30 * column
                part = pixels[top : top + 64, left : left + 64]
                Image.fromarray(part).save(folder / f"{number}.png")
    loaded = data.load(str(path / "photos"), image_size=64)
    keras.utils.set_random_seed(0)
    network = staged(loaded.info.image_shape, loaded.info.classes)
    trainer = training.Patriarch(network, "plain")
    trainer.compile(keras.optimizers.SGD(0.05, momentum=0.9))
    steps = loaded.train.steps_per_epoch(25)
    batches = loaded.train.epochs(25, seed=0, generation=0, first_epoch=0, epochs=12)
    trainer.fit(batches, epochs=12, steps_per_epoch=steps, shuffle=False, verbose=0)
    logits, labels = evaluation.predict(network, loaded.validation)
    assert np.mean(logits.argmax(axis=-1) == labels) > 0.6  # a quarter by chance
    network.save(path / "small.keras")
    return path


def flags_of(parts):
    flags = [f"--dataset={parts / 'photos'}", "--image_size=64", f"--model={parts / 'small.keras'}"]
    return [*flags, "--batch_size=50", "--epochs=2", "--epochs_from_scratch=1", "--target=bytes"]


@contextlib.contextmanager
def interrupted(name):
    """Ctrl-C after the first epoch of a candidate's training."""
    whole = checkpoint.SaveCheckpoints.on_epoch_end

    def stop(self, epoch, logs=None):
        whole(self, epoch, logs)
        if name in str(self.checkpoints.directory) and epoch == 0:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint.SaveCheckpoints, "on_epoch_end", stop)
        yield


def timeless(found):
    """What must not depend on a clock."""
    varies = ("milliseconds_per_image", "seconds", "on_front", "finished", "sha256", "files")
    if isinstance(found, dict):
        return {key: timeless(value) for key, value in found.items() if key not in varies}
    return [timeless(each) for each in found] if isinstance(found, list) else found


def shrink_until(number, file, *flags):
    """The recipe in a process, which gets a signal when it has written a file; or without any."""
    command = "tests.recipes.killed_shrink", str(int(number)), file, *flags
    return run("-m", *command)


@pytest.fixture(scope="module")
def searched(parts):
    """Flags, and the directory of a search that was not interrupted; of one step of channels."""
    flags = [*flags_of(parts), "--max_accuracy_drop=0.1"]
    ended = shrink_until(0, "", *flags, f"--output_dir={parts / 'run'}")
    assert ended.returncode == 0, ended.stderr
    return flags, parts / "run"


def test_chosen_file_is_the_smallest_that_keeps_the_limit(parts, searched):
    _, directory = searched
    loaded = data.load(str(parts / "photos"), image_size=64)
    found = assert_chosen(directory, "bytes", loaded.validation.spread(2_000), 0.1)
    assert [row["candidate"] for row in found["tried"]] == [
        *("quantize", "mixed", "channels-0.5", "weights"),
        *("student-imagenet-resnet18-w16", "early_exit"),
    ]
    candidates = {row["candidate"] for row in found["files_tried"]}
    assert candidates == {"quantize", "channels-0.5", "early_exit"}
    macs = [row["macs"] for row in found["files_tried"] if row["quantization"] == "float32"]
    assert macs[1] <= 0.5 * macs[0]
    recorded = {"export/chosen.tflite", "export/labels.txt"}
    assert recorded | {row["path"] for row in found["files_tried"]} <= set(found["files"])
    page = (directory / "report.html").read_text()
    assert all(f">{row['name']}</td>" in page for row in found["files_tried"])


@NEEDS_CHROMIUM
def test_page_in_a_browser(searched, tmp_path):
    _, directory = searched
    check_pages({directory / "report.html": 2 + 5}, tmp_path)


def test_interrupted_search_ends_as_one_that_was_not(searched, tmp_path):
    """Killed between two files of a candidate, and by Ctrl-C while another one is trained."""
    flags, whole = searched
    halted = tmp_path / "run"
    flags = [*flags, f"--output_dir={halted}"]
    exported = "channels-0.5/export/macs-0.5-channels-float16.tflite"
    killed = shrink_until(signal.SIGKILL, exported, *flags)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (halted / exported).exists()
    assert not (halted / "channels-0.5" / "candidate.json").exists()
    trained = "early_exit/network/checkpoint-00001.state"
    stopped = shrink_until(signal.SIGINT, trained, *flags)
    assert stopped.returncode == 130, stopped.stderr
    assert "the same command goes on where it stopped" in stopped.stderr
    assert not (halted / "results.json").exists()
    begun = files.read_record(halted / "budget.json")["seconds"]
    kept = measured(halted)
    assert "channels-0.5" in kept and "early_exit" not in kept
    resumed = shrink_until(0, "", *flags)
    assert resumed.returncode == 0, resumed.stderr
    seconds = files.read_record(halted / "budget.json")["seconds"]
    assert seconds.keys() == begun.keys()
    assert {name for name in seconds if seconds[name] > begun[name]} == {"early_exit"}
    assert kept.items() <= measured(halted).items()  # nothing finished is measured again
    found, again = results(whole), results(halted)
    for part in ("files_tried", "tried", "chosen"):
        assert timeless(again[part]) == timeless(found[part])
    for path in ("export/chosen.tflite", *(row["path"] for row in found["files_tried"])):
        assert (halted / path).read_bytes() == (whole / path).read_bytes(), path


def measured(directory):
    """Candidate that is finished -> milliseconds of its files."""
    return {
        path.parent.name: [row["milliseconds_per_image"] for row in files.read_record(path)["rows"]]
        for path in directory.glob("*/candidate.json")
    }


def test_budget_that_is_over_at_once(parts, tmp_path, capsys):
    """The classifier's own files are there, and the choice among them; more time is taken up."""
    directory = tmp_path / "run"
    flags = [*flags_of(parts), "--candidates=student,early_exit", f"--output_dir={directory}"]
    assert shrink.RECIPE.main([*flags, "--budget_minutes=1e-6"]) == 0
    found = results(directory)
    outcomes = {row["candidate"]: row["outcome"] for row in found["tried"]}
    student = "student-imagenet-resnet18-w16"
    assert outcomes[student] == outcomes["early_exit"] == "no time left"
    assert outcomes["quantize"] is None
    assert {row["candidate"] for row in found["files_tried"]} == {"quantize"}
    output = capsys.readouterr().out
    assert output.count("no time left") == 2 and found["verdict"] in output
    assert "--budget_minutes" in output
    # Finished, and so it stays within the same budget.
    assert shrink.RECIPE.main([*flags, "--budget_minutes=1e-6"]) == 0
    assert "finished on" in capsys.readouterr().err
    stored = (directory / "quantize" / "candidate.json").read_bytes()
    assert shrink.RECIPE.main([*flags[:-2], "--candidates=student", flags[-1]]) == 2
    assert "--candidates=student,early_exit there" in capsys.readouterr().err
    with interrupted("early_exit"):
        assert shrink.RECIPE.main([*flags, "--budget_minutes=60"]) == 130
    assert "Trying early_exit" in capsys.readouterr().err
    assert (directory / "quantize" / "candidate.json").read_bytes() == stored
    assert not (directory / "results.json").exists()  # or it would be taken for finished


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--target=watts"], ["--target must be one of ms, bytes, gzipped_bytes, macs", "watts"]),
        (
            ["--candidates=channel"],
            ["--candidates must be one of quantize, ", "matches: channels"],
        ),
        (["--students=resnet9"], ["--students must be one of", "resnet9", "resnet8"]),
        (
            ["--candidates=channels", "--students=resnet8"],
            ["--students applies to the candidate student"],
        ),
        (
            ["--students=resnet8,keras:MobileNetV2"],
            ["--students must be a network for the images of --dataset=digits, 8x8", "32x32"],
        ),
        (["--students=resnet8,resnet8"], ["--students must be different names"]),
        (["--budget_minutes=0"], ["--budget_minutes must be positive", "=0"]),
        (["--budget_minutes=-3"], ["--budget_minutes must be positive", "=-3"]),
        (["--budget_minutes=nan"], ["--budget_minutes must be positive"]),
        (["--max_accuracy_drop=1"], ["--max_accuracy_drop must be in [0, 1)", "=1"]),
        (["--max_accuracy_drop=-0.1"], ["--max_accuracy_drop must be in [0, 1)"]),
        (
            [
                *("--model=keras:MobileNetV2", "--image_size=32", "--dataset=cifar10"),
                *("--weights=imagenet", "--candidates=quantize", "--epochs_from_scratch=3"),
            ],
            ["--epochs_from_scratch applies to students, and a classifier that is trained"],
        ),
        (["--epochs_from_scratch=0"], ["--epochs_from_scratch must be positive"]),
        (["--model=resnet21"], ["--model", "resnet21", "resnet20"]),
        (["--model=absent.keras"], ["--model must be a .keras file or", "absent.keras"]),
        (["--model=keras:MobileNetV2", "--image_size=16"], ["--model", "32x32"]),
        (["--weights=imagenet"], ["--weights applies to networks of keras.applications"]),
        (["--model_input=bytes"], ["--model_input must be normalized"]),
        (["--strategy=multi_worker"], ["--strategy", "the environment must name the workers"]),
    ],
    ids=lambda value: " ".join(value)[:40] if value[0].startswith("--") else None,
)
def test_mistake_is_one_line_and_status_2(arguments, parts, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert shrink.RECIPE.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    for part in ("shrink: ", *parts):
        assert part in captured.err
    assert list(tmp_path.iterdir()) == []


def test_student_that_does_not_fit_is_said_before_anything_is_written(tmp_path, capsys):
    staged((8, 8, 1), 10).save(tmp_path / "small.keras")
    flags = ["--dataset=digits", f"--model={tmp_path / 'small.keras'}"]
    flags += ["--students=resnet8,imagenet-resnet18-w4"]
    assert shrink.RECIPE.main([*flags, f"--output_dir={tmp_path / 'run'}"]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("shrink: ")]
    assert "--students must be a network for the images of --dataset=digits, 8x8" in line
    assert not (tmp_path / "run").exists()


def test_several_workers_are_refused(monkeypatch, tmp_path, capsys):
    workers = {"cluster": {"worker": ["localhost:1", "localhost:2"]}}
    workers["task"] = {"type": "worker", "index": 0}
    monkeypatch.setenv("TF_CONFIG", json.dumps(workers))
    monkeypatch.chdir(tmp_path)
    assert shrink.RECIPE.main([]) == 2
    assert "--strategy must be of one process" in capsys.readouterr().err
