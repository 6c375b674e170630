"""From a classifier to the file for a device: what may be tried, what it costs, which one it is.

`search` tries students, fewer channels, integers and exits, each a call of its own, and chooses on
validation images.
"""

from typing import TYPE_CHECKING

from kdtoolkit._lazy import attach

if TYPE_CHECKING:
    from kdtoolkit.front.exploration import Front as Front
    from kdtoolkit.front.exploration import search as search
else:
    __getattr__, __dir__, __all__ = attach(
        __name__, names={"Front": "exploration", "search": "exploration"}
    )
