"""Runs a study: every arm with every seed, one after another, each in a process of its own."""

import contextlib
import dataclasses
import importlib
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from absl import flags as absl_flags

from kdtoolkit import files
from kdtoolkit._types import PathLike
from kdtoolkit.recipes import _command
from kdtoolkit.study.plan import RECIPES, RUNS, Arm, Plan, PlanError, flag_text
from kdtoolkit.study.results import Results, Run, read_results, unpack, write_results

_MILLISECONDS = "milliseconds_per_image"
_TEST_IMAGES = ("dataset", "label")  # flags that say which they are, and what is right; any size


class RunFailedError(RuntimeError):
    """A run of a study ended with another exit status than 0; its own line says why."""

    def __init__(self, arm: str, seed: int, status: int):
        super().__init__(f"arm {arm}, seed {seed}: exit status {status}")
        self.status = status


def run_study(
    plan: Plan,
    output_dir: PathLike,
    results: PathLike,
    *,
    data_dir: PathLike | None = None,
    show: Callable[[Run], object] = lambda run: None,
) -> Results:
    """Runs what a study lacks, and writes its results after every run.

    Called again after an interruption it goes on in the epoch where it stopped, with the same
    figures. A run whose results are written is not run again, and its directory may be removed:
    where another run needs it, the same networks are trained again, and the results stay.

    Args:
        plan: of `read_plan`.
        output_dir: gets a directory `ARM/seed_SEED` for each run; `~` is the home directory.
        results: the file of the results; likewise.
        data_dir: where the data sets are; by default where TensorFlow Datasets keeps them.
        show: called with each run that has ended.

    Returns:
        The results.

    Raises:
        PlanError: the flags of an arm are wrong; the results, or the runs in the directory, are
            those of other flags.
        DamagedFileError: the results are damaged.
        InUseError: another process runs the study in this directory.
        RunFailedError: a run failed.
    """
    output_dir, results = _expanded(output_dir), _expanded(results)
    where = _where(data_dir)
    _check(plan, output_dir, where)
    if not results.parent.is_dir():
        raise PlanError(f"{results}, of the results, must be in a directory that exists")
    wanted = plan.runs()
    known = _known(results, wanted)
    _check_none_is_dropped(results, known, wanted)
    files.make_directory(output_dir)
    with files.locked(output_dir):
        _check_directories(plan, output_dir)
        for arm, seed in wanted:
            if (arm.name, seed) not in known:
                run = _run(plan, arm, seed, output_dir, where)
                known = {**known, (arm.name, seed): run}
                show(run)
                write_results(results, Results(plan, _in_order(known, wanted)))
    found = Results(plan, _in_order(known, wanted))
    write_results(results, found)  # with what the plan now says of titles and comparisons
    return found


def time_study(
    plan: Plan,
    output_dir: PathLike,
    results: PathLike,
    *,
    data_dir: PathLike | None = None,
    show: Callable[[Run], object] = lambda run: None,
) -> Results:
    """Measures the milliseconds of a study's finished runs again, and writes them to its results.

    To be called when the machine does nothing else. Nothing else is computed anew; of a run whose
    directory is gone the milliseconds remain.

    Args:
        plan, output_dir, results, data_dir: as they were given to `run_study`.
        show: called with each run that was timed.

    Returns:
        The results.

    Raises:
        PlanError: there are no results yet; they, or the runs in the directory, are those of other
            flags.
        DamagedFileError, InUseError, RunFailedError: as in `run_study`.
    """
    output_dir, results = _expanded(output_dir), _expanded(results)
    wanted = plan.runs()
    known = _known(results, wanted)
    if not known:
        raise PlanError(f"{results} must hold finished runs, whose milliseconds are measured again")
    _check_none_is_dropped(results, known, wanted)
    if not output_dir.is_dir():
        raise PlanError(f"{output_dir} must be the directory of the runs, which are measured again")
    with files.locked(output_dir):
        _check_directories(plan, output_dir)
        for arm, seed in wanted:
            run = known.get((arm.name, seed))
            if run is None or not _timed(run.outcomes) or not _is_kept(output_dir, arm, seed):
                continue
            print(f"Study {plan.name}: {arm.title}, seed {seed}: milliseconds", file=sys.stderr)
            figures = _with_milliseconds(run.outcomes, arm, seed, output_dir, _where(data_dir))
            run = dataclasses.replace(run, outcomes=figures)
            known = {**known, (arm.name, seed): run}
            write_results(results, Results(plan, _in_order(known, wanted)))
            show(run)
    return Results(plan, _in_order(known, wanted))


