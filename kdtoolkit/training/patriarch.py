"""Generation 0: a network trained on labels alone, softened or plain."""

from typing import Any

from kdtoolkit._checks import OneOf, check
from kdtoolkit._types import Hyperparameters, Network, Tensor
from kdtoolkit.losses import crossentropies, strengths, tolerance
from kdtoolkit.models.contract import check_logits
from kdtoolkit.training.step import Trainer


class Patriarch(Trainer):
    """Trains the first teacher (Yang et al. 2019, Eqn 3 and the alternatives of its Figure 2).

    Each kind is softened so that its optimum has the same primary score, the largest probability:

    - `"tolerant"`: terms `crossentropy` and `score_difference`, Eqn 3;
    - `"label_smoothing"`: term `smoothed_crossentropy`;
    - `"confidence_penalty"`: terms `crossentropy` and `confidence_penalty`;
    - `"plain"`: term `crossentropy`; the primary score is not used.

    At `primary_score=1` every kind is the plain network.

    Args:
        network: functional Keras model that returns logits.
        kind: one of the four above.
        primary_score: in `(1 / top_k, 1]` for the tolerant kind, `(1 / 2, 1]` where its K is
            adaptive, `(1 / classes, 1]` for the others.
        top_k: number of scores that the tolerant kind compares, or `"adaptive"`, one of each
            sample: see `kdtoolkit.losses.adaptive_top_k`; by default 5, or all classes where there
            are fewer.
        top_k_share: of `adaptive_top_k`.
        **kwargs: of `Trainer`.

    Raises:
        ValueError: an argument is outside its range.
    """

    KINDS = strengths.PATRIARCHS

    def __init__(
        self,
        network: Network,
        kind: str = "tolerant",
        primary_score: float = 0.6,
        top_k: int | str | None = None,
        *,
        top_k_share: float = strengths.TOP_K_SHARE,
        **kwargs: Any,
    ) -> None:
        check("kind", kind, OneOf(self.KINDS))
        if primary_score == 1:
            kind = "plain"
        check_logits(network)
        classes = network.output_shape[-1]
        if top_k is None:
            top_k = strengths.usual_top_k(classes)
        if kind == "tolerant":
            terms = _tolerant(primary_score, top_k, top_k_share, classes)
        else:
            terms = _TERMS[kind](primary_score, classes)
        super().__init__(network, terms, **kwargs)
        self._terms = terms
        self._softened: Hyperparameters = {"patriarch": kind}
        if kind != "plain":
            self._softened["primary_score"] = primary_score
        if kind == "tolerant":
            self._softened["top_k"] = top_k
            if top_k == strengths.ADAPTIVE:
                self._softened["top_k_share"] = top_k_share

    def hyperparameters(self) -> Hyperparameters:
        return super().hyperparameters() | self._softened

    def terms(self, y: Any, outputs: Any, signals: dict[str, Any]) -> dict[str, Tensor]:
        return {name: term(y, outputs) for name, term in self._terms.items()}


def _tolerant(primary_score, top_k, top_k_share, classes):
    strengths.check_tolerance(primary_score, top_k, top_k_share, classes)

    def eta(z):
        return tolerance.eta_of(z, primary_score, top_k, top_k_share)

    return {
        "crossentropy": lambda y, z: (1 - eta(z)) * crossentropies.crossentropy(y, z),
        "score_difference": lambda y, z: eta(z) * tolerance.score_difference(z, top_k, top_k_share),
    }


def _label_smoothing(primary_score, classes):
    epsilon = strengths.epsilon_from_primary_score(primary_score, classes)
    return {
        "smoothed_crossentropy": lambda y, z: crossentropies.smoothed_crossentropy(y, z, epsilon)
    }


def _confidence_penalty(primary_score, classes):
    beta = strengths.beta_from_primary_score(primary_score, classes)
    return {
        "crossentropy": crossentropies.crossentropy,
        "confidence_penalty": lambda y, z: beta * crossentropies.confidence_penalty(z),
    }


def _plain(primary_score, classes):
    return {"crossentropy": crossentropies.crossentropy}


_TERMS = {
    "label_smoothing": _label_smoothing,
    "confidence_penalty": _confidence_penalty,
    "plain": _plain,
}
