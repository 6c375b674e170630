"""A tolerant teacher: by plain fit() with our loss, it leaves more of its scores to second choices.

Two networks of one kind learn the embedded digits, one from cross-entropy and one from the tolerant
loss (Yang et al., AAAI 2019) at a primary score of 0.6. The picture shows their mean scores by
rank.
"""

import sys

import keras

from kdtoolkit import analysis, data, losses, models
from kdtoolkit.analysis import pictures

digits = data.load("digits")
images, labels = (digits.preprocessing(digits.train.images), digits.train.labels)
losses_by_name = {
    "cross-entropy": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    "tolerant, 0.6": losses.TolerantCrossentropy(primary_score=0.6),
}

scores, primary = {}, {}
for name, loss in losses_by_name.items():
    keras.utils.set_random_seed(0)
    network = models.build("resnet8", digits.info.image_shape, digits.info.classes)
    network.compile(keras.optimizers.Adam(3e-3), loss=loss)
    network.fit(images, labels, batch_size=64, epochs=10, verbose=0)
    logits = network.predict(digits.preprocessing(digits.test.images), verbose=0)
    scores[name] = analysis.sorted_confidences(logits)
    primary[name] = scores[name][0]
    print(f"{name}: primary score {primary[name]:.3f}, second {scores[name][1]:.3f}")

figure = pictures.energy(scores)
figure.savefig(sys.argv[1] if sys.argv[1:] else "tolerant_teacher.png", dpi=110)
