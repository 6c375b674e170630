"""What tells one network from another, besides its weights."""

import json

import keras

from kdtoolkit._types import Network


def architecture(network: Network) -> str:
    """Returns a network's layers, their options and connections as text; nothing of its weights.

    Two networks that one function has built have the same, in other processes too: names are
    numbered, since Keras counts them up as a process makes layers, and of what is written in
    Python, a `Lambda` layer or an object without a config, there is the kind alone.
    """
    try:
        config = keras.saving.serialize_keras_object(network)
    except (NotImplementedError, TypeError, ValueError):  # a layer that Keras cannot store
        config = [type(layer).__name__ for layer in network.layers]
    numbered = _without_names(config, _numbers(config, {}))
    return json.dumps(numbered, sort_keys=True, default=lambda value: type(value).__name__)


def _numbers(config, found):
    """Name -> number, of all layers in a config."""
    if isinstance(config, dict):
        own = config.get("config")
        named = isinstance(own, dict) and isinstance(own.get("name"), str)
        if named and "DTypePolicy" not in str(config.get("class_name")):
            found.setdefault(own["name"], f"layer {len(found)}")
        config = list(config.values())
    if isinstance(config, list | tuple):
        for part in config:
            _numbers(part, found)
    return found


def _without_names(config, numbers):
    if isinstance(config, str):
        return numbers.get(config, config)
    if isinstance(config, list | tuple):
        return [_without_names(part, numbers) for part in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "__lambda__":  # bytes that differ from process to process
        return "lambda"
    return {str(key): _without_names(value, numbers) for key, value in config.items()}
