"""Trainers: `keras.Model`s that hold a network and override `train_step`."""

from kdtoolkit._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    modules=("teacher_cache",),
    names={
        "Trainer": "step",
        "NonFiniteError": "step",
        "NonFiniteInputError": "step",
        "NonFiniteLossError": "step",
        "NonFiniteVariableError": "step",
        "UnknownClassError": "step",
        "Patriarch": "patriarch",
        "Student": "student",
        "SelfDistillation": "self_distillation",
        "MutualLearning": "mutual",
    },
)
