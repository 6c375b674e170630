"""What was learned: the papers' analyses as numbers, and pictures of them."""

from typing import TYPE_CHECKING

from kdtoolkit._lazy import attach

if TYPE_CHECKING:
    from kdtoolkit.analysis import pictures as pictures
    from kdtoolkit.analysis.agreement import teacher_agreement as teacher_agreement
    from kdtoolkit.analysis.calibration import reliability as reliability
    from kdtoolkit.analysis.calibration import temperature_scaling as temperature_scaling
    from kdtoolkit.analysis.energy import expected_true_scores as expected_true_scores
    from kdtoolkit.analysis.energy import sorted_confidences as sorted_confidences
    from kdtoolkit.analysis.energy import true_score as true_score
    from kdtoolkit.analysis.exit_features import features_by_exit as features_by_exit
    from kdtoolkit.analysis.exit_features import principal_components as principal_components
    from kdtoolkit.analysis.exit_features import scatter_ratio as scatter_ratio
    from kdtoolkit.analysis.flatness import directions as directions
    from kdtoolkit.analysis.flatness import under_noise as under_noise
    from kdtoolkit.analysis.gradients import convolution_gradients as convolution_gradients
    from kdtoolkit.analysis.gradients import distillation_gradients as distillation_gradients
    from kdtoolkit.analysis.numbers import Agreement as Agreement
    from kdtoolkit.analysis.numbers import Calibration as Calibration
    from kdtoolkit.analysis.numbers import Noisy as Noisy
    from kdtoolkit.analysis.numbers import Projection as Projection
    from kdtoolkit.analysis.numbers import Reliability as Reliability
    from kdtoolkit.analysis.numbers import WithinGroups as WithinGroups
    from kdtoolkit.analysis.second_choices import count_second_choices as count_second_choices
    from kdtoolkit.analysis.second_choices import groups_of as groups_of
    from kdtoolkit.analysis.second_choices import within_groups as within_groups
    from kdtoolkit.analysis.transfer import linear_probe as linear_probe
    from kdtoolkit.analysis.transfer import pooled_features as pooled_features
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        modules=("pictures",),
        names={
            "Agreement": "numbers",
            "teacher_agreement": "agreement",
            "Calibration": "numbers",
            "Reliability": "numbers",
            "temperature_scaling": "calibration",
            "reliability": "calibration",
            "expected_true_scores": "energy",
            "sorted_confidences": "energy",
            "true_score": "energy",
            "Projection": "numbers",
            "features_by_exit": "exit_features",
            "principal_components": "exit_features",
            "scatter_ratio": "exit_features",
            "Noisy": "numbers",
            "directions": "flatness",
            "under_noise": "flatness",
            "convolution_gradients": "gradients",
            "distillation_gradients": "gradients",
            "WithinGroups": "numbers",
            "groups_of": "second_choices",
            "count_second_choices": "second_choices",
            "within_groups": "second_choices",
            "linear_probe": "transfer",
            "pooled_features": "transfer",
        },
    )
