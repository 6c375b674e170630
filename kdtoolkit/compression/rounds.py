"""Channels that go in rounds, with training between them."""

from dataclasses import dataclass

import numpy as np

from kdtoolkit._types import Network
from kdtoolkit.compression.channel_selection import channel_count, select_channels
from kdtoolkit.compression.importance import Importance, Taylor
from kdtoolkit.compression.options import Options
from kdtoolkit.compression.target import Target, cost_of


@dataclass(frozen=True)
class Rounds:
    """Which channels go in each round; after the last one, as many as asked for.

    The same share of what is left goes in every round.

    Attributes:
        original: the network before the first round.
        options: how it is compressed; its structure is channels.
        images: normalised training images, for an importance that looks at some.
        labels: their classes.
    """

    original: Network
    options: Options
    images: np.ndarray
    labels: np.ndarray

    @property
    def layers(self) -> str | list[str]:
        return "*" if self.options.layers is None else list(self.options.layers)

    def keep(self, network: Network, number: int) -> dict[str, np.ndarray]:
        """Chooses the channels that stay in a round.

        Args:
            network: as the round before left it; in the first one the original, or a copy.
            number: of the round, from 1. That of the last one, given the original, is all at once.

        Returns:
            As `select_channels`.

        Raises:
            ArgumentError: as `select_channels`.
        """
        options = self.options
        target = None if options.target is None else Target.parse(options.target)
        measure = self._count if target is None else cost_of(target)
        share = 1 - (options.sparsity or 0) if target is None else target.share
        left = share ** (number / options.rounds) * measure(self.original) / measure(network)
        if left >= 1:
            return {}
        return select_channels(
            network,
            *(1 - left if target is None else None, self._importance()),
            layers=self.layers,
            threshold=options.threshold,
            limit=options.limit,
            target=None if target is None else Target(target.cost, left),
        )

    def _count(self, network):
        return channel_count(network, self.layers)

    def _importance(self) -> str | Importance:
        if self.options.importance == Taylor.name:
            return Taylor(self.images, self.labels)
        return self.options.importance
