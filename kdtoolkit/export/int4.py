"""Weights in four bits: ai-edge-quantizer's work, an extra (`pip install "kdtoolkit[int4]"`)."""

import importlib.util

from kdtoolkit._checks import ArgumentError


def check_installed(argument: str) -> None:
    """Raises an `ArgumentError` if what makes such files is not installed."""
    if importlib.util.find_spec("ai_edge_quantizer") is None:
        accepted = 'another kind where ai-edge-quantizer is not installed (`"kdtoolkit[int4]"`)'
        raise ArgumentError(argument, accepted, "int4")


def with_weights_in_four_bits(content: bytes) -> bytes:
    """Returns a LiteRT model of float32 whose kernels are in four bits, a scale for each channel.

    Activations stay in float32 between operations, and are rounded to eight bits where a kernel
    reads them.
    """
    from ai_edge_quantizer import quantizer, recipe

    work = quantizer.Quantizer(content, recipe.dynamic_wi4_afp32())
    # Its report goes to standard output.
    done = work.quantize(enable_progress_bar=False, enable_progress_report=False)
    return bytes(done.quantized_model)
