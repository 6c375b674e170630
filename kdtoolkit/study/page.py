"""Results of studies in Markdown pages and as a plot, made from the results' files alone."""

import functools
import re
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path

from matplotlib.figure import Figure

from kdtoolkit import files, report
from kdtoolkit._checks import ArgumentError, near
from kdtoolkit._types import PathLike
from kdtoolkit.intervals import Difference, difference
from kdtoolkit.report import pictures
from kdtoolkit.report.svg import svg
from kdtoolkit.study import teachers
from kdtoolkit.study.plan import PlanError
from kdtoolkit.study.results import Results, Run

_BEGIN, _END = "<!-- {}: generated -->", "<!-- {}: end -->"
_MARK = re.compile(r"<!-- (study|teachers) ([a-z0-9._-]+): generated -->")
_ONCE = "What several arms have, the same image by image, is shown once."
_SHOWN = "test accuracy (%): every seed, and the mean"
_TIMES = ("seconds", "milliseconds_per_image")
# Figure -> its heading, factor and decimals.
_COLUMNS = {
    "test_accuracy": ("test accuracy", 100, 2),
    "validation_accuracy": ("validation", 100, 2),
    "train_accuracy": ("training images", 100, 2),
    "primary_score": ("primary score", 1, 3),
    "train_primary_score": ("on training images", 1, 3),
    "cost": ("cost", 1, 3),
    "sparsity": ("zeros in kernels, %", 100, 1),
    "bytes": ("kB", 1e-3, 1),
    "gzipped_bytes": ("kB gzipped", 1e-3, 1),
    "milliseconds_per_image": ("ms/image", 1, 3),
}


def text(results: Results) -> str:
    """Returns the tables of a study in Markdown: outcomes, differences, and how they were got.

    Accuracies are means over the seeds with sample deviations, in per cent; differences are in
    points, each with its two 95% intervals.
    """
    return "\n\n".join([*map(_markdown, _tables(results)), _said(results)])


def _said(results):
    """What stands below the tables."""
    every = sum(len(results.outcomes(arm.name)) for arm in results.plan.arms)
    hidden = "" if len(list(_rows(results))) == every else f"{_ONCE} "
    return hidden + _origin(results)


def _tables(results):
    tables = [_outcomes(results)]
    return [*tables, _differences(results)] if results.plan.comparisons else tables


def compared(results: Results) -> list[tuple[str, Difference, tuple[int, ...]]]:
    """Returns the plan's comparisons that both have a seed for: title, difference, seeds.

    Raises:
        PlanError: all runs of an arm have ended and none has the outcome; or the two were not
            tested on as many images.
    """
    rows = []
    for each in results.plan.comparisons:
        of, to = _correct(results, each.of), _correct(results, each.to)
        seeds = tuple(seed for seed in of if seed in to)
        if seeds:
            name = f"{_name(results, each.of)} - {_name(results, each.to)}"
            try:
                found = difference([of[seed] for seed in seeds], [to[seed] for seed in seeds])
            except ArgumentError as error:
                raise PlanError(f"the comparison {name}: {error}") from error
            rows.append((name, found, seeds))
    return rows


def _correct(results, pair):
    """Seed -> which images are classified correctly, of an arm and an outcome."""
    arm, outcome = pair
    runs = results.of(arm, outcome)
    ended = all((one.name, s) in results.runs for one, s in results.plan.runs() if one.name == arm)
    if ended and not runs:
        names = results.outcomes(arm)
        raise PlanError(
            f"a comparison must be of an outcome of arms.{arm}, {', '.join(names)}. "
            f"Received: {outcome!r}{near(outcome, names, '. ')}"
        )
    return {seed: run.correct[outcome] for seed, run in runs.items()}


def _name(results, pair):
    return f"{results.plan.arm(pair[0]).title}, {pair[1]}"


def _rows(results: Results) -> Iterator[tuple[str, str, list[Run]]]:
    """Yields the title of an arm, one of its outcomes, and the runs that have it.

    What arms share, such as the network that all of them compress, is there once: an outcome of the
    same name that is right on the same test images with every seed, and has the same figures but
    for the time that it took.
    """
    seen = set()
    for arm in results.plan.arms:
        for outcome in results.outcomes(arm.name):
            runs = results.of(arm.name, outcome)
            same = tuple((seed, *_timeless(run, outcome)) for seed, run in runs.items())
            if (outcome, same) not in seen:
                seen.add((outcome, same))
                yield arm.title, outcome, list(runs.values())


def _timeless(run, outcome):
    """What an outcome has again on another machine: its decisions and its figures."""
    figures = run.outcomes[outcome].items()
    return run.correct[outcome].tobytes(), frozenset(one for one in figures if one[0] not in _TIMES)


def _outcomes(results):
    rows = [
        (title, outcome, [run.outcomes[outcome] for run in runs])
        for title, outcome, runs in _rows(results)
    ]
    keys = [key for key in _COLUMNS if any(key in one for *_, figures in rows for one in figures)]
    lines = [["arm", "outcome", *(_COLUMNS[key][0] for key in keys), "seeds"]]
    for title, outcome, figures in rows:
        cells = [
            _mean([one[key] for one in figures if key in one], *_COLUMNS[key][1:]) for key in keys
        ]
        lines.append([title, outcome, *cells, str(len(figures))])
    return lines


