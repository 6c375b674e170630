"""What the site has beside docs/: the reference, and files that documents link to."""

import ast
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
ROOMS = (
    *("losses", "methods", "models", "data", "training", "generations", "comparison"),
    *("compression", "front", "export", "edge", "analysis", "study", "intervals", "report"),
)
_ELSEWHERE = re.compile(r"\]\(((?:\.\./)+)((?:benchmarks|examples|kdtoolkit|recipes)/[^)#]*)")


def on_config(config):
    """Puts a page for each room of the package where the navigation says `api/`."""
    (reference,) = (part for part in config.nav if part.get("Reference") == "api/")
    reference["Reference"] = [f"api/{room}.md" for room in ROOMS]
    return config


def on_files(files, config):
    for room in ROOMS:
        files.append(File.generated(config, f"api/{room}.md", content=_reference(room)))
    texts = [file.content_string for file in files if file.src_uri.endswith(".md")]
    for path in sorted({path for text in texts for _, path in _ELSEWHERE.findall(text)}):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links that lead out of docs/ lead to the copies in the site."""
    here = posixpath.dirname(page.file.src_uri)

    def inside(match):
        return f"]({posixpath.relpath(match[2], here or '.')}"

    return _ELSEWHERE.sub(inside, markdown)


def _reference(room):
    """What a room says of itself, and each public name of it."""
    path = ROOT / "kdtoolkit" / room
    lines = [f"# kdtoolkit.{room}", ""]
    if not path.is_dir():
        return "\n".join([*lines, f"::: kdtoolkit.{room}", ""])
    tree = ast.parse((path / "__init__.py").read_text(encoding="utf-8"))
    lines += [ast.get_docstring(tree) or "", ""]
    for node in ast.walk(tree):
        module = getattr(node, "module", None) or ""
        if module.startswith("kdtoolkit.") and module != "kdtoolkit._lazy":
            lines += [f"::: {module}.{alias.name}\n" for alias in node.names]
    return "\n".join(lines)
