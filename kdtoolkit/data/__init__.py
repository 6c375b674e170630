"""Image classification data: a name in, normalised and augmented `tf.data` batches out.

`describe` answers what is known of a data set without importing TensorFlow; `load` reads it. Data
of one's own are a `Source`, which `register` gives a name.
"""

from typing import TYPE_CHECKING

from kdtoolkit._lazy import attach

if TYPE_CHECKING:
    from kdtoolkit.data.arrays import Arrays as Arrays
    from kdtoolkit.data.augmentation import Augmentation as Augmentation
    from kdtoolkit.data.augmentation import Augmenter as Augmenter
    from kdtoolkit.data.augmentation import EpochPlan as EpochPlan
    from kdtoolkit.data.augmentation import Views as Views
    from kdtoolkit.data.augmentation import epoch_plan as epoch_plan
    from kdtoolkit.data.catalog import describe as describe
    from kdtoolkit.data.catalog import register as register
    from kdtoolkit.data.examples import Examples as Examples
    from kdtoolkit.data.loading import HELD_LIMIT as HELD_LIMIT
    from kdtoolkit.data.loading import MEMORY_LIMIT as MEMORY_LIMIT
    from kdtoolkit.data.loading import Data as Data
    from kdtoolkit.data.loading import from_arrays as from_arrays
    from kdtoolkit.data.loading import load as load
    from kdtoolkit.data.mixing import Mixing as Mixing
    from kdtoolkit.data.photographs import PhotographAugmentation as PhotographAugmentation
    from kdtoolkit.data.photographs import PhotographPlan as PhotographPlan
    from kdtoolkit.data.pipeline import Split as Split
    from kdtoolkit.data.pipeline import StreamingSplit as StreamingSplit
    from kdtoolkit.data.preprocessing import Preprocessing as Preprocessing
    from kdtoolkit.data.rand_augment import RandAugment as RandAugment
    from kdtoolkit.data.records import SORT_WINDOW as SORT_WINDOW
    from kdtoolkit.data.source import TEST_FRACTION as TEST_FRACTION
    from kdtoolkit.data.source import DatasetInfo as DatasetInfo
    from kdtoolkit.data.source import Source as Source
    from kdtoolkit.data.source import Stored as Stored
    from kdtoolkit.data.stream import DamagedDataError as DamagedDataError
    from kdtoolkit.data.stream import reading as reading
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        names={
            "describe": "catalog",
            "register": "catalog",
            "DatasetInfo": "source",
            "Source": "source",
            "Stored": "source",
            "Arrays": "arrays",
            "load": "loading",
            "from_arrays": "loading",
            "Data": "loading",
            "Preprocessing": "preprocessing",
            "Augmenter": "augmentation",
            "Augmentation": "augmentation",
            "Views": "augmentation",
            "PhotographAugmentation": "photographs",
            "RandAugment": "rand_augment",
            "Mixing": "mixing",
            "EpochPlan": "augmentation",
            "epoch_plan": "augmentation",
            "Examples": "examples",
            "Split": "pipeline",
            "StreamingSplit": "pipeline",
            "reading": "stream",
            "DamagedDataError": "stream",
            "PhotographPlan": "photographs",
            "MEMORY_LIMIT": "loading",
            "HELD_LIMIT": "loading",
            "SORT_WINDOW": "records",
            "TEST_FRACTION": "source",
        },
    )
