"""The time that a search has taken, over all its starts, and what there was none left for."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from kdtoolkit import files

_BEYOND = 1.5  # times the budget: what is foreseen to end later than that does not begin
_NOTED = 60.0  # seconds; after as many the time is stored again


class Budget:
    """Says whether a candidate may begin. What was refused once stays so within the same budget.

    Args:
        path: of the file that holds the seconds, and what was refused.
        minutes: in all; None for no limit.
        before: seconds that went before the search.
        epoch_seconds: what an epoch takes, where that is known before a candidate was trained.
    """

    def __init__(
        self, path: Path, minutes: float | None, before: float, epoch_seconds: float | None
    ) -> None:
        self.path, self.minutes, self.before = path, minutes, before
        self._slowest = epoch_seconds
        stored = files.read_record(path) if path.exists() else {}
        self.seconds: dict[str, float] = stored.get("seconds", {})
        self._refused: dict[str, float] = stored.get("refused", {})

    def allows(self, name: str, epochs: int) -> bool:
        """Whether a candidate of so many epochs may begin; stores a refusal."""
        # What was interrupted is finished, as it would have been without that.
        if self.minutes is None or name in self.seconds:
            return True
        if self._refused.get(name, 0.0) >= self.minutes:
            return False
        limit, spent = 60 * self.minutes, self.before + sum(self.seconds.values())
        foreseen = epochs * (self._slowest or 0.0)
        if spent < limit and spent + foreseen <= _BEYOND * limit:
            return True
        self._refused[name] = self.minutes
        self._write()
        return False

    @contextlib.contextmanager
    def running(self, name: str) -> Iterator[None]:
        """Counts the time that a candidate takes, also where it is interrupted, or killed."""
        before, started, over = self.seconds.get(name, 0.0), time.monotonic(), threading.Event()

        def note():
            self.seconds[name] = before + time.monotonic() - started
            self._write()

        def keep_noting():
            while not over.wait(_NOTED):
                note()

        self.seconds[name] = before
        self._write()
        noting = threading.Thread(target=keep_noting, daemon=True)
        noting.start()
        try:
            yield
        finally:
            over.set()
            noting.join()
            note()

    def learn(self, name: str, epochs: int) -> None:
        """Foresees that others take as long as this candidate did for so many epochs."""
        if epochs:
            self._slowest = max(self._slowest or 0.0, self.seconds.get(name, 0.0) / epochs)

    def _write(self):
        files.write_record(self.path, {"seconds": self.seconds, "refused": self._refused})
