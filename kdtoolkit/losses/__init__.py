"""Losses on logits: pure functions with one value per sample, and `keras.losses.Loss` classes.

Every function takes logits of shape `(batch, classes)`, computes in float32 and in log space, and
returns shape `(batch,)`. Labels are class indices, `(batch,)` or `(batch, 1)`, or rows of
probabilities, `(batch, classes)`.
"""

from kdtoolkit._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    names={
        "crossentropy": "crossentropies",
        "smoothed_crossentropy": "crossentropies",
        "confidence_penalty": "crossentropies",
        "confidence_penalty_crossentropy": "crossentropies",
        "label_probabilities": "crossentropies",
        "tolerant_crossentropy": "tolerance",
        "score_difference": "tolerance",
        "eta_from_primary_score": "strengths",
        "primary_score_from_eta": "strengths",
        "epsilon_from_primary_score": "strengths",
        "beta_from_primary_score": "strengths",
        "decoupled_divergence": "divergence",
        "distillation_divergence": "divergence",
        "permute_secondary": "divergence",
        "permute_secondary_by": "divergence",
        "feature_distance": "features",
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
