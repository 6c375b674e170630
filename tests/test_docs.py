"""Code in README and docs runs, command lines are such, links are alive.

Python runs, indented lines are commands that are checked as when they run, `text` is no code, and
whatever else there is says in the line before it why no test runs it: `MARKS`.
"""

import glob
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kdtoolkit import _export, cli, data, export, launch, losses, methods, models, training
from kdtoolkit.edge import __main__ as edge
from kdtoolkit.recipes import analyze, born_again, compress, distill, self_distillation, shrink
from kdtoolkit.study import command as study
from tests.models.test_state_dict import random_state

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RECIPES = {
    "analyze": analyze,
    "born_again": born_again,
    "compress": compress,
    "distill": distill,
    "self_distillation": self_distillation,
    "shrink": shrink,
}
# What the line before a block says that no test runs.
MARKS = ("(needs a GPU)", "(needs a network)", "(on the device)", "(in a browser)")
# What is tried, or no code: commands have no language.
TRIED = ("python", "text", "")
# Calls that train several networks.
LONG = ("comparison.compare(", "compression.compress(", "train_generations(")
# What a reader has to have and a test has not.
NEEDS = {"import mediapipe": "mediapipe", "import torch": "torch"}


class Block(NamedTuple):
    """Code of a page.

    Attributes:
        name: of the page, and which of its blocks this is.
        language: what the fence says; empty for indented lines, which are commands.
        text: the lines of code.
        before: the last line of the paragraph before it.
    """

    name: str
    language: str
    text: str
    before: str


def code(page, name):
    """Yields the `Block`s of a page's text."""
    fenced = r"^```(?P<language>\w*)\n(?P<fenced>.*?)^```$"
    indented = r"(?<=\n\n)(?P<indented>(?: {4}[^\n]*\n)+)"
    for number, found in enumerate(re.finditer(f"{fenced}|{indented}", page, re.S | re.M)):
        before = page[: found.start()].rstrip().rpartition("\n")[2]
        text = found["fenced"] or textwrap.dedent(found["indented"] or "")
        yield Block(f"{name}-{number}", found["language"] or "", text, before)


BLOCKS = [
    block for page in PAGES for block in code(page.read_text(), page.relative_to(ROOT).as_posix())
]


def is_marked(block):
    return any(mark in block.before for mark in MARKS)


def named(blocks):
    return [pytest.param(block, id=block.name) for block in blocks]


def of(language):
    return named(block for block in BLOCKS if block.language == language)


def commands():
    for block in BLOCKS:
        if block.language or is_marked(block):
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            yield pytest.param(shlex.split(line), id=f"{block.name}-{line[:40]}")


def classifier(shape=(8, 8, 1), classes=10):
    x = image = keras.Input(shape)
    for stage in (1, 2, 3):
        x = keras.layers.Conv2D(4, 3, 2, padding="same", name=f"conv{stage}")(x)
        x = keras.layers.ReLU(name=f"stage{stage}")(x)
    return keras.Model(image, keras.layers.Dense(classes)(keras.layers.Flatten()(x)))


