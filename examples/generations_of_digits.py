"""Training in generations: each network teaches the next one of its kind, and all of them vote.

`train_generations` may be stopped at any moment: called again, it goes on where it was. The picture
shows each generation's accuracy on test images, and that of the mean of the probabilities up to it.
"""

import sys

from kdtoolkit import data, generations, models
from kdtoolkit.report import pictures

digits = data.load("digits")


def build():
    return models.build("resnet8", digits.info.image_shape, digits.info.classes)


lineage = generations.train_generations(
    build,
    digits,
    "generations_of_digits",
    generations=2,
    primary_score=0.6,
    epochs=8,
    batch_size=64,
)
rows = [generation.results for generation in lineage]
for row in rows:
    print(f"generation {row['generation']}: {row['test_accuracy']:.2%}")

curves = {
    "alone": [100 * row["test_accuracy"] for row in rows],
    "ensemble of 0 to here": [100 * row["ensemble_test_accuracy"] for row in rows],
}
figure = pictures.by_generation(curves, "test accuracy (%)")
figure.savefig(sys.argv[1] if sys.argv[1:] else "generations_of_digits.png", dpi=110)
