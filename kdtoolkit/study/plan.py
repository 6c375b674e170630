"""A study as a file: arms, seeds, and the comparisons that were decided before it was run."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdtoolkit._checks import near
from kdtoolkit._types import PathLike
from kdtoolkit.methods import registry

RECIPES = ("born_again", "compress", "distill", "self_distillation")
"""Recipes whose runs have outcomes: see `kdtoolkit.study.outcomes`."""

RUNS = "{runs}"
"""What stands for the directory of a study's runs in its flags, `{runs}/ARM/seed_{seed}`."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_RUN_OF = re.compile(re.escape(RUNS) + "/?([^/,]*)")
# Those that the study sets itself, run by run; `data_dir` says where a machine keeps its data.
_OWN = ("seed", "seeds", "output_dir", "data_dir", "smoke", "flagfile", "strategy")


class PlanError(ValueError):
    """A plan is not one: the message names the file, and what is wrong in it."""


@dataclass(frozen=True)
class Arm:
    """What is run once for each seed.

    Attributes:
        name: of the arm, and of its directory.
        title: what it is called in tables.
        recipe: name of the recipe.
        flags: of every run, but for its seed and its directories.
        patriarch_of: name of another arm, whose patriarch of the same seed this one begins with
            instead of training the same again; or None.
        seeds: of this arm, some of the plan's; None for all of them.
    """

    name: str
    title: str
    recipe: str
    flags: Mapping[str, object]
    patriarch_of: str | None = None
    seeds: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Comparison:
    """A difference that the study is run for.

    Attributes:
        of, to: (arm, outcome) each; the difference is the first minus the second.
    """

    of: tuple[str, str]
    to: tuple[str, str]


@dataclass(frozen=True)
class Plan:
    """A study.

    Attributes:
        name: stem of the file.
        title: one line.
        seeds: of the runs, in this order: every arm is run with one seed before the next.
        arms: in the order of their runs.
        comparisons: decided before.
    """

    name: str
    title: str
    seeds: tuple[int, ...]
    arms: tuple[Arm, ...]
    comparisons: tuple[Comparison, ...]

    def arm(self, name: str) -> Arm:
        """Returns an arm by its name."""
        return next(arm for arm in self.arms if arm.name == name)

    def runs(self) -> list[tuple[Arm, int]]:
        """Returns the runs in their order: every arm that has a seed, before the next seed."""
        return [
            (arm, seed)
            for seed in self.seeds
            for arm in self.arms
            if arm.seeds is None or seed in arm.seeds
        ]


