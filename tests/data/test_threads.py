"""Many things in few threads."""

import threading

import pytest

from kdtoolkit.data import threads


def test_results_are_in_order_and_few_are_submitted_at_a_time(monkeypatch):
    monkeypatch.setattr(threads, "_SUBMITTED", 4)
    called, lock = [], threading.Lock()

    def square(item):
        with lock:
            called.append(item)
        return item**2

    results = threads.in_threads(square, range(10))
    assert next(results) == 0
    assert set(called) <= set(range(4))
    assert [*results] == [item**2 for item in range(1, 10)]
    assert sorted(called) == [*range(10)]


def test_an_error_is_raised_and_ends_it(monkeypatch):
    monkeypatch.setattr(threads, "_SUBMITTED", 1)
    called = []

    def fail(item):
        called.append(item)
        raise OSError("too many open files")

    with pytest.raises(OSError, match="too many"):
        list(threads.in_threads(fail, range(5)))
    assert called == [0]
