"""Time, counted over several starts."""

import itertools

import pytest

from kdtoolkit.front import budget
from kdtoolkit.front.budget import Budget


@pytest.fixture
def clock(monkeypatch):
    """Each look at the clock is 30 seconds after the one before."""
    ticks = itertools.count(0, 30)
    monkeypatch.setattr(budget.time, "monotonic", lambda: next(ticks))


def test_candidates_begin_while_there_is_time(tmp_path, clock):
    found = Budget(tmp_path / "budget.json", 1.0, before=20.0, epoch_seconds=None)
    assert found.allows("a", epochs=5)
    with found.running("a"):
        pass
    assert found.seconds == {"a": 30.0}
    found.learn("a", epochs=5)  # six seconds each: 50 were spent, and at most 90 may be
    assert found.allows("b", epochs=6)
    assert not found.allows("c", epochs=7)


def test_interruptions_count_and_what_was_begun_goes_on(tmp_path, clock):
    path = tmp_path / "budget.json"
    first = Budget(path, 1.0, before=0.0, epoch_seconds=1.0)
    with pytest.raises(KeyboardInterrupt), first.running("a"):
        raise KeyboardInterrupt
    again = Budget(path, 1.0, before=0.0, epoch_seconds=1.0)
    assert again.seconds == {"a": 30.0}
    assert again.allows("a", epochs=1_000)
    with again.running("a"):
        pass
    assert again.seconds == {"a": 60.0}
    assert not again.allows("b", epochs=0)
    # The minute is over: without interruptions it would have been finished all the same.
    assert Budget(path, 1.0, before=0.0, epoch_seconds=1.0).allows("a", epochs=1_000)


def test_the_time_of_what_is_killed_counts(tmp_path, clock, monkeypatch):
    """What lies in the file while it runs."""
    monkeypatch.setattr(budget, "_NOTED", 0.001)
    path = tmp_path / "budget.json"
    last = Budget(path, 1.0, before=0.0, epoch_seconds=None)
    with last.running("a"):
        assert Budget(path, 1.0, before=0.0, epoch_seconds=None).allows("a", epochs=1_000)
        for _ in range(10_000):
            again = Budget(path, 1.0, before=0.0, epoch_seconds=None)
            if again.seconds["a"] >= 60:
                break
        assert not again.allows("b", epochs=0)


def test_what_was_refused_stays_so_until_there_is_more_time(tmp_path):
    path = tmp_path / "budget.json"
    assert not Budget(path, 1.0, before=60.0, epoch_seconds=None).allows("a", epochs=1)
    assert not Budget(path, 1.0, before=0.0, epoch_seconds=None).allows("a", epochs=1)
    assert Budget(path, 2.0, before=0.0, epoch_seconds=None).allows("a", epochs=1)
    assert Budget(path, None, before=0.0, epoch_seconds=None).allows("a", epochs=1)
