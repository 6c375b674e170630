"""Names that are imported when they are first used (PEP 562)."""

import importlib
from collections.abc import Iterable, Mapping


def attach(package: str, modules: Iterable[str] = (), names: Mapping[str, str] | None = None):
    """Returns `__getattr__`, `__dir__` and `__all__` for the package's `__init__`.

    Args:
        package: `__name__` of the package.
        modules: public sub-modules of the package.
        names: public name -> the sub-module that defines it.
    """
    modules, names = frozenset(modules), dict(names or {})
    public = sorted(modules | names.keys())

    def __getattr__(name):
        if name in names:
            return getattr(importlib.import_module(f"{package}.{names[name]}"), name)
        if name in modules:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def __dir__():
        return list(public)

    return __getattr__, __dir__, public
