"""The table of all methods: what `docs/methods.md` shows of the registry."""

from kdtoolkit.methods.base import options
from kdtoolkit.methods.registry import get, names


def markdown() -> str:
    """A row for each method and correction: its name, its class with the defaults, what it is."""
    rows = ["| name | in Python | what it is |", "|---|---|---|"]
    for name in names():
        cls = get(name)
        summary = str(cls.__doc__).strip().splitlines()[0].replace("|", "\\|")
        values = ", ".join(f"{option.name}={_shown(option.default)}" for option in options(cls))
        rows.append(f"| `{name}` | `{cls.__name__}({values})` | {summary} |")
    return "\n".join(rows)


def _shown(value):
    return f"{value:g}" if isinstance(value, float) else repr(value)
