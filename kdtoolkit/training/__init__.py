"""Trainers: `keras.Model`s that hold a network and override `train_step`."""

from typing import TYPE_CHECKING

from kdtoolkit._lazy import attach

if TYPE_CHECKING:
    from kdtoolkit.training import compute as compute
    from kdtoolkit.training import teacher_cache as teacher_cache
    from kdtoolkit.training.compute import Compute as Compute
    from kdtoolkit.training.distribution import WorkerLostError as WorkerLostError
    from kdtoolkit.training.distribution import strategy as strategy
    from kdtoolkit.training.finiteness import NonFiniteError as NonFiniteError
    from kdtoolkit.training.finiteness import NonFiniteInputError as NonFiniteInputError
    from kdtoolkit.training.finiteness import NonFiniteLossError as NonFiniteLossError
    from kdtoolkit.training.finiteness import NonFiniteVariableError as NonFiniteVariableError
    from kdtoolkit.training.finiteness import UnknownClassError as UnknownClassError
    from kdtoolkit.training.loop import Pace as Pace
    from kdtoolkit.training.loop import Settings as Settings
    from kdtoolkit.training.loop import Training as Training
    from kdtoolkit.training.mutual import MutualLearning as MutualLearning
    from kdtoolkit.training.patriarch import Patriarch as Patriarch
    from kdtoolkit.training.schedules import SCHEDULES as SCHEDULES
    from kdtoolkit.training.schedules import Schedule as Schedule
    from kdtoolkit.training.self_distillation import SelfDistillation as SelfDistillation
    from kdtoolkit.training.step import Trainer as Trainer
    from kdtoolkit.training.student import Student as Student
    from kdtoolkit.training.teacher_cache import TeacherCache as TeacherCache
    from kdtoolkit.training.transfer import Transfer as Transfer
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        modules=("compute", "teacher_cache"),
        names={
            "Trainer": "step",
            "NonFiniteError": "finiteness",
            "NonFiniteInputError": "finiteness",
            "NonFiniteLossError": "finiteness",
            "NonFiniteVariableError": "finiteness",
            "UnknownClassError": "finiteness",
            "Patriarch": "patriarch",
            "Student": "student",
            "SelfDistillation": "self_distillation",
            "MutualLearning": "mutual",
            "Compute": "compute",
            "SCHEDULES": "schedules",
            "Schedule": "schedules",
            "Pace": "loop",
            "Settings": "loop",
            "TeacherCache": "teacher_cache",
            "Training": "loop",
            "Transfer": "transfer",
            "WorkerLostError": "distribution",
            "strategy": "distribution",
        },
    )
