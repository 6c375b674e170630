"""Logits that should be those of the teacher: a method in a file of one's own."""

from dataclasses import dataclass

from kdtoolkit import methods


@dataclass(frozen=True)
class LogitsDistance(methods.LogitsMethod):
    """`CE(y, q) + w mean (z - t)^2` (Ba, Caruana 2014)."""

    weight: float = methods.option(0.1, "Weight of the distance.", methods.AT_LEAST_0)

    def term(self, batch):
        from keras import ops

        teacher, student, _ = self.corrected(batch)
        return self.weight * ops.mean(ops.square(student - teacher), axis=-1)
