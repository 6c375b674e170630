"""Plots of what was learned."""

from kdtoolkit._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__, names={"plot_accuracy_against_cost": "plots", "write_report": "report"}
)
