"""Image classification data: a name in, normalised and augmented `tf.data` batches out.

`describe` answers what is known of a data set without importing TensorFlow; `load` reads it.
"""

from kdtoolkit._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    names={
        "describe": "catalog",
        "DatasetInfo": "catalog",
        "load": "loading",
        "Data": "loading",
        "Preprocessing": "preprocessing",
        "Augmentation": "augmentation",
        "Views": "augmentation",
        "PhotographAugmentation": "photographs",
        "EpochPlan": "augmentation",
        "epoch_plan": "augmentation",
        "Split": "pipeline",
        "StreamingSplit": "pipeline",
        "reading": "sources",
        "DamagedDataError": "sources",
    },
)
