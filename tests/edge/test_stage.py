"""Stages against LiteRT's own runners, which resize, allocate and copy in each run."""

import contextlib
import gc

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
    return [logits.copy(), second(**between)["logits"].copy()]


@pytest.fixture(params=["ours", "another version of LiteRT"])
def ours(request, model):
    ours = stages(model)
    if request.param != "ours":
        for stage in ours:
            stage._own = None  # where private names are others
    return ours


def test_equal_to_runners_whatever_the_number_of_images(ours, model):
    theirs = [stage.runner for stage in stages(model)]
    for start, count in enumerate((1, 1, 1, 1, 5, 5, 5, 5, 1, 3, 1, 1, 1)):
        images = np.roll(IMAGES, start, axis=0)[:count]
        for computed, expected in zip(run(*ours, images), run(*theirs, images), strict=True):
            assert np.array_equal(computed, expected)
        assert len(computed) == count


def test_one_stage_does_not_move_the_tensors_of_another(ours, model):
    first, second = ours
    theirs = [stage.runner for stage in stages(model)]
    for _ in range(3):
        run(first, second, IMAGES[:1])
    kept = first(image=IMAGES[:1])
    expected = run(*theirs, IMAGES[:1])
    for count in (7, 1, 2):
        between = theirs[0](image=IMAGES[:count])
        between.pop("logits")
        second(**between)
        assert np.array_equal(kept["logits"], expected[0])
    assert all(map(np.array_equal, run(first, second, IMAGES[:1]), expected))


def test_what_it_returns_outlives_the_interpreter(model):
    stage = stages(model)[0]
    expected = stage.runner(image=IMAGES[:1])["logits"]
    for _ in range(3):
        returned = stage(image=IMAGES[:1])["logits"]
    del stage
    gc.collect()
    assert np.array_equal(returned, expected)


def test_tensors_that_move_are_read_where_they_are(model):
    """Such as those that a graph allocates while it runs."""
    stage = stages(model)[0]
    tensor, moved = stage._tensor, []

    def moving(*place):
        moved.append(tensor(*place).copy())  # another place each time
        return moved[-1]

    stage._tensor = moving
    runner = stages(model)[0].runner
    for image in IMAGES:
        expected = runner(image=image[None])
        computed = stage(image=image[None])
        assert all(np.array_equal(computed[name], expected[name]) for name in expected)


@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("wrong", [IMAGES[:1].astype(np.float32), IMAGES[:1, 1:]])
def test_goes_on_after_an_input_that_does_not_fit(ours, wrong, runs):
    for _ in range(runs):
        expected = run(*ours, IMAGES[:1])
    with contextlib.suppress(RuntimeError, TypeError, ValueError):
        ours[0](image=wrong)
    assert all(map(np.array_equal, run(*ours, IMAGES[:1]), expected))
