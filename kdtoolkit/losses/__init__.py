"""Losses on logits: pure functions with one value per sample, and `keras.losses.Loss` classes.

Every function takes logits of shape `(batch, classes)`, computes in float32 and in log space, and
returns shape `(batch,)`. Labels are class indices, `(batch,)` or `(batch, 1)`, or rows of
probabilities, `(batch, classes)`.
"""

from typing import TYPE_CHECKING

from kdtoolkit._lazy import attach

if TYPE_CHECKING:
    from kdtoolkit.losses.classes import (
        ConfidencePenaltyCrossentropy as ConfidencePenaltyCrossentropy,
    )
    from kdtoolkit.losses.classes import SmoothedCrossentropy as SmoothedCrossentropy
    from kdtoolkit.losses.classes import TolerantCrossentropy as TolerantCrossentropy
    from kdtoolkit.losses.crossentropies import confidence_penalty as confidence_penalty
    from kdtoolkit.losses.crossentropies import (
        confidence_penalty_crossentropy as confidence_penalty_crossentropy,
    )
    from kdtoolkit.losses.crossentropies import crossentropy as crossentropy
    from kdtoolkit.losses.crossentropies import label_probabilities as label_probabilities
    from kdtoolkit.losses.crossentropies import log_probabilities as log_probabilities
    from kdtoolkit.losses.crossentropies import smoothed_crossentropy as smoothed_crossentropy
    from kdtoolkit.losses.decoupling import decoupled_divergence as decoupled_divergence
    from kdtoolkit.losses.decoupling import normalized_divergence as normalized_divergence
    from kdtoolkit.losses.decoupling import refined_divergence as refined_divergence
    from kdtoolkit.losses.divergence import distillation_divergence as distillation_divergence
    from kdtoolkit.losses.divergence import permute_secondary as permute_secondary
    from kdtoolkit.losses.divergence import permute_secondary_by as permute_secondary_by
    from kdtoolkit.losses.features import attention_map as attention_map
    from kdtoolkit.losses.features import attention_transfer as attention_transfer
    from kdtoolkit.losses.features import feature_distance as feature_distance
    from kdtoolkit.losses.features import hierarchical_context as hierarchical_context
    from kdtoolkit.losses.features import hint as hint
    from kdtoolkit.losses.relations import angle_relation as angle_relation
    from kdtoolkit.losses.relations import correlation_distance as correlation_distance
    from kdtoolkit.losses.relations import distance_relation as distance_relation
    from kdtoolkit.losses.relations import similarity_distance as similarity_distance
    from kdtoolkit.losses.strengths import beta_from_primary_score as beta_from_primary_score
    from kdtoolkit.losses.strengths import epsilon_from_primary_score as epsilon_from_primary_score
    from kdtoolkit.losses.strengths import eta_from_primary_score as eta_from_primary_score
    from kdtoolkit.losses.strengths import primary_score_from_eta as primary_score_from_eta
    from kdtoolkit.losses.supervision import dynamic_temperature as dynamic_temperature
    from kdtoolkit.losses.supervision import focal_weights as focal_weights
    from kdtoolkit.losses.supervision import label_smooth_adjustment as label_smooth_adjustment
    from kdtoolkit.losses.supervision import probability_shift as probability_shift
    from kdtoolkit.losses.supervision import student_max_weights as student_max_weights
    from kdtoolkit.losses.tolerance import adaptive_top_k as adaptive_top_k
    from kdtoolkit.losses.tolerance import score_difference as score_difference
    from kdtoolkit.losses.tolerance import tolerant_crossentropy as tolerant_crossentropy
    from kdtoolkit.losses.transformations import standardize_logits as standardize_logits
    from kdtoolkit.losses.transformations import transformed_divergence as transformed_divergence
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        names={
            "crossentropy": "crossentropies",
            "smoothed_crossentropy": "crossentropies",
            "confidence_penalty": "crossentropies",
            "confidence_penalty_crossentropy": "crossentropies",
            "label_probabilities": "crossentropies",
            "log_probabilities": "crossentropies",
            "tolerant_crossentropy": "tolerance",
            "score_difference": "tolerance",
            "adaptive_top_k": "tolerance",
            "eta_from_primary_score": "strengths",
            "primary_score_from_eta": "strengths",
            "epsilon_from_primary_score": "strengths",
            "beta_from_primary_score": "strengths",
            "decoupled_divergence": "decoupling",
            "normalized_divergence": "decoupling",
            "refined_divergence": "decoupling",
            "angle_relation": "relations",
            "correlation_distance": "relations",
            "distance_relation": "relations",
            "similarity_distance": "relations",
            "standardize_logits": "transformations",
            "transformed_divergence": "transformations",
            "distillation_divergence": "divergence",
            "permute_secondary": "divergence",
            "permute_secondary_by": "divergence",
            "feature_distance": "features",
            "hierarchical_context": "features",
            "hint": "features",
            "attention_map": "features",
            "attention_transfer": "features",
            "probability_shift": "supervision",
            "label_smooth_adjustment": "supervision",
            "focal_weights": "supervision",
            "student_max_weights": "supervision",
            "dynamic_temperature": "supervision",
            "TolerantCrossentropy": "classes",
            "SmoothedCrossentropy": "classes",
            "ConfidencePenaltyCrossentropy": "classes",
        },
    )
