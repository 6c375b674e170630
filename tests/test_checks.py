"""Errors about arguments, and what numbers and names are accepted."""

import copy
import pickle

import numpy as np
import pytest

from kdtoolkit._checks import (
    ArgumentError,
    Integers,
    Interval,
    OneOf,
    UnsuitableError,
    Words,
    check,
    near,
    suiting,
)


def test_what_a_message_says():
    error = ArgumentError("size", "even", 3, "It is odd", owner="hint")
    assert str(error) == "Argument `size` of hint must be even. Received: size=3. It is odd"
    error = ArgumentError("network", "logits", Words("'a', which returns maps"), must="return")
    expected = "Argument `network` must return logits. Received: 'a', which returns maps"
    assert str(error) == expected


@pytest.mark.parametrize("copied", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_errors_go_to_other_processes(copied):
    for error in (
        ArgumentError("at", "layers", Words("none"), "See", "hint", "name"),
        UnsuitableError("at", [1], "it is too deep"),
    ):
        found = copied(error)
        assert type(found) is type(error)
        assert str(found) == str(error)
        assert vars(found) == vars(error)


@pytest.mark.parametrize(
    "accepted, text, inside, outside",
    [
        (Integers(2), "an integer of at least 2", [2, np.int64(9)], [1, 2.0, True, None, "2"]),
        (Integers(1), "a positive integer", [1], [0]),
        (Integers(2, 4), "an integer from 2 to 4", [2, 4], [1, 5, 3.0]),
        (Interval(0, 1), "in [0, 1]", [0, 1, np.float32(0.5)], [-0.1, float("nan"), True, "0"]),
        (OneOf(("a", "b")), "one of a, b", ["a", "b"], ["c", None, ["a"]]),
    ],
)
def test_what_is_accepted(accepted, text, inside, outside):
    assert str(accepted) == text
    for value in inside:
        check("x", value, accepted)
    for value in outside:
        with pytest.raises(ArgumentError) as caught:
            check("x", value, accepted)
        assert str(caught.value) == f"Argument `x` must be {text}. Received: x={value!r}"


def test_near_matches_in_any_case():
    names = ["resnet8", "ResNet50", "vgg11"]
    assert near("RESNET50", names, " ") == " Near matches: ResNet50, resnet8."
    assert near("Resnet", names) == "Near matches: resnet8, ResNet50."
    assert near("plain", names, " ") == ""
    with pytest.raises(ArgumentError, match=r"Received: x='Vgg'\. Near matches: vgg11\.$"):
        check("x", "Vgg", OneOf(("vgg11",)))


def test_an_error_about_a_part_is_one_about_what_led_to_it():
    with (
        pytest.raises(UnsuitableError, match="Argument `mid` must be") as caught,
        suiting("head", 3),
    ):
        raise ArgumentError("mid", "even", 3)
    assert (caught.value.argument, caught.value.received) == ("head", 3)
