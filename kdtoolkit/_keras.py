"""Private names of Keras, which are used nowhere else: what a new version of Keras may break.

Each function says why no public name does. `Trainer` overrides two more methods of `keras.Model`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


class History(NamedTuple):
    """Where a symbolic tensor comes from."""

    operation: Any
    node_index: int  # which of the operation's calls
    tensor_index: int  # which of the call's outputs


def history(tensor: keras.KerasTensor) -> History:
    """Where a symbolic tensor comes from.

    `Layer.output` goes from a layer to its tensor; nothing public goes the other way.
    """
    return History(*tensor._keras_history)


def operation_of(tensor: keras.KerasTensor) -> Any:
    """The layer or operation whose call returned a symbolic tensor."""
    return history(tensor).operation


def node_of(tensor: keras.KerasTensor) -> Any:
    """The call that returned a symbolic tensor.

    A layer may be called in several networks and several times. Which call is one of a network's is
    in Keras' nodes, with `operation`, `input_tensors`, `output_tensors` and `arguments`, and they
    are reached only from here.
    """
    operation, index, _ = history(tensor)
    return operation._inbound_nodes[index]


def calls(operation: Any) -> list[Any]:
    """All calls of a layer or operation, in whatever networks, as `node_of` returns them."""
    return operation._inbound_nodes


def nodes(network: keras.Model) -> Iterator[Any]:
    """The calls of a functional network, in an order in which they can run.

    `network.operations` is public, but has each operation once and does not say what it is given.
    """
    by_depth = sorted(network._nodes_by_depth.items(), reverse=True)
    return chain.from_iterable(nodes for _, nodes in by_depth)


def run(network: keras.Model, inputs: Any, call: Callable[..., Any]) -> Any:
    """Runs a functional network with `call(operation, *args, **kwargs)` in place of each operation.

    `keras.models.clone_model` takes such a function too, but makes a model of what it returns: a
    graph inside of another one cannot be run with it. The first argument is given by its place, as
    nearly all callers do, where a caller gave it by its name.
    """

    def by_place(operation, *args, **kwargs):
        if not args:
            first = next(iter(inspect.signature(operation.call).parameters), None)
            args = [kwargs.pop(first)] if first in kwargs else []
        return call(operation, *args, **kwargs)

    return network._run_through_graph(inputs, call_fn=by_place)


def all_layers(
    layer: keras.Layer, include_self: bool = True, recursive: bool = True
) -> list[keras.Layer]:
    """A layer or model and the layers inside it.

    `model.layers` is public, but only models have it, and it does not look inside other layers
    (wrappers, attention, classes of one's own).
    """
    return layer._flatten_layers(include_self=include_self, recursive=recursive)


def trained_variables(layer: keras.Layer) -> list[Any]:
    """The variables of a layer or model that training changes, or would if none were frozen.

    `trainable_variables` leaves out those that are frozen, and nothing public tells them from
    moving statistics and states of random numbers.
    """
    each = chain.from_iterable(inner._trainable_variables for inner in all_layers(layer))
    return list({id(variable): variable for variable in each}.values())


def clear_losses(model: keras.Model) -> None:
    """Forgets the losses that layers added in their last calls.

    Keras' own `train_step` does so before each forward pass; `model.losses` can only be read.
    """
    model._clear_losses()


def loss_tracker(model: keras.Model) -> keras.metrics.Mean:
    """The metric `loss` of a compiled model.

    Keras makes, resets and reports it; `model.metrics` has it among others, and in no set place.
    """
    return model._loss_tracker


def leave_gradients_as_they_are(optimizer: keras.optimizers.Optimizer) -> None:
    """Keeps an optimizer from summing gradients over replicas: it is given sums already.

    Keras' optimizers have no argument for this, as those of Keras 2 had.
    """
    optimizer._all_reduce_sum_gradients = list


def place_of(variable: Any, optimizer: keras.optimizers.Optimizer) -> int:
    """Where a variable, Keras' or TensorFlow's, is among those that an optimizer was built for.

    On TensorFlow `update_step` is given TensorFlow's variables, which nothing public relates to
    Keras'.
    """
    return optimizer._get_variable_index(variable)


def strategy_of(model: keras.Model) -> tf.distribute.Strategy | None:
    """The strategy that a model was made under, None without one.

    `model.distribute_strategy` is the default strategy then, which is not told from one in use.
    """
    return model._distribute_strategy


def build(model: keras.Model, batch: Any) -> None:
    """Creates the variables of a compiled model, its metrics' and optimizer's, from a batch.

    `model.build` does so for the layers alone.
    """
    model._symbolic_build(data_batch=batch)


def batch_specification(iterator: Any) -> Any:
    """What the batches of an epoch are, `tf.TensorSpec`s, before one of them is made.

    Keras hands its iterator to a hook, which could only take a batch from it; one that a generator
    made is lost then.
    """
    return iterator._get_iterator().element_spec
