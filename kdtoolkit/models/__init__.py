"""Networks: functional Keras models that return logits, found by name.

`names` and `validate` need neither Keras nor TensorFlow, so that command lines answer at once.
"""

from typing import TYPE_CHECKING

from kdtoolkit._lazy import attach

if TYPE_CHECKING:
    from kdtoolkit.models import quantized_layers as quantized_layers
    from kdtoolkit.models.cost import macs as macs
    from kdtoolkit.models.description import Row as Row
    from kdtoolkit.models.description import describe as describe
    from kdtoolkit.models.ensemble import Ensemble as Ensemble
    from kdtoolkit.models.exits import add_exits as add_exits
    from kdtoolkit.models.exits import cut as cut
    from kdtoolkit.models.exits import cut_costs as cut_costs
    from kdtoolkit.models.exits import exit_costs as exit_costs
    from kdtoolkit.models.exits import exit_names as exit_names
    from kdtoolkit.models.exits import features as features
    from kdtoolkit.models.exits import stages as stages
    from kdtoolkit.models.graph import flatten as flatten
    from kdtoolkit.models.quantized_layers import FakeQuantize as FakeQuantize
    from kdtoolkit.models.quantized_layers import QuantizedConv2D as QuantizedConv2D
    from kdtoolkit.models.quantized_layers import (
        QuantizedConv2DTranspose as QuantizedConv2DTranspose,
    )
    from kdtoolkit.models.quantized_layers import QuantizedDense as QuantizedDense
    from kdtoolkit.models.quantized_layers import (
        QuantizedDepthwiseConv2D as QuantizedDepthwiseConv2D,
    )
    from kdtoolkit.models.registry import Family as Family
    from kdtoolkit.models.registry import build as build
    from kdtoolkit.models.registry import names as names
    from kdtoolkit.models.registry import register as register
    from kdtoolkit.models.registry import validate as validate
    from kdtoolkit.models.saved import load_classifier as load_classifier
    from kdtoolkit.models.state_dict import load_state_dict as load_state_dict
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        modules=("quantized_layers",),
        names={
            "Ensemble": "ensemble",
            "FakeQuantize": "quantized_layers",
            "Family": "registry",
            "Row": "description",
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
            "register": "registry",
            "stages": "exits",
            "validate": "registry",
        },
    )