def _mean(values, factor, decimals):
    if not values:
        return "-"
    shown = f"{factor * statistics.mean(values):.{decimals}f}"
    if len(values) > 1:
        shown += f" ± {factor * statistics.stdev(values):.{decimals}f}"
    return shown


def _differences(results):
    lines = [["difference", "points", "over seeds", "over test images", "seed by seed"]]
    for name, found, _ in compared(results):
        lines.append(
            [
                name,
                f"{100 * found.mean:+.2f}",
                _interval(found.over_seeds),
                _interval(found.over_images),
                ", ".join(f"{100 * value:+.2f}" for value in found.by_seed),
            ]
        )
    return lines


def _interval(ends):
    return "one run" if ends is None else f"[{100 * ends[0]:+.2f}, {100 * ends[1]:+.2f}]"


def _origin(results):
    runs = results.runs.values()
    seconds = [
        one.get("seconds", 0)
        for run in runs
        for name, one in run.outcomes.items()
        if name != "generation 0" or results.plan.arm(run.arm).patriarch_of is None
    ]
    commits = sorted({str(run.facts["commit"])[:7] for run in runs})
    machines = sorted(
        {"{device}, {cores} cores".format(**run.facts["environment"]) for run in runs}
    )
    versions = sorted({_versions(run.facts["environment"]["versions"]) for run in runs})
    count = len(runs)
    return (
        f"`kdtoolkit study {results.plan.name}.toml`: {count} "
        f"run{'s' * (count != 1)}, {sum(seconds) / 3600:.1f} hours of training; "
        f"{'; '.join(machines)}; {'; '.join(versions)}; commit {', '.join(commits)}."
    )


def _versions(versions):
    return ", ".join(f"{name} {value}" for name, value in versions.items())


def _markdown(lines):
    head, *body = (" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines)
    rule = " | ".join("---" for _ in lines[0])
    return "\n".join(f"| {line} |" for line in (head, rule, *body))


def plot(results: Results) -> Figure:
    """Returns a picture of every outcome's test accuracy: each seed a point, and their mean."""
    rows = [
        (f"{title}, {outcome}", [run.outcomes[outcome]["test_accuracy"] for run in runs], None)
        for title, outcome, runs in _rows(results)
    ]
    return pictures.seeds(rows, _SHOWN)


def write_page(path: PathLike, results: Results) -> None:
    """Writes a study as one HTML file: its plot and its tables, readable without a network."""
    tables = map(report.Table, _tables(results))
    parts = [report.Picture(plot(results), _SHOWN), *tables, _said(results)]
    section = report.Section("", parts)
    report.write_page(path, results.plan.title, [section])


def fill(page: str, studies: Mapping[str, Results]) -> str:
    """Returns a Markdown page with its generated parts made anew.

    A part lies between `<!-- study NAME: generated -->` and `<!-- study NAME: end -->`, of one
    study; or between `<!-- teachers NAME: generated -->` and `<!-- teachers NAME: end -->`, of what
    students gain in all studies whose names begin like that.

    Args:
        page: the text.
        studies: name -> results.

    Raises:
        ValueError: a part has no end after it, or is of a study that is not given.
    """
    for kind, name in _MARK.findall(page):
        part = f"{kind} {name}"
        begin, end = _BEGIN.format(part), _END.format(part)
        own = _studies(kind, name, studies)
        before, _, rest = page.partition(begin)
        if rest.count(end) != 1 or not own:
            raise ValueError(f"the page's part of {part} has no end, or no results")
        made = text(*own) if kind == "study" else _markdown(teachers.table(teachers.taught(own)))
        page = f"{before}{begin}\n{made}\n{end}{rest.partition(end)[2]}"
    return page


def _studies(kind, name, studies):
    """The results that a part of a page is made from."""
    if kind == "study":
        return [studies[name]] if name in studies else []
    return [results for each, results in studies.items() if each.startswith(name)]


def fill_file(
    path: PathLike, studies: Mapping[str, Results], plots: PathLike | None = None
) -> None:
    """Makes the generated parts of a Markdown file anew, and the plots of its studies.

    Args:
        path: the file.
        studies: name -> results.
        plots: directory of `NAME.svg`, and of `teachers-NAME.svg`; None for no plots.
    """
    page = fill(Path(path).read_text(encoding="utf-8"), studies)
    files.write_atomically(path, functools.partial(_write, page))
    if plots is None:
        return
    for kind, name in _MARK.findall(page):
        own = _studies(kind, name, studies)
        file = name if kind == "study" else f"teachers-{name}"
        figure = plot(*own) if kind == "study" else teachers.plot(teachers.taught(own))
        target = Path(plots) / f"{file}.svg"
        files.write_atomically(target, functools.partial(_write, svg(figure, file)))


def _write(text, scratch):
    scratch.write_text(text, encoding="utf-8")
