"""Runs inputs in a process that is watched: for 10 s, 2 GiB and exceptions that are not ours.

On Linux alone, whose `/proc` says what a process has used.
"""

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.fuzz import judge

MEMORY = 2 << 30
"""Bytes that a process may take, what it imports included."""

SECONDS = 10
"""That an input may compute, or wait for something; other processes' time is not counted.

An area whose inputs train a network has a limit of its own.
"""

_PREPARATION = 600  # seconds: TensorFlow's import, and samples
_WORN = 3 << 29  # bytes after which a process makes room for a new one: Keras keeps what it traced


@dataclass
class Tally:
    """What became of an area's inputs.

    Attributes:
        counts: outcome -> inputs.
        findings: index -> what happened.
        slowest: seconds of computing, and the index.
        peak: bytes of the process, and the index.
    """

    counts: dict[str, int] = field(default_factory=lambda: {"accepted": 0, "refused": 0})
    findings: dict[int, str] = field(default_factory=dict)
    slowest: tuple[float, int] = (0.0, -1)
    peak: tuple[int, int] = (0, -1)


def generator(seed: int, area: str, index: int) -> np.random.Generator:
    """That of an input, whatever ran before it."""
    return np.random.default_rng([seed, zlib.crc32(area.encode()), index])


def run(
    areas: Mapping[str, type],
    inputs: Mapping[str, Sequence[int]],
    seed: int,
    directory: Path,
    report=lambda area, index, finding: None,
    preload: Sequence[str] = (),
) -> dict[str, Tally]:
    """Tries the inputs of each area.

    Args:
        areas: name -> class. It is made with a directory for its sample; `attempt(generator)` tries
            one input and returns `"accepted"` or `"refused"`, or raises what should not happen.
            `limit` is how many seconds an input may take, `memory` how many bytes.
        inputs: name -> indices.
        seed: of all of them.
        directory: for samples and inputs.
        report: called with each finding.
        preload: modules that are imported once, for all processes.
    """
    tallies = {}
    with contextlib.closing(_Watched(areas, seed, directory, preload)) as worker:
        for area, indices in inputs.items():
            tally = tallies[area] = Tally()
            for index in indices:
                outcome = worker.attempt(area, index)
                if outcome.kind == "hang" and not outcome.peak > worker.memory(area):
                    outcome = worker.attempt(area, index)  # or was the machine busy?
                if outcome.finding is None:
                    tally.counts[outcome.kind] += 1
                else:
                    tally.findings[index] = outcome.finding
                    report(area, index, outcome.finding)
                tally.slowest = max(tally.slowest, (outcome.seconds, index))
                tally.peak = max(tally.peak, (outcome.peak, index))
    return tallies


def table(tallies: Mapping[str, Tally]) -> str:
    """The tallies as aligned text."""
    rows = [("area", "inputs", "accepted", "refused", "findings", "slowest", "peak memory")]
    for area, tally in tallies.items():
        accepted, refused = tally.counts["accepted"], tally.counts["refused"]
        found = len(tally.findings)
        seconds, mebibytes = tally.slowest[0], tally.peak[0] >> 20
        total = accepted + refused + found
        rows.append((area, total, accepted, refused, found, f"{seconds:.2f} s", f"{mebibytes} MiB"))
    sums = [sum(row[column] for row in rows[1:]) for column in range(1, 5)]
    rows.append(("all", *sums, "", ""))
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


@dataclass
class _Outcome:
    kind: str
    finding: str | None = None
    seconds: float = 0.0
    peak: int = 0


class _Watched:
    """A process that tries inputs; it is ended, and another one started, when one goes wrong."""

    def __init__(self, areas, seed, directory, preload):
        self._arguments = (areas, seed, directory)
        self._log = directory / "log"
        self._areas, self._preload = areas, list(preload)
        self._process = None
        self._prepared = set()

    def attempt(self, area, index):
        if self._process is None:
            self._start()
        if area not in self._prepared:
            self._connection.send((area, None))
            outcome = self._wait(_PREPARATION, None)
            if outcome.finding is not None:
                raise RuntimeError(f"The sample of {area} cannot be made: {outcome.finding}")
            self._prepared.add(area)
        self._connection.send((area, index))
        memory = self.memory(area)
        outcome = self._wait(getattr(self._areas[area], "limit", SECONDS), memory)
        if outcome.finding is None and outcome.peak > memory:
            outcome.finding = f"it took {outcome.peak >> 20} MiB"
        if self._process is not None and _memory(self._process.pid, "VmRSS") > _WORN:
            self.close()
        return outcome

    def memory(self, area):
        return getattr(self._areas[area], "memory", MEMORY)

    def close(self):
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = None

    def _start(self):
        # Forked from one that has imported what takes seconds, and done nothing yet.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(self._preload)
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(*self._arguments, theirs))
        self._process.start()
        theirs.close()
        self._prepared = set()

    def _wait(self, limit, memory):
        pid, peak = self._process.pid, 0
        start = latest = _computed(pid)
        moved = time.monotonic()
        while not self._connection.poll(0.05):
            computed, now = _computed(pid), time.monotonic()
            peak = max(peak, _memory(pid, "VmRSS"))
            if computed - latest > 0.02:
                latest, moved = computed, now
            outcome = _Outcome("hang", None, computed - start, peak)
            if memory is not None and peak > memory:
                return self._end(outcome, f"it takes more than {memory >> 20} MiB")
            if computed - start > limit or now - moved > limit:
                return self._end(outcome, f"it takes over {limit} s")
        try:
            return self._connection.recv()
        except EOFError:
            self._process.join()
            how = f"the process ended with status {self._process.exitcode}"
            return self._end(_Outcome("crash", None, latest - start, peak), how)

    def _end(self, outcome, what):
        """Ends the process, which first says where it is."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGUSR1)
            time.sleep(0.2)
        self.close()
        lines = self._log.read_text(errors="replace").splitlines()[-40:]
        lines = [line for line in lines if "multiprocessing" not in line and "<string>" not in line]
        outcome.finding = "\n".join([what, *lines])
        return outcome


def _computed(pid):
    """Seconds of processor time."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid, what):
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it has ended
        return 0
    found = [line for line in status.splitlines() if line.startswith(what)]
    return int(found[0].split()[1]) << 10 if found else 0


def _serve(areas, seed, directory, connection):
    """What the process does: tries what it is told to, and says what came of it."""
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    log = open(directory / "log", "w")  # noqa: SIM115  as long as the process lives
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    sys.stdout = sys.stderr = log
    faulthandler.enable(log)
    faulthandler.register(signal.SIGUSR1, log)
    ready = {}
    while True:
        area, index = connection.recv()
        log.truncate(0)
        log.seek(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
        start = time.process_time()
        try:
            if index is None:
                (directory / area).mkdir(exist_ok=True)
                ready[area] = areas[area](directory / area)
                outcome = _Outcome("prepared")
            else:
                outcome = _Outcome(ready[area].attempt(generator(seed, area, index)))
        except BaseException as error:  # whatever gets through
            outcome = _Outcome("exception", judge.described(error))
        outcome.seconds = time.process_time() - start
        outcome.peak = _memory(os.getpid(), "VmHWM")
        connection.send(outcome)
