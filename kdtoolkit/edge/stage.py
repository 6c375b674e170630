"""A stage of a classifier: a signature of its file, run again and again on as many images."""

import numpy as np
from ai_edge_litert.interpreter import Interpreter


class Stage:
    """Runs a signature: arrays by name in, a dict of arrays out.

    LiteRT's own `SignatureRunner` resizes its inputs, allocates its tensors, and copies what it
    returns, in each run. Here that ends, for one image, once two runs have left all tensors where
    they were: from then on these are read and written in place.

    Args:
        interpreter: of the file.
        signature: its name.

    Attributes:
        runner: LiteRT's own.
    """

    def __init__(self, interpreter: Interpreter, signature: str) -> None:
        self.runner = interpreter.get_signature_runner(signature)
        self._images: int | None = None  # in the last run
        self._places: list[int] | None = None  # of its tensors in memory, in that run
        self._takes = self._returns = None  # names and arrays, once these stay there
        runner = self.runner
        try:
            # Private names: in public ones, only the first signature's inputs can be set.
            self._own, self._graph = runner._interpreter_wrapper, runner._subgraph_index
            self._invoke, self._tensor = self._own.Invoke, self._own.tensor
        except AttributeError:  # another version of LiteRT
            self._own = None

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Runs it on arrays whose first axis are the images, of the graph's shapes and types.

        Returns:
            Arrays that the next run of this stage may write to.

        Raises:
            RuntimeError, ValueError: the graph does not run on these, or so many images.
        """
        images = len(next(iter(inputs.values())))
        if images == self._images and self._takes is not None:
            for name, tensor in self._takes:
                tensor[...] = inputs[name]
            self._invoke(self._graph)
            return self._returns.copy()
        if images != self._images:
            self._images = self._places = self._takes = self._returns = None
        outputs = self.runner(**inputs)
        self._images = images
        # Of several images the number changes from run to run, and a copy is a small part of one.
        if images == 1 and self._own is not None:
            self._settle()
        return outputs

    def _settle(self):
        """Keeps the tensors if they are where they were after the run before."""
        details = self.runner.get_input_details(), self.runner.get_output_details()
        takes, returns = (
            [(name, self._tensor(self._own, one["index"], self._graph)) for name, one in of.items()]
            for of in details
        )
        places = [tensor.__array_interface__["data"][0] for _, tensor in takes + returns]
        if places == self._places:
            self._takes, self._returns = takes, dict(returns)
        self._places = places
