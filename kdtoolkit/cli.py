"""The `kdtoolkit` command: lists the recipes and runs them."""

import ast
import difflib
import importlib
import pkgutil
import sys
from collections.abc import Sequence

from kdtoolkit import __version__, recipes


def recipe_summaries() -> dict[str, str]:
    """Returns recipe name -> the first line of its module's docstring, without importing it."""
    summaries = {}
    for finder, name, _ in pkgutil.iter_modules(recipes.__path__):
        if not name.startswith("_"):
            source = finder.find_spec(name).loader.get_source(name)
            summaries[name] = ast.get_docstring(ast.parse(source)).splitlines()[0]
    return summaries


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `kdtoolkit [RECIPE --flags]` and returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    summaries = recipe_summaries()
    if not argv or argv[0] in ("--help", "-h", "recipes"):
        width = max(map(len, summaries))
        print(f"kdtoolkit {__version__}\n\nusage: kdtoolkit RECIPE [--flag=value ...]\n\nrecipes:")
        for name, summary in summaries.items():
            print(f"  {name.ljust(width)}  {summary}")
        print("\n`kdtoolkit RECIPE --help` shows a recipe's flags.")
        return 0
    name, *rest = argv
    if name not in summaries:
        near = difflib.get_close_matches(name, summaries, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        print(
            f"kdtoolkit: RECIPE must be one of {', '.join(summaries)}. Received: {name}.{hint}",
            file=sys.stderr,
        )
        return 2
    return importlib.import_module(f"kdtoolkit.recipes.{name}").RECIPE.main(rest)


if __name__ == "__main__":
    sys.exit(main())
