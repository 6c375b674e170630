"""Pages that show what was done: one HTML file each, which needs no other and no network."""

from typing import TYPE_CHECKING

from kdtoolkit._lazy import attach

if TYPE_CHECKING:
    from kdtoolkit.report.page import Code as Code
    from kdtoolkit.report.page import Picture as Picture
    from kdtoolkit.report.page import Section as Section
    from kdtoolkit.report.page import Table as Table
    from kdtoolkit.report.page import write_page as write_page
    from kdtoolkit.report.pictures import plot_accuracy_against_cost as plot_accuracy_against_cost
    from kdtoolkit.report.pictures import plot_drops as plot_drops
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        names={
            "Code": "page",
            "Picture": "page",
            "Section": "page",
            "Table": "page",
            "plot_accuracy_against_cost": "pictures",
            "plot_drops": "pictures",
            "write_page": "page",
        },
    )