def read_plan(path: PathLike) -> Plan:
    """Reads a plan from a TOML file.

    It holds `title`, `seeds`, `recipe`, `[flags]` of all arms, `[arms.NAME]` with `title`, `flags`
    of its own and, where they differ, `recipe`, `seeds` and `patriarch_of`, and `[[comparisons]]`
    with `of` and `to`, pairs of the name of an arm and of an outcome.

    Raises:
        OSError: the file cannot be read.
        PlanError: it is no plan.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PlanError(f"{path} is no TOML file: {error}") from error
    try:
        return _plan(path.stem, content)
    except PlanError as error:
        raise PlanError(f"{path}: {error}") from error


def _plan(name, content):
    _keys("the file", content, ("title", "seeds"), ("recipe", "flags", "arms", "comparisons"))
    seeds = _seeds("`seeds`", content["seeds"])
    shared, tables = _table("flags", content), _table("arms", content)
    if not tables:
        raise PlanError("`arms` must hold at least one table [arms.NAME]")
    arms = [_arm(key, _table(key, tables), content.get("recipe"), shared) for key in tables]
    for arm in arms:
        _check_seeds(arm, seeds)
        _check_patriarch(arm, {other.name: other for other in arms}, seeds)
    for place, arm in enumerate(arms):
        _check_runs(arm, [other.name for other in arms[:place]])
    known = [arm.name for arm in arms]
    comparisons = content.get("comparisons", [])
    if not isinstance(comparisons, list):
        raise PlanError("`comparisons` must be tables [[comparisons]]")
    return Plan(
        name,
        _text("title", content["title"]),
        seeds,
        tuple(arms),
        tuple(_comparison(each, known) for each in comparisons),
    )


def _arm(name, table, recipe, shared):
    where = f"arms.{name}"
    if not _NAME.fullmatch(name):
        raise PlanError(
            f"the name of an arm must be lower-case letters, digits, '.', '_' and '-'. "
            f"Received: {name!r}"
        )
    _keys(where, table, (), ("title", "recipe", "seeds", "flags", "patriarch_of"))
    recipe = table.get("recipe", recipe)
    if recipe is None:
        raise PlanError(f"`recipe` is missing: for {where}, or for all arms")
    flags = {**shared, **_table("flags", table)}
    for flag, value in flags.items():
        if flag in _OWN:
            raise PlanError(f"--{flag} is the study's own, and no flag of {where}")
        flag_text(value, where, flag)
    return Arm(
        name,
        _text("title", table.get("title", name)),
        _text("recipe", recipe),
        flags,
        table.get("patriarch_of"),
        _seeds(f"`seeds` of {where}", table["seeds"]) if "seeds" in table else None,
    )


def _seeds(what, value):
    seeds = isinstance(value, list) and all(type(s) is int and 0 <= s < 2**31 for s in value)
    if not seeds or not value or len(set(value)) != len(value):
        raise PlanError(
            f"{what} must be different integers from 0 to 2147483647. Received: {value}"
        )
    return tuple(value)


def _check_seeds(arm, seeds):
    others = [seed for seed in arm.seeds or () if seed not in seeds]
    if others:
        raise PlanError(
            f"`seeds` of arms.{arm.name} must be of the plan's, {', '.join(map(str, seeds))}. "
            f"Received: {others[0]}"
        )


def _check_patriarch(arm, arms, seeds):
    """What arms that share a patriarch may differ in is how it teaches."""
    if arm.patriarch_of is None:
        return
    other = _known("patriarch_of", arm.patriarch_of, list(arms))
    if arm.recipe != "born_again" or arms[other].recipe != "born_again":
        raise PlanError(f"`patriarch_of` of arms.{arm.name}: both must be runs of born_again")
    if list(arms).index(other) >= list(arms).index(arm.name):
        raise PlanError(f"`patriarch_of` of arms.{arm.name} must be an arm before it")
    if not set(arm.seeds or seeds) <= set(arms[other].seeds or seeds):
        raise PlanError(f"`patriarch_of` of arms.{arm.name} must be an arm that has its seeds")
    theirs = arms[other].flags
    differs = [
        flag
        for flag in sorted({*arm.flags, *theirs})
        if arm.flags.get(flag) != theirs.get(flag)
        and not flag.startswith(tuple(f"{name}_" for name in registry.names()))
        and flag not in ("methods", "generations", "export")
    ]
    if differs:
        raise PlanError(
            f"`patriarch_of` of arms.{arm.name}: its patriarch is another one than that of "
            f"{other}, by --{differs[0]}"
        )


def _check_runs(arm, before):
    """The runs that an arm is given are there by then."""
    for flag, value in arm.flags.items():
        for name in _RUN_OF.findall(flag_text(value, f"arms.{arm.name}", flag)):
            if name not in before:
                raise PlanError(
                    f"--{flag} of arms.{arm.name} must name an arm before it after {RUNS}/, "
                    f"{', '.join(before) or 'of which there is none'}. Received: {name!r}"
                    f"{near(name, before, '. ')}"
                )


def _comparison(table, known):
    if not isinstance(table, dict):
        raise PlanError("`comparisons` must be tables [[comparisons]]")
    _keys("a comparison", table, ("of", "to"), ())
    pairs = []
    for key in ("of", "to"):
        pair = table[key]
        if not (isinstance(pair, list) and [type(part) for part in pair] == [str, str]):
            raise PlanError(f"`{key}` must be [arm, outcome]. Received: {pair!r}")
        pairs.append((_known(key, pair[0], known), pair[1]))
    return Comparison(*pairs)


def flag_text(value: object, where: str, flag: str) -> str:
    """Returns a flag's value as the command line has it.

    Raises:
        PlanError: it is none that a flag can have.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, Sequence) and value:
        return ",".join(flag_text(part, where, flag) for part in value)
    raise PlanError(
        f"--{flag} of {where} must be text, a number, true, false, or an array of them. "
        f"Received: {value!r}"
    )


def _keys(where, table, needed, optional):
    for key in needed:
        if key not in table:
            raise PlanError(f"`{key}` is missing in {where}")
    for key in table:
        if key not in (*needed, *optional):
            raise PlanError(
                f"{where} must hold {', '.join((*needed, *optional))}. Received: {key}."
                f"{near(key, (*needed, *optional), ' ')}"
            )


def _table(key, content):
    value = content.get(key, {})
    if not isinstance(value, dict):
        raise PlanError(f"`{key}` must be a table. Received: {value!r}")
    return value


def _text(key, value):
    if not isinstance(value, str) or not value.strip():
        raise PlanError(f"`{key}` must be text. Received: {value!r}")
    return value


def _known(key, name, known):
    if name not in known:
        raise PlanError(
            f"`{key}` must be the name of an arm, of {', '.join(known)}. Received: {name!r}"
        )
    return name
