"""Networks: functional Keras models that return logits, found by name.

`names` and `validate` need neither Keras nor TensorFlow, so that command lines answer at once.
"""

from kdtoolkit._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    names={
        "Ensemble": "ensemble",
        "FakeQuantize": "quantized_layers",
        "Family": "registry",
        "QuantizedConv2D": "quantized_layers",
        "QuantizedConv2DTranspose": "quantized_layers",
        "QuantizedDense": "quantized_layers",
        "QuantizedDepthwiseConv2D": "quantized_layers",
        "add_exits": "exits",
        "build": "registry",
        "cut": "exits",
        "cut_costs": "exits",
        "describe": "description",
        "exit_costs": "exits",
        "exit_names": "exits",
        "features": "exits",
        "flatten": "graph",
        "load_classifier": "saved",
        "load_state_dict": "state_dict",
        "macs": "cost",
        "names": "registry",
        "stages": "exits",
        "validate": "registry",
    },
)
