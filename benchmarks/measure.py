"""Times contenders side by side: interleaved in one process, compared round by round.

Two runs of one program differ by more than what is looked for here: the machine's clock, its heat
and its other users change meanwhile. So every round runs each contender for a few steps in turn,
ratios are taken within a round, and the median over the rounds is reported.
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


@dataclass(frozen=True)
class Contender:
    """What is timed.

    Attributes:
        name: in the table.
        make: returns `run`; `run(steps)` takes that many steps and returns when they are done.
    """

    name: str
    make: Callable[[], Callable[[int], None]]


def interleave(contenders, *, steps, rounds, warm_up=3, report=lambda line: None):
    """Times every contender in every round.

    Args:
        contenders: of `Contender`, distinct names.
        steps: timed steps of one contender in one round.
        rounds: number of rounds.
        warm_up: steps before the first round: tracing, memory, thread pools.
        report: called with a line of progress now and then.

    Returns:
        dict: name -> seconds per step in each round.
    """
    runs = {}
    for contender in contenders:
        report(f"warming up: {contender.name}")
        runs[contender.name] = contender.make()
        runs[contender.name](warm_up)
    names = list(runs)
    seconds = {name: [] for name in names}
    for number in range(rounds):
        report(f"round {number + 1} of {rounds}")
        first = number % len(names)
        for name in names[first:] + names[:first]:
            runs[name](1)  # Untimed: caches and threads are still those of the one before.
            start = time.perf_counter()
            runs[name](steps)
            seconds[name].append((time.perf_counter() - start) / steps)
    return seconds


def paired_ratios(seconds, name, baseline):
    """Returns the ratio of `name` to `baseline` in each round."""
    return [a / b for a, b in zip(seconds[name], seconds[baseline], strict=True)]


def step_table(seconds, baseline, batch_size):
    """Returns a header and one row of text per contender; ratios are paired with `baseline`."""
    header = ("contender", "ms/step", "min..max", "images/s", f"/ {baseline}", "min..max")
    rows = []
    for name, values in seconds.items():
        median = statistics.median(values)
        ratios = paired_ratios(seconds, name, baseline)
        rows.append(
            (
                name,
                f"{1e3 * median:.1f}",
                f"{1e3 * min(values):.1f}..{1e3 * max(values):.1f}",
                f"{batch_size / median:.0f}",
                f"{statistics.median(ratios):.3f}",
                f"{min(ratios):.3f}..{max(ratios):.3f}",
            )
        )
    return [header, *rows]


def format_table(table, markdown=False):
    """Formats rows of text, the first of them the header; all columns but the first are numbers."""
    if markdown:
        rule = ["---", *["---:"] * (len(table[0]) - 1)]
        lines = [f"| {' | '.join(row)} |" for row in (table[0], rule, *table[1:])]
        return "\n".join(lines)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    )


def environment(packages):
    """Returns lines that say where and when: versions, processor, load, date, command.

    Args:
        packages: names of distributions; those that are not installed are said to be missing.
    """
    return [
        f"date: {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        f"command: {shlex.join(['python', *sys.argv])}",
        f"versions: Python {platform.python_version()}, {', '.join(map(_version, packages))}",
        f"processor: {_processor()}, {cores()} cores, load {os.getloadavg()[0]:.1f} at the start",
    ]


def cores():
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


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
