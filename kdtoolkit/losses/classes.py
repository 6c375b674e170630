"""`keras.losses.Loss` classes for a plain `compile(loss=...)` and `fit()`."""

from typing import Any

import keras

from kdtoolkit._types import Tensor, TensorLike
from kdtoolkit.losses import crossentropies, strengths, tolerance


@keras.saving.register_keras_serializable(package="kdtoolkit")
class TolerantCrossentropy(keras.losses.Loss):
    """The tolerant patriarch's loss on logits (Yang et al. 2019, Eqn 3).

    Args:
        primary_score: largest probability at the loss' optimum, in `(1 / top_k, 1]`, or in
            `(1 / 2, 1]` where K is adaptive.
        top_k: number of scores compared, or `"adaptive"`: see `adaptive_top_k`; by default 5, or
            all classes if there are fewer.
        top_k_share: of `adaptive_top_k`.
        reduction, name: as in `keras.losses.Loss`.
    """

    def __init__(
        self,
        primary_score: float = 0.6,
        top_k: int | str | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str = "tolerant_crossentropy",
        *,
        top_k_share: float = strengths.TOP_K_SHARE,
    ) -> None:
        super().__init__(name=name, reduction=reduction)
        usual = strengths.usual_top_k(None)
        strengths.check_tolerance(primary_score, usual if top_k is None else top_k, top_k_share)
        self.primary_score, self.top_k, self.top_k_share = primary_score, top_k, top_k_share

    def call(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        if self.primary_score == 1:  # D(1.0, .) is the plain network, not the limit eta = 4/9
            return crossentropies.crossentropy(y_true, y_pred)
        usual = strengths.usual_top_k(crossentropies.class_count(y_pred))
        return tolerance.tolerant_crossentropy(
            y_true,
            y_pred,
            top_k=usual if self.top_k is None else self.top_k,
            primary_score=self.primary_score,
            top_k_share=self.top_k_share,
        )

    def get_config(self) -> dict[str, Any]:
        own = ("primary_score", "top_k", "top_k_share")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


@keras.saving.register_keras_serializable(package="kdtoolkit")
class SmoothedCrossentropy(keras.losses.Loss):
    """Label smoothing on logits whose strength is stated as the primary score it ends with.

    Args:
        primary_score: largest probability at the loss' optimum, in `(1 / classes, 1]`.
        reduction, name: as in `keras.losses.Loss`.
    """

    def __init__(
        self,
        primary_score: float = 0.6,
        reduction: str | None = "sum_over_batch_size",
        name: str = "smoothed_crossentropy",
    ) -> None:
        super().__init__(name=name, reduction=reduction)
        self.primary_score = primary_score

    def call(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        classes = crossentropies.class_count(y_pred)
        epsilon = strengths.epsilon_from_primary_score(self.primary_score, classes)
        return crossentropies.smoothed_crossentropy(y_true, y_pred, epsilon)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "primary_score": self.primary_score}


@keras.saving.register_keras_serializable(package="kdtoolkit")
class ConfidencePenaltyCrossentropy(keras.losses.Loss):
    """Cross-entropy with a confidence penalty, stated as the primary score it ends with.

    Args:
        primary_score: largest probability at the loss' optimum, in `(1 / classes, 1]`.
        reduction, name: as in `keras.losses.Loss`.
    """

    def __init__(
        self,
        primary_score: float = 0.6,
        reduction: str | None = "sum_over_batch_size",
        name: str = "confidence_penalty_crossentropy",
    ) -> None:
        super().__init__(name=name, reduction=reduction)
        self.primary_score = primary_score

    def call(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        classes = crossentropies.class_count(y_pred)
        beta = strengths.beta_from_primary_score(self.primary_score, classes)
        return crossentropies.confidence_penalty_crossentropy(y_true, y_pred, beta)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "primary_score": self.primary_score}
