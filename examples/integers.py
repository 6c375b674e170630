"""Files in integers: how small is each kind, and does it decide as the network does?

Every file is run on all test images by LiteRT and compared with the Keras network before you get
it; one that differs by more than rounding is an error. The picture shows accuracy against bytes.
"""

import sys

import keras

from kdtoolkit import data, export, models
from kdtoolkit.report import pictures

digits = data.load("digits")
keras.utils.set_random_seed(0)
network = models.build("resnet8", digits.info.image_shape, digits.info.classes)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
network.compile(keras.optimizers.Adam(3e-3), loss=loss)
images = digits.preprocessing(digits.train.images)
network.fit(images, digits.train.labels, batch_size=64, epochs=10, verbose=0)

rows = []
for kind in ("float32", "float16", "dynamic_range", "int8"):
    file = export.to_litert(
        network,
        f"digits-{kind}.tflite",
        digits.preprocessing,
        quantization=kind,
        calibration=digits.train.images[:200],
        labels=digits.info.labels,
    )
    found = export.check(
        file, network, digits.preprocessing, digits.test.images, digits.test.labels
    )
    rows.append({"variant": kind, "test_accuracy": found.test_accuracy, "bytes": file.bytes})
    print(f"{kind}: {file.bytes:,} bytes, {found.test_accuracy:.2%}, {found.agreement:.1%} alike")

figure = pictures.front(rows, "bytes", "bytes")
figure.savefig(sys.argv[1] if sys.argv[1:] else "integers.png", dpi=110)
