"""The `kdtoolkit` command: lists the recipes and the other commands, and runs them."""

import ast
import difflib
import importlib
import pkgutil
import sys
from collections.abc import Sequence

from kdtoolkit import __version__, _describe, _rows, launch, recipes

COMMANDS = {"recipes": _rows, "describe": _describe, "launch": launch}


def recipe_summaries() -> dict[str, str]:
    """Returns recipe name -> the first line of its module's docstring, without importing it."""
    summaries = {}
    for finder, name, _ in pkgutil.iter_modules(recipes.__path__):
        if not name.startswith("_"):
            source = finder.find_spec(name).loader.get_source(name)
            summaries[name] = ast.get_docstring(ast.parse(source)).splitlines()[0]
    return summaries


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `kdtoolkit [RECIPE or COMMAND --flags]` and returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    summaries = recipe_summaries()
    if not argv or argv[0] in ("--help", "-h"):
        print(_help(summaries))
        return 0
    name, *rest = argv
    if name in COMMANDS:
        return COMMANDS[name].main(rest)
    if name not in summaries:
        known = [*summaries, *COMMANDS]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        print(
            f"kdtoolkit: RECIPE must be one of {', '.join(known)}. Received: {name}.{hint}",
            file=sys.stderr,
        )
        return 2
    return importlib.import_module(f"kdtoolkit.recipes.{name}").RECIPE.main(rest)


def _help(summaries):
    commands = {name: module.__doc__.splitlines()[0] for name, module in COMMANDS.items()}
    width = max(map(len, [*summaries, *commands]))
    lines = [f"kdtoolkit {__version__}", "", "usage: kdtoolkit RECIPE [--flag=value ...]"]
    for title, group in (("recipes", summaries), ("other commands", commands)):
        lines += ["", f"{title}:"]
        lines += [f"  {name.ljust(width)}  {summary}" for name, summary in group.items()]
    return "\n".join([*lines, "", "`kdtoolkit RECIPE --help` shows a recipe's flags."])


if __name__ == "__main__":
    sys.exit(main())
