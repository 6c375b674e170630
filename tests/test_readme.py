"""README's calls of whole recipes do what they say, on a few digits and for one epoch."""

import re
from pathlib import Path

import keras
import pytest

from kdtoolkit import data

BLOCKS = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(), re.S
)


def network():
    x = image = keras.Input((8, 8, 1))
    for stage in (1, 2, 3):
        x = keras.layers.Conv2D(4, 3, 2, padding="same")(x)
        x = keras.layers.ReLU(name=f"stage{stage}")(x)
    return keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(x)))


@pytest.mark.parametrize(
    ("call", "printed"),
    [("compare", "'method': 'kd+attention', 'runs': 1"), ("compress", "('50% channels, int8', ")],
)
def test_calls(call, printed, tmp_path, monkeypatch, capsys):
    (block,) = [block for block in BLOCKS if f".{call}(" in block]
    block, count = re.subn(r'"epochs": \d+', '"epochs": 1', block.replace("(1, 2, 3)", "(1,)"))
    assert count == 1
    assert len(block.splitlines()) <= 7  # six, and an empty one
    monkeypatch.chdir(tmp_path)
    names = {
        "mine": data.load("digits", train_examples=60),
        "my_large_network": network(),
        "my_network": network(),
        "build_my_network": network,
    }
    exec(block, names)
    assert printed in capsys.readouterr().out
    (saved,) = tmp_path.glob("*.keras")
    assert keras.models.load_model(saved).output_shape == (None, 10)
