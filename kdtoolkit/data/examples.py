"""The images of a batch, and what comes with them: what is `x` to trainers."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from kdtoolkit._types import Tensor


class Examples(NamedTuple):
    """The `x` of a batch, in every trainer; data sets may have images alone in its place.

    Keras' and `tf.data`'s functions take it apart and put it together again. What a batch does not
    have is empty, for a data set can hold no None.

    Attributes:
        images: float32 `(b, height, width, channels)`, normalised and augmented; () where they are
            left to `Split.reader`.
        attached: name -> what comes with the images, tensors `(b, ...)` or mappings of such; of
            `TeacherCache.attach` these are `teacher_logits` and `teacher_features`.
        stored: for `Split.reader`, indices of the images in stored order, int32 `(b,)`, and then
            what was drawn for them; () where the images are there.
    """

    images: Tensor | tuple[()]
    attached: Mapping[str, Any]
    stored: tuple[Tensor, ...] = ()

    @classmethod
    def of(cls, x: Any) -> "Examples":
        """Examples as they are, and anything else as images with which nothing comes."""
        return x if isinstance(x, cls) else cls(x, {})