def _expanded(path: PathLike) -> Path:
    """A path in which `~` is the home directory, as it is in the flags of recipes."""
    return Path(os.path.expanduser(path))


def _where(data_dir):
    return [] if data_dir is None else [f"--data_dir={data_dir}"]


def _known(results, wanted):
    """The runs that a file of results holds, if there is one: of these arms the same flags."""
    known = read_results(results).runs if results.exists() else {}
    for arm, seed in wanted:
        run = known.get((arm.name, seed))
        if run is not None and run.command != _command_line(arm, seed):
            raise PlanError(
                f"{results} holds arm {arm.name}, seed {seed}, with other flags: {run.command}. "
                "Accepted: another file for the results, and another output directory"
            )
    return known


def _check_none_is_dropped(results, known, wanted):
    """The file is written with the plan's runs alone."""
    planned = {(arm.name, seed) for arm, seed in wanted}
    for arm, seed in known:
        if (arm, seed) not in planned:
            raise PlanError(
                f"{results} holds arm {arm}, seed {seed}, which the plan has not, and which would "
                "be lost. Accepted: another file for the results"
            )


def _check_directories(plan, output_dir):
    """What has ended in a directory is of the plan's flags: networks there are used from now on."""
    for arm in plan.arms:
        for seed in plan.seeds:  # of an arm without one, where another needs its network
            path = _outcomes(output_dir, arm, seed)
            found = files.read_record(path)["command"] if path.exists() else None
            if found not in (None, _command_line(arm, seed)):
                raise PlanError(
                    f"{output_dir} holds arm {arm.name}, seed {seed}, with other flags: {found}. "
                    "Accepted: another output directory"
                )


def _in_order(known, wanted):
    order = [(arm.name, seed) for arm, seed in wanted]
    return {key: known[key] for key in order if key in known}


def _check(plan, output_dir, where):
    """Checks the flags of every arm, as far as they do not depend on what is run before."""
    of_arms = {}
    for arm in plan.arms:
        if arm.recipe not in RECIPES:
            raise PlanError(
                f"`recipe` of arms.{arm.name} must be one of {', '.join(RECIPES)}. "
                f"Received: {arm.recipe!r}"
            )
        try:
            of_arms[arm.name] = _parsed(arm, plan.seeds[0], output_dir, where)
        except (_command.UsageError, absl_flags.Error) as error:
            raise PlanError(f"arms.{arm.name}: {error}") from error
    for each in plan.comparisons:
        for flag in _TEST_IMAGES:
            of, to = (of_arms[arm][flag].value for arm, _ in (each.of, each.to))
            if of != to:
                raise PlanError(
                    f"a comparison must be of arms that are tested on the same images. Received: "
                    f"--{flag}={of} of arms.{each.of[0]}, --{flag}={to} of arms.{each.to[0]}"
                )


def _parsed(arm, seed, output_dir, where):
    """The flags of an arm."""
    recipe = importlib.import_module(f"kdtoolkit.recipes.{arm.recipe}").RECIPE
    arguments = [*_arguments(arm, seed, output_dir), *where]
    flags = _command.Flags()
    recipe.define(flags)
    flags.define_by(arguments)
    flags.parse(arguments, recipe.renamed)
    if not any(RUNS in str(value) for value in arm.flags.values()):
        recipe.check(flags)  # which looks for the networks that it is given
    return flags


def _run(plan, arm, seed, output_dir, where):
    outcomes = _outcomes(output_dir, arm, seed)
    if not outcomes.exists():
        _train(plan, arm, seed, output_dir, where)
    found = files.read_record(outcomes)
    facts = {
        "commit": _commit(),
        "environment": found["environment"],
        "finished": found["finished"],
    }
    figures = {name: dict(one) for name, one in found["outcomes"].items()}
    correct = {name: unpack(one.pop("correct")) for name, one in figures.items()}
    if any(one.get(_MILLISECONDS, 0) is None for one in figures.values()):
        figures = _with_milliseconds(figures, arm, seed, output_dir, where)
    return Run(arm.name, seed, found["command"], facts, figures, correct)


