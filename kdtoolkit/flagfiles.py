"""The flag files in `recipes/`: one for each published row.

A file begins with comment lines `# KEY: TEXT`: the `row`, what is `published` of it, a `note`, the
`command` that runs it and the measured `cost`.
"""

import sysconfig
from pathlib import Path

KEYS = ("row", "published", "note", "command", "cost")


def directory() -> Path:
    """Returns where the flag files are: beside the package's source, or where it was installed.

    Raises:
        FileNotFoundError: they are in neither place.
    """
    beside = Path(__file__).parents[1] / "recipes"
    installed = Path(sysconfig.get_path("data")) / "share" / "kdtoolkit" / "recipes"
    for path in (beside, installed):
        if any(path.glob("*.flags")):
            return path
    raise FileNotFoundError(f"No flag files in {beside} or {installed}")


def head(path: Path) -> dict[str, str]:
    """Returns what the comments at the top of a flag file say, key -> text; lines are joined."""
    facts: dict[str, str] = {}
    for line in path.read_text().splitlines():
        if not line.startswith("# "):
            break
        key, _, text = line.removeprefix("# ").partition(": ")
        facts[key] = f"{facts[key]} {text}" if key in facts else text
    return facts


def rows() -> list[dict[str, str]]:
    """Returns the heads of all files, with the `path` and the `recipe` that it is for."""
    return [
        {
            "path": str(path),
            "recipe": (facts := head(path))["command"].split("kdtoolkit.recipes.")[1].split()[0],
            **facts,
        }
        for path in sorted(directory().glob("*.flags"))
    ]
