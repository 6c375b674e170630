"""`kdtoolkit` and `kdtoolkit describe`: what they print, and mistakes on one line."""

import subprocess
import sys

import keras
import pytest
from keras import layers

from kdtoolkit import cli, models


def test_help_lists_recipes_and_commands(capsys):
    assert cli.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    (describe,) = [line for line in lines if line.startswith("  describe ")]
    assert describe.split(maxsplit=1)[1].startswith("Shows what a network costs, ")
    assert lines.index("recipes:") < lines.index("other commands:") < lines.index(describe)
    assert cli.main(["descibe"]) == 2
    assert capsys.readouterr().err.endswith("Received: descibe. Near matches: describe.\n")


def described(arguments, capsys):
    """The rows of the table: name -> numbers."""
    assert cli.main(["describe", *arguments]) == 0
    captured = capsys.readouterr()
    head, *lines = captured.out.split("\n\n")[0].splitlines()
    assert head.split("  ")[-1].strip() == "activation bytes"
    assert ("exit_k" in captured.out) == ("exit_1" in captured.out)
    assert len({len(line) for line in [head, *lines]}) == 1
    found = {}
    for line in lines:
        *name, parameters, macs, size = line.split()
        found[" ".join(name)] = tuple(int(n.replace(",", "")) for n in (parameters, macs, size))
    return found


def test_network_by_name(capsys):
    found = described(["resnet18", "--image_size=32", "--classes=100"], capsys)
    assert list(found) == ["stem", "stage1", "stage2", "stage3", "stage4", "head", "resnet18"]
    # Three feature maps of 32x32x64 float32: input, and both sides of a block's second convolution.
    assert found["stage1"] == (
        4 * (9 * 64 * 64 + 2 * 64),
        4 * 1024 * 9 * 64 * 64,
        3 * 1024 * 64 * 4,
    )
    assert found["head"] == (51_300, 51_200, (4 * 4 * 512 + 512) * 4)
    assert found["resnet18"][0] == 11_220_132


def test_defaults(capsys):
    found = described(["resnet8"], capsys)
    assert found["stem"] == (27 * 16 + 32, 1024 * 27 * 16, (1024 * 3 + 1024 * 16) * 4)
    assert found["head"][:2] == (650, 640)


def test_exits(capsys):
    found = described(["resnet18", "--classes=100", "--exits"], capsys)
    heads = [found[f"exit_{k} head"][0] for k in (1, 2, 3)]
    assert heads == [1_175_908, 397_668, 217_444]  # published
    assert found["exit_4"][0] == 11_220_132
    assert found["resnet18_exits"][0] == 11_220_132 + sum(heads)
    whole = found["exit_4"][1]
    speedups = [round(whole / found[f"exit_{k}"][1], 2) for k in (1, 2, 3)]
    assert speedups == [3.10, 1.87, 1.31]  # published


def test_file(capsys, tmp_path):
    image = keras.Input((4, 6, 2))
    logits = layers.Dense(3)(layers.Flatten()(layers.Conv2D(5, 1)(image)))
    path = tmp_path / "own.keras"
    keras.Model(image, logits, name="own").save(path)
    weights, products = (2 * 5 + 5) + (120 * 3 + 3), 24 * 2 * 5 + 120 * 3
    row = (weights, products, (24 * 2 + 24 * 5) * 4)
    assert described([str(path)], capsys) == {"head": row, "own": row}


def test_file_with_exits(capsys, tmp_path):
    path = tmp_path / "exits.keras"
    models.add_exits(models.build("resnet18-w4", (16, 16, 3), 5), mid=4).save(path)
    found = described([str(path)], capsys)
    assert "exit_1 head" in found and "exit_4" in found
    assert cli.main(["describe", str(path), "--exits"]) == 2
    assert "must return logits" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["required: MODEL"]),
        (["resnet21"], ["MODEL", ".keras", "'resnet21'", "Near matches: ", "resnet20"]),
        (["absent.keras"], ["MODEL must be an existing file. Received: absent.keras"]),
        (["weights.h5"], ["MODEL must be a .keras file, a .tflite file", "'weights.h5'"]),
        (["absent.tflite"], ["MODEL must be an existing file. Received: absent.tflite"]),
        (["a.tflite", "--classes=3"], ["--classes is for networks by name", "a.tflite"]),
        (["resnet20", "--image_size=4"], ["--image_size must be at least 8 for resnet20"]),
        (["resnet20", "--image_size=big"], ["--image_size", "'big'"]),
        (["resnet20", "--classes=1"], ["--classes must be at least 2", "--classes=1"]),
        (["resnet20", "--clases=3"], ["--clases=3"]),
        (["resnet20", "resnet32"], ["resnet32"]),
        (["own.keras", "--classes=3"], ["--classes is for networks by name", "own.keras"]),
        (["own.keras", "--image_size=8"], ["--image_size is for networks by name"]),
    ],
)
def test_mistake_is_one_line_and_status_2(arguments, parts, capsys):
    assert cli.main(["describe", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("describe: ")
    for part in parts:
        assert part in line


def test_mistakes_inside_a_file(capsys, tmp_path):
    path = tmp_path / "own.keras"
    path.write_bytes(b"PK")
    assert cli.main(["describe", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"describe: '{path}' is not a .keras file")
    image = keras.Input((None, None, 3))
    keras.Model(image, layers.GlobalAveragePooling2D()(image), name="open").save(path)
    assert cli.main(["describe", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "fixed shape" in line


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["resnet21"], 2)])
def test_help_and_mistakes_do_not_import_tensorflow(arguments, status):
    script = (
        "import sys\n"
        "from kdtoolkit import cli\n"
        "try:\n"
        f"    status = cli.main({['describe', *arguments]})\n"
        "except SystemExit as exit:\n"
        "    status = exit.code\n"
        "heavy = any(name in sys.modules for name in ('tensorflow', 'keras'))\n"
        "sys.exit(10 if heavy else status)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True)
    assert ran.returncode == status
