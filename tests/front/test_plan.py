"""What is tried, in which order, and when the next step is not worth its time."""

import pytest

from kdtoolkit.front import plan
from kdtoolkit.front.plan import Candidate


def row(candidate, accuracy, quantization="float32", failure=None):
    return {
        "candidate": candidate,
        "validation_accuracy": accuracy,
        "quantization": quantization,
        "failure": failure,
    }


def test_order_is_that_of_the_table_whatever_was_asked_for():
    found = plan.candidates(["early_exit", "student", "channels"], ["resnet8", "keras:MobileNet"])
    assert [candidate.name for candidate in found] == [
        *("quantize", "mixed", "channels-0.75", "channels-0.5", "channels-0.35", "channels-0.25"),
        *("student-resnet8", "student-keras-MobileNet", "early_exit"),
    ]
    assert [c.name for c in plan.candidates([], ["resnet8"])] == ["quantize", "mixed"]


@pytest.mark.parametrize(
    ("accuracies", "worth"),
    [
        ([0.87], True),  # three times the limit of 0.01, no more
        ([0.86], False),
        ([0.5, 0.88], True),  # one of its files will do
        ([None], False),  # all are wrong
    ],
)
def test_channels_end_where_a_step_lost_far_too_much(accuracies, worth):
    rows = [row("quantize", 0.9)]
    rows += [row("channels-0.75", a, failure=None if a else "differs") for a in accuracies]
    for share in (0.5, 0.35, 0.25):
        why = plan.needless(Candidate("channels", share), "ms", rows, (), 0.01)
        assert (why is None) == worth
    assert plan.needless(Candidate("channels", 0.75), "ms", rows, (), 0.01) is None


def test_channels_end_where_a_step_came_to_nothing():
    why = plan.needless(
        Candidate("channels", 0.35), "ms", [row("quantize", 0.9)], {"channels-0.5"}, 1
    )
    assert why == "channels-0.5 came to nothing"


def test_mixed_file_is_for_integers_that_lose_too_much():
    rows = [row("quantize", 0.9), row("quantize", 0.89, "int8")]
    assert "int8" in plan.needless(Candidate("mixed"), "ms", rows, (), 0.01)
    assert plan.needless(Candidate("mixed"), "ms", rows, (), 0.005) is None
    rows[1]["failure"] = "differs"
    assert plan.needless(Candidate("mixed"), "ms", rows, (), 0.01) is None


def test_zeros_are_for_downloads():
    rows = [row("quantize", 0.9)]
    for objective in ("ms", "bytes", "macs"):
        assert "download" in plan.needless(Candidate("weights"), objective, rows, (), 0.01)
    assert plan.needless(Candidate("weights"), "gzipped_bytes", rows, (), 0.01) is None
