"""The front and the choice, against brute force over drawn files and cases worked out by hand."""

import random

import pytest

from kdtoolkit.front import choosing

KEYS = ("validation_accuracy", "milliseconds_per_image", "bytes")


def file(accuracy, milliseconds, size, failure=None, **more):
    return dict(zip(KEYS, (accuracy, milliseconds, size), strict=True), failure=failure, **more)


def drawn(seed):
    """Ten files of few values, so that many are alike in something; some are wrong."""
    rng = random.Random(seed)
    rows = [
        file(rng.randrange(5) / 4, float(rng.randrange(1, 5)), rng.randrange(1, 5))
        for _ in range(10)
    ]
    for row in rng.sample(rows[1:], 2):
        row.update(dict.fromkeys(KEYS), failure="differs")
    return rows


def beats(one, other):
    merits = [
        (r["validation_accuracy"], -r["milliseconds_per_image"], -r["bytes"]) for r in (one, other)
    ]
    at_least = [a >= b for a, b in zip(*merits, strict=True)]
    better = [a > b for a, b in zip(*merits, strict=True)]
    return all(at_least) and any(better)


@pytest.mark.parametrize("seed", range(30))
def test_front_is_what_nothing_beats(seed):
    rows = drawn(seed)
    usable = [row for row in rows if row["failure"] is None]
    expected = [
        row["failure"] is None and not any(beats(other, row) for other in usable) for row in rows
    ]
    assert choosing.front(rows) == expected
    assert any(expected)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("objective", ["ms", "bytes"])
def test_choice_is_the_cheapest_that_is_accurate_enough(seed, objective):
    rows, cost = drawn(seed), choosing.OBJECTIVES[objective]
    least = rows[0]["validation_accuracy"] - 0.25
    found = rows[choosing.choose(rows, cost, least)]
    assert found["failure"] is None and found["validation_accuracy"] >= least
    for row in rows:
        if row["failure"] is None and row["validation_accuracy"] >= least:
            assert row[cost] >= found[cost]
            if row[cost] == found[cost]:
                assert row["validation_accuracy"] <= found["validation_accuracy"]


def test_a_file_on_the_limit_is_within_it():
    """In binary 0.51 - 0.1 is more than 0.41."""
    assert 0.51 - 0.1 > 0.41
    rows = [file(0.51, 2.0, 20), file(0.41, 1.0, 10)]
    assert choosing.choose(rows, "bytes", 0.51 - 0.1) == 1


def test_where_nothing_smaller_is_accurate_enough_the_original_is_chosen():
    rows = [file(0.9, 2.0, 20), file(0.7, 1.0, 10), file(0.8, 1.5, 12), file(1.0, 3.0, 30)]
    assert choosing.choose(rows, "bytes", 0.89) == 0
    assert choosing.best_of_cheaper(rows, "bytes", 20) == 2
    assert choosing.best_of_cheaper(rows, "bytes", 10) is None


def test_of_files_alike_the_first_is_chosen_and_all_are_on_the_front():
    rows = [file(0.9, 2.0, 20), file(0.9, 1.0, 10), file(0.9, 1.0, 10)]
    assert choosing.choose(rows, "bytes", 0.9) == 1
    assert choosing.front(rows) == [False, True, True]


def test_no_file_is_an_error():
    with pytest.raises(ValueError):
        choosing.choose([file(None, None, None, "differs")], "bytes", 0.5)
