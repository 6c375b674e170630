"""A large teacher and a small student: labels alone or taught, which is better?

`compare` trains the teacher, then a student for each way and seed. The picture shows every student
as a point, and the mean of each way with its 95% interval over seeds, which two of them leave wide.
"""

import sys

import keras

from kdtoolkit import comparison, data, models
from kdtoolkit.intervals import t_interval
from kdtoolkit.report import pictures

digits = data.load("digits", train_examples=600)
shape, classes = digits.info.image_shape, digits.info.classes


def small():
    x = image = keras.Input(shape)
    for width in (8, 16):
        x = keras.layers.Conv2D(width, 3, 2, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    return keras.Model(image, keras.layers.Dense(classes)(keras.layers.Flatten()(x)))


result = comparison.compare(
    small,
    digits,
    "teacher_and_student",
    teacher=lambda: models.build("resnet8", shape, classes),
    ways=["plain", "kd"],
    seeds=(1, 2),
    epochs=40,
    teacher_epochs=30,
    batch_size=64,
)
print(f"teacher: {result.teacher_results['test_accuracy']:.2%}")
rows = []
for name in ("plain", "kd"):
    accuracies = [row["test_accuracy"] for row in result.rows if row["method"] == name]
    rows.append((name, accuracies, t_interval(accuracies)))
    print(f"{name}: {', '.join(f'{accuracy:.2%}' for accuracy in accuracies)}")

figure = pictures.seeds(rows, "test accuracy (%)")
figure.savefig(sys.argv[1] if sys.argv[1:] else "teacher_and_student.png", dpi=110)