def _train(plan, arm, seed, output_dir, where):
    """Runs an arm with a seed, after those before it that it needs and whose networks are gone."""
    for other in plan.arms[: plan.arms.index(arm)]:
        needed = f"{RUNS}/{other.name}/seed_{{seed}}" in " ".join(map(str, arm.flags.values()))
        if needed and not _is_kept(output_dir, other, seed):
            _train(plan, other, seed, output_dir, where)
    directory, outcomes = _directory(output_dir, arm, seed), _outcomes(output_dir, arm, seed)
    patriarch = ""
    if arm.patriarch_of is not None:
        other = plan.arm(arm.patriarch_of)
        theirs = _directory(output_dir, other, seed) / "generation_0"
        if _is_kept(output_dir, other, seed) and theirs.exists():
            patriarch = os.fspath(theirs)
    files.make_directory(directory.parent)
    # They tell that the run has ended: not of a directory that is gone.
    outcomes.unlink(missing_ok=True)
    print(f"Study {plan.name}: {arm.title}, seed {seed}", file=sys.stderr)
    given = [arm.recipe, os.fspath(outcomes), patriarch, _command_line(arm, seed)]
    _process("worker", given, arm, seed, output_dir, where)


def _timed(outcomes):
    return [name for name, one in outcomes.items() if _MILLISECONDS in one]


def _with_milliseconds(outcomes, arm, seed, output_dir, where):
    """The outcomes of a run with the milliseconds of its files, measured now."""
    directory = _directory(output_dir, arm, seed)
    path = directory.with_name(f"{directory.name}-milliseconds.json")
    _process("timing", [arm.recipe, os.fspath(path)], arm, seed, output_dir, where)
    found = files.read_record(path)
    return {
        name: {**one, _MILLISECONDS: found[name]} if name in found else one
        for name, one in outcomes.items()
    }


def _process(module, given, arm, seed, output_dir, where):
    """Runs a module of this package for a run of an arm, and waits for it."""
    command = [sys.executable, "-m", f"kdtoolkit.study.{module}", *given]
    arguments = [*_arguments(arm, seed, output_dir), *where]
    arguments.append(f"--output_dir={_directory(output_dir, arm, seed)}")
    # A process group of its own: Ctrl-C reaches this process, and closes the other's input.
    with subprocess.Popen(
        [*command, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            status = process.wait()
        except BaseException:
            process.kill()
            raise
    if status:
        raise RunFailedError(arm.name, seed, status)


def _directory(output_dir, arm, seed):
    return output_dir / arm.name / f"seed_{seed}"


def _outcomes(output_dir, arm, seed):
    return output_dir / arm.name / f"seed_{seed}.json"


def _is_kept(output_dir, arm, seed):
    """Whether a run has ended and its networks are still there."""
    return _outcomes(output_dir, arm, seed).exists() and _directory(output_dir, arm, seed).exists()


def _arguments(arm: Arm, seed: int, output_dir: Path) -> list[str]:
    """The command line of a run, without its directories."""
    arguments = [f"--seed={seed}"]
    for flag, value in arm.flags.items():
        text = flag_text(value, f"arms.{arm.name}", flag)
        text = text.replace("{seed}", str(seed)).replace(RUNS, os.fspath(output_dir))
        arguments.append(f"--{flag}={text}")
    return arguments


def _command_line(arm: Arm, seed: int) -> str:
    arguments = _arguments(arm, seed, Path("RUNS"))
    return shlex.join(["python", "-m", f"kdtoolkit.recipes.{arm.recipe}", *arguments])


def _commit() -> str | None:
    """The commit that this package is run from, `+` for changed files; None outside a checkout."""
    source = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", os.fspath(source), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        if Path(git("rev-parse", "--show-toplevel")) == source.parent:
            return git("rev-parse", "HEAD") + "+" * bool(git("status", "--porcelain", "-uno"))
    return None
