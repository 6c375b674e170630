"""What the benchmarks run on: the one place that says which devices a process sees."""

import os

DEVICES = ("auto", "cpu", "gpu")
ONEDNN = "TF_ENABLE_ONEDNN_OPTS"  # by default on where the processor has AVX512


def variables(device):
    """Returns the environment variables of a process, to be set before it imports a library.

    Args:
        device: `"cpu"` hides GPUs; `"gpu"` and `"auto"` show them, and let TensorFlow take memory
            as it needs it, because several contenders share one.
    """
    if device == "cpu":
        return {"CUDA_VISIBLE_DEVICES": "-1"}
    return {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}


def prepare(device):
    """Settles what the contenders in this process compute with, before libraries are imported."""
    os.environ.setdefault(ONEDNN, "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.update(variables(device))


def describe(arguments):
    """Returns how many GPUs this process sees, and what `compute.choose` makes of what there is."""
    import tensorflow as tf

    from kdtoolkit.training import compute

    chosen = compute.choose()
    return {
        "gpus": len(tf.config.list_physical_devices("GPU")),
        "precision": chosen.precision,
        "summary": chosen.summary,
    }
