"""Channels that go in rounds, with training between them."""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdtoolkit import files
from kdtoolkit._types import Network
from kdtoolkit.compression.channel_graph import ChannelGraph
from kdtoolkit.compression.channel_selection import Selection, selection
from kdtoolkit.compression.importance import Importance, Taylor
from kdtoolkit.compression.options import Options
from kdtoolkit.compression.target import Target, partly


@dataclass(frozen=True)
class Rounds:
    """Which channels go in each round; after the last one, as many as asked for.

    The same share of what is left goes in every round. What was chosen once is stored, and is what
    a run that was killed goes on with: milliseconds are others each time that they are measured.

    Attributes:
        options: how it is compressed; its structure is channels.
        images: normalised training images, for an importance that looks at some.
        labels: their classes.
        measure: what a network costs, where it is to come down to a target of bytes or
            milliseconds; None for the target's own way to find out.
        path: of the file in which choices are stored.
        identity: of the run, as JSON holds it: choices of another one are not looked at.
    """

    options: Options
    images: np.ndarray
    labels: np.ndarray
    measure: Callable[[Network], float] | None
    path: Path
    identity: Mapping[str, object]

    @property
    def layers(self) -> str | list[str]:
        return "*" if self.options.layers is None else list(self.options.layers)

    @property
    def importance(self) -> str | Importance:
        """The name of what a channel is worth, or with its images an object."""
        if self.options.importance == Taylor.name:
            return Taylor(self.images, self.labels)
        return self.options.importance

    def select(self, analysis: ChannelGraph, number: int) -> Selection:
        """Chooses the channels that stay in a round, or knows what was chosen.

        Args:
            analysis: of the network as the round before left it, narrowed from the original's.
            number: of the round, from 1; 0 for all rounds at once, which is asked for first.

        Raises:
            ArgumentError: as `select_channels`.
        """
        rounds = self.options.rounds
        number = 0 if rounds == 1 else number
        if number == len(self._chosen):
            begin, end = ((number - 1) / rounds, number / rounds) if number else (0.0, 1.0)
            self._chosen.append(self._select(analysis, begin, end))
        return self._chosen[number]

    def write(self) -> None:
        """Stores what was chosen so far."""
        chosen = [_as_json(each) for each in self._chosen]
        files.write_record(self.path, {"of": self.identity, "chosen": chosen})

    def _select(self, analysis, begin, end):
        """The channels that stay from one share of the way to another one."""
        options, fraction, gone, target = self.options, None, 0.0, None
        if options.target is None:
            fraction, gone = (1 - partly(1, 1 - options.sparsity, share) for share in (end, begin))
        else:
            target = Target.parse(options.target)
            if self._chosen:  # what all rounds are to come down to
                whole, most = self._chosen[0].whole, self._chosen[0].most
                target = Target(target.cost, amount=partly(whole, most, end))
        return selection(
            *(analysis, fraction, self.importance),
            layers=self.layers,
            threshold=options.threshold,
            limit=options.limit,
            target=target,
            measure=self.measure,
            rankings=options.rankings,
            gone=gone,
        )

    @functools.cached_property
    def _chosen(self) -> list[Selection]:
        try:
            stored = files.read_record(self.path)
            return [_read(each) for each in stored["chosen"] if stored["of"] == self.identity]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            if not files.is_damage(error):
                raise
            warnings.warn(
                f"{self.path} is damaged ({error}): channels are chosen anew", stacklevel=2
            )
            return []


def _as_json(chosen):
    keep = {name: kept.tolist() for name, kept in chosen.keep.items()}
    return {**dataclasses.asdict(chosen), "keep": keep}


def _read(stored):
    keep = {name: np.array(kept) for name, kept in stored["keep"].items()}
    return Selection(**{**stored, "keep": keep})
