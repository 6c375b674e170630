"""Studies: arms of recipes over several seeds, run once each, and compared with intervals."""

from typing import TYPE_CHECKING

from kdtoolkit._lazy import attach

if TYPE_CHECKING:
    from kdtoolkit.study.plan import Arm as Arm
    from kdtoolkit.study.plan import Comparison as Comparison
    from kdtoolkit.study.plan import Plan as Plan
    from kdtoolkit.study.plan import PlanError as PlanError
    from kdtoolkit.study.plan import read_plan as read_plan
    from kdtoolkit.study.results import Results as Results
    from kdtoolkit.study.results import Run as Run
    from kdtoolkit.study.results import read_results as read_results
    from kdtoolkit.study.results import write_results as write_results
    from kdtoolkit.study.runs import RunFailedError as RunFailedError
    from kdtoolkit.study.runs import run_study as run_study
    from kdtoolkit.study.runs import time_study as time_study
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        names={
            "Arm": "plan",
            "Comparison": "plan",
            "Plan": "plan",
            "PlanError": "plan",
            "Results": "results",
            "Run": "results",
            "RunFailedError": "runs",
            "read_plan": "plan",
            "read_results": "results",
            "run_study": "runs",
            "time_study": "runs",
            "write_results": "results",
        },
    )
