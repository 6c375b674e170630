"""Several networks as one."""

import math
from collections.abc import Iterable
from typing import Any

import keras
from keras import ops

from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit._types import Network, Tensor, TensorLike
from kdtoolkit.models.contract import check_alike


@keras.saving.register_keras_serializable(package="kdtoolkit")
class Ensemble(keras.Model):
    """Averages the probabilities of its networks, and is itself a network: it returns logits.

    The logits are the logarithms of the mean probabilities, so their softmax is that mean.

    Args:
        networks: models with the same input and the same classes, each returning logits. Several
            may have the same name.
        name: of the ensemble.

    Call arguments:
        x: images `(batch, height, width, channels)`.

    Returns:
        float32 logits `(batch, classes)`.

    Raises:
        ValueError: no network, one that does not return logits, or networks that differ in their
            input shapes or classes.
    """

    def __init__(self, networks: Iterable[Network], name: str = "ensemble") -> None:
        networks = list(networks)
        if not networks:
            raise ArgumentError("networks", "at least one network", Words("none"), must="hold")
        check_alike(networks, "networks")
        super().__init__(name=name, dtype="float32")
        self.networks = networks
        self.built = True

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Shape of the images, `(None, height, width, channels)`."""
        return self.networks[0].input_shape

    @property
    def output_shape(self) -> tuple[int | None, int]:
        """Shape of the logits, `(None, classes)`."""
        return self.networks[0].output_shape

    def call(self, x: TensorLike, training: bool | None = None) -> Tensor:
        logits = [ops.cast(n(x, training=training), "float32") for n in self.networks]
        logs = ops.stack([ops.log_softmax(z, axis=-1) for z in logits])
        return ops.logsumexp(logs, axis=0) - math.log(len(self.networks))

    def get_config(self) -> dict[str, Any]:
        networks = [keras.saving.serialize_keras_object(network) for network in self.networks]
        return {"networks": networks, "name": self.name}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "Ensemble":
        networks = [
            keras.saving.deserialize_keras_object(network, custom_objects=custom_objects)
            for network in config["networks"]
        ]
        return cls(networks, name=config["name"])
