"""Deep mutual learning: networks that learn together and teach each other."""

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from kdtoolkit._checks import ArgumentError, Integers, Words, check
from kdtoolkit._types import Network, PathLike, Tensor
from kdtoolkit.losses import crossentropies, divergence
from kdtoolkit.models.contract import check_alike
from kdtoolkit.training import accuracy
from kdtoolkit.training.fused import fused
from kdtoolkit.training.step import Trainer


class MutualLearning(Trainer):
    """Trains two or more peers (Zhang, Xiang, Hospedales, Lu, CVPR 2018).

    Peer i learns from the labels and from all others, who receive no gradient as its teachers:

        CE(y, p_i) + 1 / (N - 1) sum_{j != i} KL(p_j || p_i)

    Terms: `peer_i_label` and `peer_i_mutual`, i from 1; metrics besides those of `compile`, which
    see the first peer: `peer_i_accuracy`. All peers take each step together, from one forward pass
    of each. `call` and `predict` return a dict of logits, `peer_1`, `peer_2`, .... `save_weights`,
    `load_weights`, `export` and `summary` are the first peer's; the others are in `networks`, and
    `save` stores the one that it is asked for.

    Args:
        networks: two or more different functional Keras models with the same input and the same
            classes that return logits.
        **kwargs: of `Trainer`.

    Raises:
        ValueError: fewer than two networks, the same one twice, or their shapes differ.
    """

    def __init__(self, networks: Iterable[Network], **kwargs: Any) -> None:
        networks = list(networks)
        if len({id(network) for network in networks}) != len(networks) or len(networks) < 2:
            accepted = "at least two networks, each of them once"
            received = Words([network.name for network in networks])
            raise ArgumentError("networks", accepted, received, must="hold")
        check_alike(networks, "networks")
        names = [f"peer_{i}" for i in range(1, len(networks) + 1)]
        terms = [f"{name}_{term}" for name in names for term in ("label", "mutual")]
        peers = _Peers(dict(zip(names, map(fused, networks), strict=True)))
        super().__init__(networks[0], terms, probe=peers, **kwargs)
        self.peers = networks
        self.names = names
        self.accuracies = accuracy.metrics(names)

    @property
    def networks(self) -> list[Network]:
        return list(self.peers)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return _Peers(dict(zip(self.names, self.networks, strict=True)))(inputs, training)

    def terms(self, y: Any, outputs: Any, signals: dict[str, Any]) -> dict[str, Tensor]:
        terms = {}
        for name, z in outputs.items():
            taught = [
                divergence.distillation_divergence(tf.stop_gradient(peer), z)
                for other, peer in outputs.items()
                if other != name
            ]
            terms[f"{name}_label"] = crossentropies.crossentropy(y, z)
            terms[f"{name}_mutual"] = tf.add_n(taught) / len(taught)
        return terms

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        accuracy.update(self.accuracies, y, y_pred)
        return super().compute_metrics(x, y, next(iter(y_pred.values())), sample_weight)

    def save(
        self, filepath: PathLike, overwrite: bool = True, *, peer: int = 1, **kwargs: Any
    ) -> None:
        """Saves a peer's network (`keras.Model.save`).

        Args:
            filepath, overwrite, **kwargs: of `keras.Model.save`.
            peer: its number, from 1.

        Raises:
            ValueError: there is no such peer.
        """
        check("peer", peer, Integers(1, len(self.networks)))
        return self.networks[peer - 1].save(filepath, overwrite=overwrite, **kwargs)


class _Peers:
    """All peers on one batch. Not a Keras model, which would ask for unique names of layers."""

    def __init__(self, networks):
        self.networks = networks

    def __call__(self, x, training=None):
        return {name: network(x, training=training) for name, network in self.networks.items()}
