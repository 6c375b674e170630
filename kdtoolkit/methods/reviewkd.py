"""Knowledge review (Chen, Liu, Zhao, Jia, CVPR 2021)."""

from collections.abc import Sequence
from dataclasses import dataclass

from kdtoolkit import losses
from kdtoolkit._checks import AT_LEAST_0, FRACTION
from kdtoolkit._types import Network, Tensor
from kdtoolkit.methods.base import LAYER_PAIRS, Batch, LayersMethod, Pairs, option

_WIDEST = 512  # channels in which features are fused


@dataclass(frozen=True)
class ReviewKD(LayersMethod):
    """`CE(y, q) + warmup w sum HCL(fused F_student, F_teacher)`: stages review the deeper ones.

    A student's features are fused from the deepest to the shallowest: what a stage has, and what
    the deeper ones had, are weighed place by place, and taken to the teacher's channels. `HCL` is
    the mean squared difference at full size and pooled to 4, 2 and 1. The last pair are the pooled
    features. The weight rises from the first epoch on, linearly: 20 epochs of 240. It is that of
    the field's benchmark for ResNet-32x4 to ResNet-8x4.
    """

    name = "reviewkd"

    weight: float = option(5.0, "Weight of the fused features' distance.", AT_LEAST_0)
    layers: Pairs | None = option(
        None,
        "Layers that are compared, STUDENT:TEACHER, shallow ones first (default: the stages that "
        "both have, and the pooled features).",
        LAYER_PAIRS,
    )
    warmup: float = option(1 / 12, "Share of the epochs in which the weight rises.", FRACTION)

    def default_pairs(self, network: Network, teacher: Network) -> Pairs:
        from kdtoolkit.models.graph import embedding_layer

        pooled = embedding_layer(network, "network"), embedding_layer(teacher, "teacher")
        return (*super().default_pairs(network, teacher), pooled)

    def project(
        self, students: Sequence[Tensor], teachers: Sequence[Tensor], pairs: Pairs, name: str
    ) -> Sequence[Tensor]:
        from keras import layers

        channels = min(students[-1].shape[-1], _WIDEST)
        projected: list[Tensor] = []
        residual = None
        for number in range(len(students), 0, -1):
            prefix = f"{name}_{number}"
            student, target = map(_as_image, (students[number - 1], teachers[number - 1]))
            x = _conv_norm(student, channels, 1, f"{prefix}_in")
            if residual is not None:
                deeper = self._resized(residual, x.shape[1:3], f"{prefix}_up")
                both = layers.Concatenate(name=f"{prefix}_both")([x, deeper])
                weights = _attention(both, f"{prefix}_attention")
                x = x * weights[..., :1] + deeper * weights[..., 1:]
            residual = self._resized(x, target.shape[1:3], f"{prefix}_out_size")
            projected.insert(0, _conv_norm(residual, target.shape[-1], 3, f"{prefix}_out"))
        return projected

    def distance(self, teacher: Tensor, student: Tensor) -> Tensor:
        return losses.hierarchical_context(_as_image(teacher), student)

    def term(self, batch: Batch) -> Tensor:
        return batch.warmup(self.warmup) * super().term(batch)

    def _resized(self, x, size, name):
        """Nearest neighbours, to a multiple or a fraction of the size."""
        from keras import layers

        ratios = [(to / of, of / to) for to, of in zip(size, x.shape[1:3], strict=True)]
        if all(up == 1 for up, _ in ratios):
            return x
        if all(up == int(up) for up, _ in ratios):
            return layers.UpSampling2D([int(up) for up, _ in ratios], name=name)(x)
        if all(down == int(down) for _, down in ratios):
            return x[:, :: int(ratios[0][1]), :: int(ratios[1][1]), :]
        self.refuse(
            "layers", "layers whose sizes are multiples of each other", (*x.shape[1:3], *size)
        )


def _as_image(features):
    from keras import ops

    return features if len(features.shape) == 4 else ops.expand_dims(features, (1, 2))


def _conv_norm(x, channels, size, name):
    from keras import initializers, layers

    from kdtoolkit.models.layers import batch_norm

    x = layers.Conv2D(
        channels,
        size,
        padding="same",
        use_bias=False,
        kernel_initializer=initializers.VarianceScaling(1.0, "fan_in", "uniform"),
        name=f"{name}_conv",
    )(x)
    return batch_norm(x, name=f"{name}_bn")


def _attention(x, name):
    from keras import initializers, layers

    initial = initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
    return layers.Conv2D(2, 1, activation="sigmoid", kernel_initializer=initial, name=name)(x)
