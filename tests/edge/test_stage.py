"""Stages against LiteRT's own runners, which resize and allocate before each run."""

import contextlib

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from kdtoolkit.edge.stage import Stage
from tests.edge import networks

IMAGES = networks.draw_images(12)


def stages(model):
    """The first two stages of a file, in an interpreter of their own."""
    interpreter = Interpreter(model_path=str(model))
    return [Stage(interpreter, name) for name in ("stage_1", "stage_2")]


def run(first, second, images):
    between = first(image=images)
    logits = between.pop("logits")
    return [logits, second(**between)["logits"]]


@pytest.fixture(params=["ours", "another version of LiteRT"])
def ours(request, model):
    ours = stages(model)
    if request.param != "ours":
        for stage in ours:
            stage._calls = None  # where private names are others
    return ours


def test_equal_to_runners_whatever_the_number_of_images(ours, model):
    theirs = [stage.runner for stage in stages(model)]
    for count in (1, 1, 5, 5, 1, 3, 1):
        images = IMAGES[:count]
        for computed, expected in zip(run(*ours, images), run(*theirs, images), strict=True):
            assert np.array_equal(computed, expected)
        assert len(computed) == count


def test_what_a_stage_returns_stays(ours):
    first, _ = run(*ours, IMAGES[:1])
    kept = first.copy()
    run(*ours, IMAGES[1:2])
    assert np.array_equal(first, kept)


@pytest.mark.parametrize(
    "wrong", [IMAGES[:1].astype(np.float32), IMAGES[:1, :, :, :1], IMAGES[:1, 1:]]
)
def test_goes_on_after_an_input_that_does_not_fit(ours, wrong):
    expected = run(*ours, IMAGES[:1])
    with contextlib.suppress(RuntimeError, ValueError):
        ours[0](image=wrong)
    assert all(map(np.array_equal, run(*ours, IMAGES[:1]), expected))
