"""Times contenders side by side: interleaved in one process, compared round by round.

Two runs of one program differ by more than what is looked for here: the machine's clock, its heat
and its other users change meanwhile. So every round runs each contender for a few steps in turn,
ratios are taken within a round, and the median over the rounds is reported. The processor's time
stands beside the clock's: well below cores x clock, the machine was busy with something else.
"""

import datetime
import importlib.metadata
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kdtoolkit._machine import cores
from kdtoolkit._tables import aligned


@dataclass(frozen=True)
class Contender:
    """What is timed.

    Attributes:
        name: in the table.
        make: returns `run`; `run(steps)` takes that many steps and returns when they are done: None
            or, where other processes took them, the seconds of the processor that those spent.
    """

    name: str
    make: Callable[[], Callable[[int], float | None]]


@dataclass(frozen=True)
class Timing:
    """Seconds per step in one round, by the clock and summed over the processor's cores."""

    clock: float
    processor: float


def interleave(contenders, *, steps, rounds, warm_up=3, report=lambda line: None):
    """Times every contender in every round.

    Args:
        contenders: of `Contender`, distinct names.
        steps: timed steps of one contender in one round.
        rounds: number of rounds.
        warm_up: steps before the first round: tracing, memory, thread pools.
        report: called with a line of progress now and then.

    Returns:
        dict: name -> list of `Timing`, one a round.
    """
    runs = {}
    for contender in contenders:
        report(f"warming up: {contender.name}")
        runs[contender.name] = contender.make()
        runs[contender.name](warm_up)
    names = list(runs)
    timings = {name: [] for name in names}
    for number in range(rounds):
        report(f"round {number + 1} of {rounds}")
        first = number % len(names)
        for name in names[first:] + names[:first]:
            runs[name](1)  # Untimed: caches and threads are still those of the one before.
            clock, processor = time.perf_counter(), time.process_time()
            elsewhere = runs[name](steps)
            clock, processor = time.perf_counter() - clock, time.process_time() - processor
            processor = processor if elsewhere is None else elsewhere
            timings[name].append(Timing(clock / steps, processor / steps))
    return timings


def noting_first_step(contender, seconds):
    """Returns the contender, which notes in a dict, under its name, how long its start takes.

    That is making it and taking the first step: the network, tracing, memory. What the libraries
    set up once in a process counts for whichever contender is its first.
    """

    def make():
        started = time.perf_counter()
        run = contender.make()
        run(1)
        seconds[contender.name] = time.perf_counter() - started
        return run

    return Contender(contender.name, make)


def ratio(timings, name, baseline):
    """Returns how many times as long a contender's step takes: the median over the rounds."""
    return statistics.median(_clock_ratios(timings, name, baseline))


def ratio_table(timings, pairs):
    """Returns a header and one row of text per `(name, baseline)`."""
    header = ("ratio", "median", "min..max", "CPU")
    rows = [(f"{a} / {b}", *_ratios(timings, a, b)) for a, b in pairs]
    return [header, *rows]


def step_table(timings, baseline, batch_size, columns=None):
    """Returns a header and one row of text per contender; ratios are to `baseline`.

    Further `columns` are a dict: header -> (name -> text).
    """
    columns = columns or {}
    header = ("contender", "ms/step", "min..max", "CPU ms/step", "images/s")
    header += (f"/ {baseline}", "min..max", "CPU")
    header += tuple(columns)
    rows = []
    for name, rounds in timings.items():
        clock = [1e3 * timing.clock for timing in rounds]
        median = statistics.median(clock)
        processor = statistics.median(1e3 * timing.processor for timing in rounds)
        span = f"{_milliseconds(min(clock))}..{_milliseconds(max(clock))}"
        row = (name, _milliseconds(median), span, _milliseconds(processor))
        row += (f"{1e3 * batch_size / median:.0f}", *_ratios(timings, name, baseline))
        rows.append((*row, *(texts[name] for texts in columns.values())))
    return [header, *rows]


def _clock_ratios(timings, name, baseline):
    return [a.clock / b.clock for a, b in zip(timings[name], timings[baseline], strict=True)]


def _milliseconds(value):
    return f"{value:.1f}" if value >= 10 else f"{value:.3f}"


def _ratios(timings, name, baseline):
    clock = _clock_ratios(timings, name, baseline)
    pairs = zip(timings[name], timings[baseline], strict=True)
    processor = [a.processor / b.processor for a, b in pairs]
    return (
        f"{statistics.median(clock):.3f}",
        f"{min(clock):.3f}..{max(clock):.3f}",
        f"{statistics.median(processor):.3f}",
    )


def format_table(table, markdown=False):
    """Formats rows of text, the first of them the header; all columns but the first are numbers."""
    if markdown:
        rule = ["---", *["---:"] * (len(table[0]) - 1)]
        lines = [f"| {' | '.join(row)} |" for row in (table[0], rule, *table[1:])]
        return "\n".join(lines)
    return aligned(table, left=1, rule=False)


def environment(packages):
    """Returns lines that say where and when: versions, processor, load, date, command.

    Args:
        packages: names of distributions; those that are not installed are said to be missing.
    """
    program = Path(os.path.relpath(sys.argv[0]))
    called = ["-m", str(program.parent)] if program.name == "__main__.py" else [str(program)]
    return [
        f"date: {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        f"command: {shlex.join(['python', *called, *sys.argv[1:]])}",
        f"versions: Python {platform.python_version()}, {', '.join(map(_version, packages))}",
        f"processor: {_processor()}, {cores()} cores, load {os.getloadavg()[0]:.1f} at the start",
    ]


def _version(package):
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"no {package}"


def _processor():
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
