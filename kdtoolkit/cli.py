"""The `kdtoolkit` command: lists the recipes and the other commands, and runs them."""

import sys
from collections.abc import Sequence

from kdtoolkit import _errors

COMMANDS = {
    "recipes": "_rows",
    "describe": "_describe",
    "export": "_export",
    "demo": "edge.demo",
    "launch": "launch",
    "report": "_report",
    "study": "study.command",
}


def recipe_summaries() -> dict[str, str]:
    """Returns recipe name -> the first line of its module's docstring, without importing it."""
    import pkgutil

    from kdtoolkit import recipes

    names = [name for _, name, _ in pkgutil.iter_modules(recipes.__path__)]
    return {name: _summary(f"recipes.{name}") for name in names if not name.startswith("_")}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `kdtoolkit [RECIPE or COMMAND --flags]` and returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    name = argv[0] if argv and argv[0] in COMMANDS else "kdtoolkit"
    return _errors.guarded(name, lambda: _main(argv))


# Modules are imported where they are used: before `guarded` Ctrl-C would be a traceback.
def _main(argv):
    import importlib

    summaries = recipe_summaries()
    if not argv or argv[0] in ("--help", "-h"):
        print(_help(summaries))
        return 0
    name, *rest = argv
    if name in COMMANDS:
        return importlib.import_module(f"kdtoolkit.{COMMANDS[name]}").main(rest)
    if name in summaries:
        return importlib.import_module(f"kdtoolkit.recipes.{name}").RECIPE.main(rest)
    from kdtoolkit._checks import near

    known = [*summaries, *COMMANDS]
    message = f"RECIPE must be one of {', '.join(known)}. Received: {name}{near(name, known, '. ')}"
    return _errors.fail("kdtoolkit", message, status=2)


def _summary(module):
    """The first line of a module's docstring, without importing it."""
    import ast
    from pathlib import Path

    path = Path(__file__).parent / f"{module.replace('.', '/')}.py"
    return ast.get_docstring(ast.parse(path.read_text())).splitlines()[0]


def _help(summaries):
    from kdtoolkit import __version__

    commands = {name: _summary(module) for name, module in COMMANDS.items()}
    width = max(map(len, [*summaries, *commands]))
    lines = [f"kdtoolkit {__version__}", "", "usage: kdtoolkit RECIPE [--flag=value ...]"]
    for title, group in (("recipes", summaries), ("other commands", commands)):
        lines += ["", f"{title}:"]
        lines += [f"  {name.ljust(width)}  {summary}" for name, summary in group.items()]
    return "\n".join([*lines, "", "`kdtoolkit RECIPE --help` shows a recipe's flags."])


if __name__ == "__main__":
    sys.exit(main())
