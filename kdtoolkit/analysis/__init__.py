"""Plots of what was learned."""

from typing import TYPE_CHECKING

from kdtoolkit._lazy import attach

if TYPE_CHECKING:
    from kdtoolkit.analysis.plots import plot_accuracy_against_cost as plot_accuracy_against_cost
    from kdtoolkit.analysis.plots import plot_drops as plot_drops
    from kdtoolkit.analysis.report import write_report as write_report
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        names={
            "plot_accuracy_against_cost": "plots",
            "plot_drops": "plots",
            "write_report": "report",
        },
    )
