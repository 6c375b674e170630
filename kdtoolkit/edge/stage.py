"""A stage of a classifier: a signature of its file, run again and again on as many images."""

import numpy as np
from ai_edge_litert.interpreter import Interpreter


class Stage:
    """Runs a signature: arrays by name in, a dict of arrays out.

    LiteRT's own `SignatureRunner` resizes its inputs and allocates its tensors before each run.
    Here that is done only where the number of images is another one than in the run before.

    Args:
        interpreter: of the file.
        signature: its name.

    Attributes:
        runner: LiteRT's own.
    """

    def __init__(self, interpreter: Interpreter, signature: str) -> None:
        self.runner = interpreter.get_signature_runner(signature)
        self._images: int | None = None  # in the last run
        try:
            # Private names: in public ones, only the first signature's inputs can be set.
            own = self.runner._interpreter_wrapper
            self._calls = own.SetTensor, own.Invoke, own.GetTensor
            self._graph = self.runner._subgraph_index
            self._names = tuple(self.runner._inputs.items()), tuple(self.runner._outputs)
        except AttributeError:  # another version of LiteRT
            self._calls = None

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Runs it on arrays whose first axis are the images.

        Raises:
            ValueError: an input is not of the signature, of its shape, or of its type.
            RuntimeError: the graph does not run on so many images.
        """
        images = len(next(iter(inputs.values())))
        if images == self._images and self._calls is not None:
            return self._run(inputs)
        self._images = None  # until it has run
        outputs = self.runner(**inputs)
        self._images = images
        return outputs

    def _run(self, inputs):
        (put, invoke, get), graph = self._calls, self._graph
        takes, returns = self._names
        for name, index in takes:
            put(index, inputs[name], graph)
        invoke(graph)
        return {name: get(index, graph) for name, index in returns}
