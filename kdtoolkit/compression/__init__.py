"""Compression for Keras 3: pruning of weights and channels, quantisation-aware training."""

from kdtoolkit._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    names={
        "KeepZeros": "keep",
        "MagnitudePruning": "pruning",
        "ChannelGroup": "channels",
        "ConstantSparsity": "schedules",
        "PolynomialDecay": "schedules",
        "Sparsity": "layers",
        "channel_groups": "channels",
        "mask_channels": "channels",
        "prune_channels": "channels",
        "select_channels": "channels",
        "shrink": "channels",
        "sparsity": "layers",
        "quantization_aware": "quantization",
    },
)
