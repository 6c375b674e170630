"""Exits on a network of your own: the deepest teaches the others, each may be cut off alone.

`add_exits` takes the names of layers; `SelfDistillation` is compiled and fitted as any Keras model
(Zhang et al., ICCV 2019). The picture shows accuracy against the share of operations to each exit.
"""

import sys

import keras

from kdtoolkit import data, models, training
from kdtoolkit.report import pictures
from kdtoolkit.training import evaluation

digits = data.load("digits")
keras.utils.set_random_seed(0)

x = image = keras.Input(digits.info.image_shape)
for stage in (1, 2, 3):
    x = keras.layers.Conv2D(12 * stage, 3, 1 if stage == 1 else 2, padding="same")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.ReLU(name=f"block_{stage}")(x)
x = keras.layers.GlobalAveragePooling2D()(x)
network = keras.Model(image, keras.layers.Dense(digits.info.classes)(x))

network = models.add_exits(network, at=["block_1", "block_2"], mid=8)
trainer = training.SelfDistillation(network)
trainer.compile(keras.optimizers.Adam(3e-3), metrics=["accuracy"])
images = digits.preprocessing(digits.train.images)
trainer.fit(images, digits.train.labels, batch_size=64, epochs=15, verbose=0)

logits, labels = evaluation.predict(network, digits.test)
figures = evaluation.exit_figures(logits, labels)
costs = models.cut_costs(network)
for name, cost in costs.items():
    print(f"{name}: {figures[name]['test_accuracy']:.2%} at {cost:.2f} of the operations")

points = [(cost, figures[name]["test_accuracy"]) for name, cost in costs.items()]
shallow = models.cut(network, "exit_1")  # a plain Keras model with no layer that it does not need
figure = pictures.accuracy_against_cost({"exits": points}, cost_label="operations")
figure.savefig(sys.argv[1] if sys.argv[1:] else "be_your_own_teacher.png", dpi=110)
