"""Runs arms of recipes over several seeds, and compares them with intervals."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from kdtoolkit import _errors, files
from kdtoolkit._arguments import Parser
from kdtoolkit.study.plan import PlanError, read_plan

_OF_PLANS = ("results", "output_dir", "data_dir", "time")
_OF_RESULTS = ("page", "plots")


def main(argv: Sequence[str]) -> int:
    """Runs `kdtoolkit study PLAN.toml` or `kdtoolkit study RESULTS.json...`; the exit status."""
    try:
        arguments = _parse(argv)
        is_plan = len(arguments.plan) == 1 and arguments.plan[0].suffix == ".toml"
        _check_use(arguments, is_plan)
        return _run(arguments) if is_plan else _show(arguments)
    except (PlanError, files.InUseError) as error:
        return _errors.fail("study", error, status=2)


def _parse(argv):
    parser = Parser(prog="kdtoolkit study", description=__doc__)
    parser.add_argument(
        "plan",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="a plan, NAME.toml, which is run as far as it was not; or files of results, "
        "NAME.json, which are shown",
    )
    parser.add_argument("--results", type=_path, help="of a plan (default: NAME.json beside it)")
    parser.add_argument(
        "--output_dir",
        type=_path,
        help="where a plan's runs are kept (default: saved_models/studies/NAME)",
    )
    parser.add_argument("--data_dir", help="where the data sets are")
    parser.add_argument(
        "--time",
        action="store_true",
        help="of a plan: run nothing, and measure the milliseconds of its finished runs again, "
        "now that the machine does nothing else",
    )
    parser.add_argument(
        "--page",
        type=_path,
        help="of results: a Markdown page whose generated parts they make anew",
    )
    parser.add_argument("--plots", type=_path, help="directory for the plots of the page")
    try:
        arguments = parser.parse_args(argv)
    except ValueError as error:
        raise PlanError(str(error)) from error
    for path in arguments.plan:
        if not path.is_file():
            raise PlanError(f"FILE must be a file. Received: {path}")
    return arguments


def _path(text):
    return Path(os.path.expanduser(text))  # `--flag=~/...` is expanded by few shells


def _check_use(arguments, is_plan):
    """Each option is of a plan or of results."""
    of = "results, NAME.json" if is_plan else "a plan, NAME.toml"
    for option in _OF_RESULTS if is_plan else _OF_PLANS:
        if getattr(arguments, option):
            raise PlanError(f"--{option} applies to {of}")
    if arguments.plots and not arguments.page:
        raise PlanError("--plots applies to a page, --page")


def _run(arguments):
    from kdtoolkit.study.runs import RunFailedError, run_study, time_study

    plan = read_plan(arguments.plan[0])
    output_dir = arguments.output_dir or Path("saved_models", "studies", plan.name)
    path = arguments.results or arguments.plan[0].with_suffix(".json")
    call = time_study if arguments.time else run_study
    try:
        results = call(plan, output_dir, path, data_dir=arguments.data_dir, show=_say)
    except RunFailedError as error:
        return _errors.fail("study", error, status=1)
    from kdtoolkit.study import page

    page.write_page(output_dir / "report.html", results)
    print(page.text(results))
    return 0


def _say(run):
    shown = ", ".join(
        f"{name} {figures['test_accuracy']:.2%}" for name, figures in run.outcomes.items()
    )
    print(f"{run.arm}, seed {run.seed}: {shown}", file=sys.stderr)


def _show(arguments):
    from kdtoolkit.study import page
    from kdtoolkit.study.results import read_results

    found = {}
    for path in arguments.plan:
        if path.suffix != ".json":
            raise PlanError(f"FILE must be one NAME.toml, or NAME.json each. Received: {path}")
        results = read_results(path)
        if results.plan.name in found:
            raise PlanError(
                f"FILE must be one of each study. Received: {path}, the second of "
                f"{results.plan.name}"
            )
        found[results.plan.name] = results
    if arguments.page is None:
        print("\n\n".join(page.text(results) for results in found.values()))
        return 0
    try:
        page.fill_file(arguments.page, found, arguments.plots)
    except ValueError as error:
        raise PlanError(f"--page={arguments.page}: {error}") from error
    return 0