def blocked():
    """A network with the layers that a document names."""
    x = image = keras.Input((8, 8, 1))
    for block in (3, 6, 9):
        x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name=f"block_{block}")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(10)(x))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with everything that documents name."""
    directory = tmp_path_factory.mktemp("documents")
    digits = data.load("digits", train_examples=60)
    network = models.add_exits(classifier(), mid=4)
    (file,) = export.package_early_exit(
        network, digits, directory / "made", quantizations=["int8"], keep_beaten=True
    ).files
    shutil.copy(file.path, directory / "early_exit-int8.tflite")
    chosen = (
        directory
        / "saved_models"
        / "shrink-photos-keras:MobileNetV2-ms-0"
        / "export"
        / "chosen.tflite"
    )
    chosen.parent.mkdir(parents=True)
    for path in (directory / "student.tflite", chosen):
        export.to_litert(classifier(), path, digits.preprocessing, labels=digits.info.labels)
    for name in ("mine", "teacher"):
        classifier().save(directory / f"{name}.keras")
    (directory / "first" / "self_distillation").mkdir(parents=True)
    network.save(directory / "first" / "self_distillation" / "network.keras")
    resnet = models.build("resnet8", digits.info.image_shape, 10, padding="torch")
    np.savez(directory / "resnet8.npz", **random_state(resnet)[0])
    views = 8 * len(digits.train)
    np.save(directory / "shown.npy", np.zeros((views, *digits.info.image_shape), np.float32))
    np.save(directory / "logits.npy", np.zeros((views, 10), np.float32))
    flags = [
        "--generations=0",
        "--train_examples=60",
        "--epochs=1",
        "--batch_size=30",
        "--export=none",
    ]
    run = directory / "saved_models" / "born_again-digits-resnet8-0"
    assert born_again.RECIPE.main([*flags, f"--output_dir={run}"]) == 0
    shutil.copytree(run / "generation_0", directory / "generation_2")
    pixels = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for name in ("cat", "dog"):
            folder = directory / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                image = pixels.integers(0, 256, (16, 16, 3), np.uint8)
                Image.fromarray(image).save(folder / f"{number}.jpg")
    (directory / "my_data.py").write_text(
        "import numpy as np\nfrom kdtoolkit import data\n\n\ndef spots():\n"
        "    x, y = np.zeros((40, 8, 8, 1), np.uint8), np.arange(40) % 2\n"
        "    return data.Arrays(x, y)\n"
    )
    for run, exported, source in (
        ("self_distillation-digits-resnet8-0", "exit_1.tflite", chosen),
        ("certified", "early_exit-int8.tflite", file.path),
    ):
        target = directory / "saved_models" / run / "export" / exported
        target.parent.mkdir(parents=True)
        shutil.copy(source, target)
    (directory / "my_photos").mkdir()
    for name in ("your.png", "my_photos/1.jpg", "my_photos/2.jpg"):
        Image.fromarray(pixels.integers(0, 256, (9, 9), np.uint8)).save(directory / name)
    for name in ("recipes", "benchmarks"):
        (directory / name).symlink_to(ROOT / name)
    (directory / "own_method.py").write_text(_own_method())
    yield directory
    methods.registry._REGISTRY.pop("logits_distance", None)  # of the method of one's own
    data.catalog._registered.pop("spots", None)


def _own_method():
    page = (ROOT / "docs" / "methods.md").read_text()
    return re.search(r"^```python\n(from dataclasses .*?)^```", page, re.S | re.M)[1]


@pytest.fixture
def names(place, tmp_path, monkeypatch):
    """What documents call what a reader has, in a copy of the directory."""
    directory = tmp_path / "here"
    shutil.copytree(place, directory, symlinks=True)
    monkeypatch.chdir(directory)
    monkeypatch.syspath_prepend(directory)
    digits = data.load("digits", train_examples=60)
    pixels, labels = digits.test.pixels(40)
    images = digits.preprocessing(pixels)
    known = {
        "keras": keras,
        "np": np,
        "json": json,
        "mine": digits,
        "network": classifier(),
        "fresh_network": classifier(),
        "my_network": blocked(),
        "my_large_network": classifier(),
        "image": pixels[0],
        "images": images,
        "labels": labels,
        "x": pixels,
        "y": labels % 2,
        "preprocessing": digits.preprocessing,
        "logits_of": lambda images: images.reshape(len(images), -1)[:, :10],
        "torch_network": lambda images: images.flatten(1)[:, :10],
        "student": classifier(),
        "teacher": classifier(),
        "model": classifier(),
    }
    known["model"].compile("sgd", "sparse_categorical_crossentropy")
    known["network"].compile("sgd", "sparse_categorical_crossentropy")
    known["data"] = tf.data.Dataset.from_tensor_slices((images, labels)).batch(20)
    for part in ("val", "test"):
        known |= {f"x_{part}": pixels, f"y_{part}": labels % 2}

    def build_my_network():
        info = known["mine"].info
        return classifier(info.image_shape, info.classes)

    known["build_my_network"] = build_my_network
    return known


@pytest.mark.parametrize("block", of("python"))
def test_block_runs(block, names, capsys):
    block = block.text
    if any(words in block for words in LONG) and os.environ.get("KDTOOLKIT_TEST") != "all":
        pytest.skip("it trains networks: with KDTOOLKIT_TEST=all")
    for words, package in NEEDS.items():
        if words in block:
            pytest.importorskip(package)
    if "generation_2/network.json" in block:
        names["images"] = names["x"]
    if "data.from_arrays" in block or "data.Arrays" in block:
        names["data"] = data
    block = block.replace(".pth", ".npz")
    # This untrained network has a point or two.
    block = block.replace("operating_point = 3", "operating_point = 0")
    if "train_generations" in block:  # images of no more pixels than there are
        block = block.replace("image_size=64", "image_size=16")
    if "student = training" in block:
        exec("from kdtoolkit import losses, methods, training", names)
    # A reader's network has no short way to be trained; a test's has.
    block = re.sub(r"(end_step|frequency)=\d+", r"\1=1", block)
    block = re.sub(r'(epochs"?[=:] ?)\d+', r"\g<1>1", block.replace("(1, 2, 3)", "(1,)"))
    exec(block, names)
    if "summarise" in block:
        assert "'method': 'kd+attention', 'runs': 1" in capsys.readouterr().out
    if "compression.compress" in block:
        assert "('50% channels, int8', " in capsys.readouterr().out
    if "keras.distillation" in block:
        equal = zip(names["student"].get_weights(), names["same"].get_weights(), strict=True)
        assert all(np.allclose(keras_own, ours, atol=1e-6) for keras_own, ours in equal)
    for path in Path().glob("*.keras"):
        assert keras.models.load_model(path).output_shape == (None, 10)


@pytest.mark.parametrize("argv", commands())
def test_command_line_is_one(argv, place, monkeypatch):
    """It is parsed and checked as when it runs; the commands' own tests run such lines."""
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    check_command(argv, monkeypatch)


