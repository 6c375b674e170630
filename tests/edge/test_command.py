"""`python -m kdtoolkit.edge`."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from kdtoolkit.data import picture
from kdtoolkit.edge import EarlyExitClassifier
from kdtoolkit.edge.__main__ import main
from tests.edge import networks

COLOURS = networks.draw_images(1)[0]


@pytest.fixture
def colours(tmp_path):
    path = tmp_path / "colours.png"
    Image.fromarray(COLOURS).save(path)
    return str(path)


def assert_error(capsys, arguments, message):
    assert main([str(argument) for argument in arguments]) == 2
    output = capsys.readouterr()
    assert output.err.startswith("kdtoolkit.edge: ")
    assert message in output.err and output.err.count("\n") == 1
    return output.out


def test_a_line_for_each_image(model, colours, tmp_path, capsys):
    grey = np.arange(80, dtype=np.uint8).reshape(8, 10)
    transparent = np.dstack([COLOURS, np.full((8, 10), 100, np.uint8)])
    palette = Image.fromarray(COLOURS).quantize(16)
    turned = Image.fromarray(np.rot90(COLOURS))
    turned.getexif()[0x0112] = 6  # shown upright by a quarter turn clockwise
    pictures = {
        "turned.png": (turned, COLOURS),
        "grey.png": (Image.fromarray(grey), grey),
        "transparent.png": (Image.fromarray(transparent), transparent),
        "palette.gif": (palette, np.asarray(palette.convert("RGB"))),
        "deep.png": (Image.fromarray(grey.astype(np.uint16) * 257), grey),
    }
    for name, (image, _) in pictures.items():
        image.save(tmp_path / name, exif=image.getexif())
    classifier = EarlyExitClassifier(model)
    paths = [colours, *(str(tmp_path / name) for name in pictures)]
    assert main([str(model), *paths]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line, path, pixels in zip(
        lines, paths, [COLOURS, *(p for _, p in pictures.values())], strict=True
    ):
        label, _, confidence, exit_name, _ = classifier.predict(pixels)
        assert line.startswith(f"{path}\t{label}\t{confidence:.4f}\t{exit_name}\t")
        assert line.endswith(" ms")


@pytest.mark.parametrize("index, exit_name", [(0, "exit_1"), (2, "exit_3")])
def test_operating_point(model, colours, capsys, index, exit_name):
    assert main([str(model), colours, f"--operating_point={index}", "--threads=2"]) == 0
    assert capsys.readouterr().out.split("\t")[3] == exit_name


def test_mistakes(model, colours, tmp_path, capsys):
    assert_error(capsys, [tmp_path / "none.tflite", colours], "No such file")
    assert_error(capsys, [colours, colours], "as a classifier: it carries no readable labels.txt")
    assert_error(capsys, [model, colours, "--operating_point=3"], "from 0 to 2. Received: 3")
    assert_error(capsys, [model, colours, "--threads=0"], "Argument `threads`")
    assert_error(capsys, [model, colours, "--threads=x"], "--threads: invalid int value: 'x'")
    assert_error(capsys, [], "required: model, image")
    out = assert_error(capsys, [model, colours, tmp_path / "none.png"], "none.png")
    assert out.startswith(colours)  # those before it are classified


def test_unreadable_images(model, colours, tmp_path, capsys, monkeypatch):
    text = tmp_path / "text.png"
    text.write_text("no image")
    assert_error(capsys, [model, text], f"Cannot read image {str(text)!r}")
    broken = tmp_path / "broken.png"
    with open(colours, "rb") as file:
        broken.write_bytes(file.read()[:-60])
    assert_error(capsys, [model, broken], f"Cannot read image {str(broken)!r}")
    floats = tmp_path / "floats.tiff"
    Image.fromarray(np.ones((8, 10), np.float32)).save(floats)
    assert_error(capsys, [model, floats], f"image {str(floats)!r}: its pixels must have 8 bits")
    monkeypatch.setattr(picture, "MOST_PIXELS", 79)
    assert_error(capsys, [model, colours], "at most 79 pixels. Received: 10 x 8")
    assert_error(capsys, [model, colours], f"Cannot read image {colours!r}")


@pytest.mark.filterwarnings("error")
def test_names_of_several_lines_and_decoders_that_warn(model, colours, tmp_path, capsys):
    path = tmp_path / "a\nb\tc.tiff"
    with Image.open(colours) as image:
        image.save(path)
    assert main([str(model), str(path)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split("\t")[0] == str(path).replace("\n", r"\n").replace("\t", r"\t")
    path.write_bytes(path.read_bytes()[:-20])  # within its tags: Pillow warns, and goes on
    assert_error(capsys, [model, path], "Cannot read image")


def test_without_pillow(model, colours, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "kdtoolkit.data.picture", raising=False)
    assert_error(capsys, [model, colours], "needs Pillow: pip install pillow")


def test_help_from_a_shell():
    command = [sys.executable, "-m", "kdtoolkit.edge", "--help"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0
    assert ran.stdout.startswith("usage: python -m kdtoolkit.edge ")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Paths of 40 images."""
    directory = tmp_path_factory.mktemp("pictures")
    paths = [directory / f"{number}.png" for number in range(40)]
    for path, image in zip(paths, networks.draw_images(40), strict=True):
        Image.fromarray(image).save(path)
    return [str(path) for path in paths]


def test_certify(model, pictures, capsys):
    """The cheapest point that is certified, and all that are dearer, in NumPy and SciPy."""
    classifier = EarlyExitClassifier(model)
    logits = np.stack([classifier.logits(image) for image in networks.draw_images(40)])
    whole = logits[:, -1].argmax(-1)
    differ = [
        int((networks.decide(logits, point.thresholds)[1] != whole).sum())
        for point in classifier.operating_points
    ]
    for limit, confidence in ((0.06, 0.9), (0.3, 0.9), (0.9, 0.99)):
        passes = [stats.binom.cdf(k, 40, limit) <= 1 - confidence for k in differ]
        certified = [k for k in range(len(differ)) if all(passes[k:])]
        options = [f"--limit={limit}", f"--confidence={confidence}"]
        status = main(["certify", str(model), *pictures, *options])
        output = capsys.readouterr().out
        assert status == (0 if certified else 1)
        if certified:
            assert output.startswith(f"operating point {certified[0]} (mean cost ")
            sure, most = f"{100 * confidence:g}%", f"{100 * limit:g}%"
            said = f"with {sure} confidence at most {most} of decisions differ from"
            assert f"): {said} the whole network's (40 images)\n" in output
        else:
            assert output.startswith("no operating point is certified: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--limit=1"], "`limit` must be in (0, 1)"),
        (["--confidence=0"], "`confidence` must be in (0, 1)"),
        (["--risk=all"], "unrecognized arguments: --risk=all"),
    ],
)
def test_mistakes_of_certify(model, colours, capsys, options, message):
    assert_error(capsys, ["certify", model, colours, *options], message)


def test_certify_needs_images(model, capsys):
    assert_error(capsys, ["certify", model], "the following arguments are required: image")
