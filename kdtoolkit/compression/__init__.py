"""Compression for Keras 3: pruning of weights and channels, quantisation-aware training.

`compress` does all of it to one network, and measures what comes of it.
"""

from typing import TYPE_CHECKING

from kdtoolkit._lazy import attach

if TYPE_CHECKING:
    from kdtoolkit.compression import importance as importance
    from kdtoolkit.compression.channel_selection import prune_channels as prune_channels
    from kdtoolkit.compression.channel_selection import select_channels as select_channels
    from kdtoolkit.compression.channels import mask_channels as mask_channels
    from kdtoolkit.compression.channels import shrink as shrink
    from kdtoolkit.compression.coupling import ChannelGroup as ChannelGroup
    from kdtoolkit.compression.coupling import channel_groups as channel_groups
    from kdtoolkit.compression.keep import KeepZeros as KeepZeros
    from kdtoolkit.compression.layers import Sparsity as Sparsity
    from kdtoolkit.compression.layers import sparsity as sparsity
    from kdtoolkit.compression.pruning import MagnitudePruning as MagnitudePruning
    from kdtoolkit.compression.quantization import quantization_aware as quantization_aware
    from kdtoolkit.compression.recalibration import recalibrate as recalibrate
    from kdtoolkit.compression.schedules import ConstantSparsity as ConstantSparsity
    from kdtoolkit.compression.schedules import PolynomialDecay as PolynomialDecay
    from kdtoolkit.compression.sensitivity_analysis import Sensitivity as Sensitivity
    from kdtoolkit.compression.sensitivity_analysis import SensitivityRow as SensitivityRow
    from kdtoolkit.compression.sensitivity_analysis import sensitivity as sensitivity
    from kdtoolkit.compression.target import Target as Target
    from kdtoolkit.compression.variants import Compressed as Compressed
    from kdtoolkit.compression.variants import compress as compress
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        modules=["importance"],
        names={
            "Compressed": "variants",
            "KeepZeros": "keep",
            "MagnitudePruning": "pruning",
            "ChannelGroup": "coupling",
            "ConstantSparsity": "schedules",
            "PolynomialDecay": "schedules",
            "Sensitivity": "sensitivity_analysis",
            "SensitivityRow": "sensitivity_analysis",
            "Sparsity": "layers",
            "Target": "target",
            "channel_groups": "coupling",
            "compress": "variants",
            "mask_channels": "channels",
            "prune_channels": "channel_selection",
            "recalibrate": "recalibration",
            "select_channels": "channel_selection",
            "sensitivity": "sensitivity_analysis",
            "shrink": "channels",
            "sparsity": "layers",
            "quantization_aware": "quantization",
        },
    )