def check_command(argv, monkeypatch):
    match argv:
        case ["python", "-m", module, *rest] if module.startswith("kdtoolkit.recipes."):
            RECIPES[module.rpartition(".")[2]].RECIPE.parse(rest)
        case ["python", "-m", "kdtoolkit.edge", *rest]:  # of two images no limit is certain
            rest = [path for word in rest for path in glob.glob(word) or [word]]
            assert edge.main(rest) == ("certify" in rest)
        case ["kdtoolkit", "launch", *rest]:
            worker = {"type": "worker", "index": 0}
            config = {"cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}, "task": worker}
            monkeypatch.setenv("TF_CONFIG", json.dumps(config))
            monkeypatch.setattr(launch, "run", lambda inner, *_: check_command(inner, monkeypatch))
            launch.main(rest)
        case ["kdtoolkit", "export", *rest]:
            _export._parse(rest)
        case ["kdtoolkit", "study", *rest]:
            study._parse(rest)
        case ["kdtoolkit", "recipes" | "describe" as name, *rest]:
            assert cli.main([name, *rest]) == 0
        case [variable, where, "pytest", *rest] if "=" in variable and "=" in where:
            (path,) = (word for word in rest if word.endswith(".py"))
            assert variable.partition("=")[0] in (ROOT / path).read_text()
        case _:
            raise AssertionError("neither tried here nor marked with why it is not")


def test_runs_of_a_page_have_directories_of_their_own(place, monkeypatch):
    """Another run's directory is refused: a reader could not follow the page in order."""
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    runs = {}
    for command in commands():
        (argv,), page = command.values, command.id.partition(".md-")[0]
        match argv:
            case ["python", "-m", module, *rest] if module.startswith("kdtoolkit.recipes."):
                flags, _ = RECIPES[module.rpartition(".")[2]].RECIPE.parse(rest)
                directory = flags["output_dir"].value
                assert runs.setdefault((page, directory), argv) == argv


@pytest.mark.parametrize("block", named(b for b in BLOCKS if b.language not in TRIED))
def test_what_no_test_runs_is_marked(block):
    assert is_marked(block), f"one of {MARKS} before it, or ```text"


@pytest.mark.parametrize("block", of("js"))
def test_javascript_is_such(block, tmp_path):
    node = shutil.which("node") or pytest.skip("node is not installed")
    path = tmp_path / "block.mjs"
    path.write_text(block.text)
    done = subprocess.run([node, "--check", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_blocks_are_told_apart():
    page = (
        "Run it (needs a GPU):\n\n    pip install x\n\nAnd:\n\n```js\na\n```\n\n    b \\\n      c\n"
    )
    first, second, third = code(page, "page")
    assert (first.language, first.text, is_marked(first)) == ("", "pip install x\n", True)
    assert (second.language, second.text, is_marked(second)) == ("js", "a\n", False)
    with pytest.raises(AssertionError, match="nor marked"):
        check_command(shlex.split(first.text), None)
    assert (third.text, third.name) == ("b \\\n  c\n", "page-2")


def test_links_of_the_readme_are_alive():
    text = (ROOT / "README.md").read_text()
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_site_is_built_strictly(tmp_path):
    """Links, anchors and the reference of every public name."""
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for room in (losses, methods, training):
        reference = (tmp_path / "api" / f"{room.__name__.rpartition('.')[2]}.html").read_text()
        for public in room.__all__:
            assert re.search(rf'id="kdtoolkit\.[\w.]*\.{public}"', reference), public
    for page in tmp_path.rglob("*.html"):  # nothing is fetched from elsewhere
        text = page.read_text()
        assert not re.search(r'(?:src|<link[^>]*href)="https?://', text), page


def test_architecture_names_every_module():
    """But for the families and methods, of which each has a file."""
    words = set(re.findall(r"\w+", (ROOT / "docs" / "architecture.md").read_text()))
    modules = (ROOT / "kdtoolkit").rglob("*.py")
    named = {path.stem for path in modules if path.parent.name not in ("models", "methods")}
    assert named - words == {"__init__", "__main__"}
