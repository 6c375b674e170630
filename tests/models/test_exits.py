"""Multi-exit networks against NumPy, published sizes, and the networks they were made from."""

import keras
import numpy as np
import pytest
from keras import layers

from kdtoolkit import models
from kdtoolkit.models import exits

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(4, 16, 16, 3)).astype("float32")


def randomise(network, seed=0):
    """Gives normalisations and biases values of their own: initial ones hide mistakes."""
    rng = np.random.default_rng(seed)
    for variable in network.variables:
        if variable.name in ("moving_variance", "gamma"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif variable.name in ("moving_mean", "beta", "bias"):
            variable.assign(rng.normal(0, 0.3, variable.shape))
    return network


def small(**options):
    keras.utils.set_random_seed(0)
    network = models.build("resnet18-w4", (16, 16, 3), 5)
    return network, randomise(models.add_exits(network, mid=6, **options))


def four_stages(widths, size=32, classes=100):
    """The shapes of a four-stage network, one 1x1 convolution a stage."""
    image = x = keras.Input((size, size, 3))
    for stage, width in enumerate(widths, start=1):
        x = layers.Conv2D(width, 1, 1 if stage == 1 else 2, name=f"stage{stage}")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(classes)(x), name="four_stages")


@pytest.mark.parametrize(
    "widths, sizes",
    [
        ((64, 128, 256, 512), [1_175_908, 397_668, 217_444]),
        ((256, 512, 1024, 2048), [1_555_300, 801_636, 670_564]),
    ],
)
def test_published_parameters_of_the_heads(widths, sizes):
    network = models.add_exits(four_stages(widths), mid=128)
    for index, size in enumerate(sizes, start=1):
        head = [layer for layer in network.layers if layer.name.startswith(f"exit_{index}_")]
        counts = [np.prod(v.shape) for layer in head for v in layer.trainable_variables]
        assert sum(counts) == size


def test_logits_shallow_to_deep_and_the_last_are_the_networks_own():
    network, exits = small()
    logits = exits.predict(IMAGES, verbose=0)
    assert list(logits) == ["exit_1", "exit_2", "exit_3", "exit_4"]
    assert models.exit_names(exits) == list(logits)
    assert {z.shape for z in logits.values()} == {(4, 5)}
    np.testing.assert_allclose(logits["exit_4"], network.predict(IMAGES, verbose=0), atol=1e-6)


def norm(network, name, x):
    layer = network.get_layer(name)
    mean, variance = np.array(layer.moving_mean), np.array(layer.moving_variance)
    x = (x - mean) / np.sqrt(variance.astype(np.float64) + 1e-5)
    return x * np.array(layer.gamma) + np.array(layer.beta)


def head_in_numpy(network, prefix, x, k):
    """The bottleneck head of an exit: pooled features and logits."""

    def weights(name):
        return [np.array(w, np.float64) for w in network.get_layer(prefix + name).weights]

    kernel, bias = weights("squeeze_conv")
    x = np.maximum(norm(network, f"{prefix}squeeze_bn", x @ kernel[0, 0] + bias), 0)
    kernel, bias = weights("stride_conv")
    n, h, w, c = x.shape
    patches = x.reshape(n, h // k, k, w // k, k, c)
    x = np.einsum("nhiwjc,ijcd->nhwd", patches, kernel) + bias
    x = np.maximum(norm(network, f"{prefix}stride_bn", x), 0)
    kernel, bias = weights("expand_conv")
    x = np.maximum(norm(network, f"{prefix}expand_bn", x @ kernel[0, 0] + bias), 0)
    pooled = x.mean((1, 2))
    kernel, bias = weights("logits")
    return pooled, pooled @ kernel + bias


@pytest.mark.parametrize("exit, k", [(1, 8), (2, 4), (3, 2)])
def test_bottleneck_head_in_numpy(exit, k):
    network, exits = small()
    stage = keras.Model(network.input, network.get_layer(f"stage{exit}").output)
    attached = stage.predict(IMAGES, verbose=0).astype(np.float64)
    pooled, logits = head_in_numpy(exits, f"exit_{exit}_", attached, k)
    found = models.features(exits).predict(IMAGES, verbose=0)
    np.testing.assert_allclose(found["features"][f"exit_{exit}"], pooled, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(found["logits"][f"exit_{exit}"], logits, atol=1e-4, rtol=1e-4)


def test_attention_head_masks_the_features():
    """Where the mask's last normalisation lets nothing through, the mask is sigmoid(beta)."""
    network, exits = small(head="attention")
    beta = RNG.normal(size=8)
    exits.get_layer("exit_2_attention_up_bn").gamma.assign(np.zeros(8))
    exits.get_layer("exit_2_attention_up_bn").beta.assign(beta)
    stage = keras.Model(network.input, network.get_layer("stage2").output)
    attached = stage.predict(IMAGES, verbose=0) / (1 + np.exp(-beta))
    _, logits = head_in_numpy(exits, "exit_2_", attached, 4)
    found = exits.predict(IMAGES, verbose=0)["exit_2"]
    np.testing.assert_allclose(found, logits, atol=1e-4, rtol=1e-4)


def test_attention_mask_depends_on_the_place():
    """A mask in (0, 1) of the size of the features, from features at half the resolution."""
    network, exits = small(head="attention")
    mask = exits.get_layer("exit_1_attention_mask")
    values = keras.Model(network.input, mask.output).predict(IMAGES, verbose=0)
    assert values.shape == (4, 16, 16, 4)
    assert values.min() > 0 and values.max() < 1 and np.ptp(values, axis=(1, 2)).min() > 0.01
    conv = exits.get_layer("exit_1_attention_conv")
    assert conv.strides == (2, 2) and conv.output.shape == (None, 8, 8, 4)


@pytest.mark.parametrize("head", ["bottleneck", "attention"])
def test_sizes_that_do_not_divide(head):
    network = models.build("resnet8", (15, 9, 1), 3)
    exits = models.add_exits(network, head=head, mid=4)
    shapes = {name: z.shape for name, z in exits.output.items()}
    assert shapes == {f"exit_{k}": (None, 3) for k in (1, 2, 3)}


def test_default_attachments():
    def attached(name):
        network = models.add_exits(models.build(name, (16, 16, 3), 5), mid=4)
        squeezes = [x for x in network.layers if x.name.endswith("_squeeze_conv")]
        return [x.input._keras_history.operation.name for x in squeezes]

    assert attached("resnet18-w4") == ["stage1", "stage2", "stage3"]
    assert attached("resnet20") == ["stage1", "stage2", "stage3_block1"]
    assert attached("resnet8") == ["stage1", "stage2"]  # one block a stage: nothing is inside


def widths(network):
    """Channels inside the heads, shallow to deep."""
    layers = [network.get_layer(f"{k}_squeeze_conv") for k in models.exit_names(network)[:-1]]
    return [layer.filters for layer in layers]


def test_a_head_costs_at_most_an_eighth_of_what_stopping_saves():
    """ResNet-8 on CIFAR-10, where heads of the paper's width cost twice the network."""
    before = 1024 * 9 * (3 * 16 + 2 * 16 * 16)  # stem and stage 1
    second = 256 * (9 * (16 * 32 + 32 * 32) + 16 * 32)
    third = 64 * (9 * (32 * 64 + 64 * 64) + 32 * 64)
    whole = before + second + third + 640
    assert whole == 12_501_632

    def first_head(mid):  # 1x1 at 32x32, 4x4 to 8x8, 1x1 to 64 channels, dense layer
        return 1024 * 16 * mid + 64 * (16 * mid * mid + 64 * mid) + 640

    def second_head(mid):  # from 16x16, 2x2 to 8x8
        return 256 * 32 * mid + 64 * (4 * mid * mid + 64 * mid) + 640

    network = models.build("resnet8", (32, 32, 3), 10)
    wide = models.add_exits(network, mid=128)
    assert models.macs(models.cut(wide, "exit_1")) == before + first_head(128) == 24_560_256
    assert first_head(16) < (whole - before) / 8 < first_head(32)
    assert second_head(16) < (third + 640) / 8 < second_head(32)
    exits = models.add_exits(network)
    assert widths(exits) == [16, 16]
    alone = [models.macs(models.cut(exits, name)) for name in models.exit_names(exits)]
    assert alone == [before + first_head(16), before + second + second_head(16), whole]
    assert models.macs(exits) == whole + first_head(16) + second_head(16)  # 1.068 of the network


def test_heads_of_the_papers_network_are_as_wide_as_the_papers():
    with keras.StatelessScope():
        network = models.add_exits(models.build("resnet18", (32, 32, 3), 100))
    assert widths(network) == [128, 128, 128]


def test_heads_are_at_least_eight_channels_wide():
    """Stopping saves 9,228 MACs, or 12 at the last layer; such a head takes 8,204."""
    image = x = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="first")(x)
    x = layers.Conv2D(4, 3, padding="same", name="second")(x)
    network = keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    exits = models.add_exits(network, ["first"])
    assert widths(exits) == [8]
    head = 64 * (4 * 8 + 8 * 8 + 8 * 4) + 12
    assert models.macs(models.cut(exits, "exit_1")) == 64 * 9 * 3 * 4 + head
    with pytest.raises(
        ValueError, match=r"'second', where stopping saves 12 .* takes 8,204; .*mid"
    ):
        models.add_exits(network, ["first", "second"])
    assert widths(models.add_exits(network, ["first", "second"], mid=5)) == [5, 5]


def test_an_attention_counts_against_its_exit():
    network = models.build("resnet8", (32, 32, 3), 10)
    exits = models.add_exits(network, head="attention")
    assert widths(exits) == [16, 16]  # not narrower because of it
    plain = models.add_exits(network)
    for index, masks in enumerate((256 * 9 * 16 * 16, 64 * 9 * 32 * 32), start=1):
        with_mask, without = (models.cut(n, f"exit_{index}") for n in (exits, plain))
        assert models.macs(with_mask) == models.macs(without) + masks
    # 3x3 to as many channels at half the resolution, and going on is two 1x1 convolutions.
    with pytest.raises(ValueError, match=r"`at` must .* Received: 'stage1', where"):
        models.add_exits(four_stages((64, 64, 64)), head="attention")


def test_attached_inside_a_stage():
    network = models.build("resnet14", (16, 16, 3), 5)
    at = ["stage1_block1", "stage3_block1"]
    exits = models.add_exits(network, at, mid=4)
    assert exits.get_layer("exit_1_stride_conv").strides == (4, 4)
    assert exits.get_layer("exit_2_stride_conv").strides == (1, 1)


def test_pooled_features():
    network, exits = small()
    both = models.features(exits)
    assert list(both.output["logits"]) == list(both.output["features"]) == models.exit_names(exits)
    found = both.predict(IMAGES, verbose=0)
    maps = keras.Model(network.input, network.get_layer("stage4").output)
    expected = maps.predict(IMAGES, verbose=0).mean((1, 2), dtype=np.float64)
    np.testing.assert_allclose(found["features"]["exit_4"], expected, atol=1e-5)
    for index in (1, 2, 3):
        output = exits.get_layer(f"exit_{index}_features").output
        assert both.output["features"][f"exit_{index}"] is output
    assert {id(v) for v in both.variables} == {id(v) for v in exits.variables}


def test_any_functional_network():
    """Layers of another's names, a flattened head, a preprocessing, dropout."""
    image = keras.Input((16, 16, 3))
    x = layers.Rescaling(0.5)(image)
    x = layers.Conv2D(6, 3, activation="relu", name="first")(x)
    x = layers.MaxPooling2D(name="second")(x)
    x = layers.Conv2D(8, 3, 2, activation="relu", name="third")(x)
    x = layers.Dropout(0.5)(layers.Flatten()(x))
    network = keras.Model(image, layers.Dense(5)(x))
    exits = models.add_exits(network, ["first", "second"], mid=4)
    logits = exits.predict(IMAGES, verbose=0)
    np.testing.assert_allclose(logits["exit_3"], network.predict(IMAGES, verbose=0), atol=1e-6)
    check_stages(exits)


def sequential():
    return keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(6, 3, activation="relu", name="first"),
            layers.MaxPooling2D(name="second"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(5),
        ]
    )


def nested():
    """Transfer learning: a convolution of each model has the same name."""
    inside = [layers.Conv2D(6, 3, 2, name="first"), layers.BatchNormalization(name="norm")]
    backbone = keras.Sequential([keras.Input((16, 16, 6)), *inside, layers.Conv2D(7, 3)], name="b")
    image = keras.Input((16, 16, 3))
    x = backbone(layers.Conv2D(6, 1, name="first")(image), training=False)
    return keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))


def tokens(width=8):
    """Attention over patches, which get wider on the way."""
    image = keras.Input((16, 16, 3))
    x = layers.Reshape((16, width))(layers.Conv2D(width, 4, 4)(image))
    x = layers.Add(name="first")([x, layers.MultiHeadAttention(2, 4)(x, x)])
    x = layers.Dense(8, activation="gelu", name="second")(x)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(image, layers.Dense(5)(x))


def convolutional(pooled_first=True):
    """Logits from a 1x1 convolution: of pooled features as in MobileNetV3, or pooled afterwards."""
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(6, 3, 2, activation="relu", name="first")(image)
    x = layers.Conv2D(7, 3, 1, activation="relu", name="second")(x)
    pool = layers.GlobalAveragePooling2D(keepdims=pooled_first)
    if pooled_first:
        x = layers.Conv2D(9, 1, activation="hard_silu")(pool(x))
        x = layers.Flatten()(layers.Conv2D(5, 1)(layers.Dropout(0.2)(x)))
    else:
        x = pool(layers.Conv2D(5, 1)(x))
    return keras.Model(image, layers.Activation("linear", dtype="float32")(x))


@pytest.mark.parametrize(
    "build, at, width",
    [
        (sequential, ["first", "second"], 6),
        (nested, ["first", "b_first", "norm"], 7),
        (tokens, ["first", "second"], 8),
        (lambda: tokens(4), ["first", "second"], 8),
        (convolutional, ["first", "second"], 9),
        (lambda: convolutional(False), ["first", "second"], 7),
    ],
)
def test_other_peoples_networks(build, at, width, tmp_path):
    network = randomise(build())
    expected = network(IMAGES)
    exits = models.add_exits(network, at, mid=4)
    last = f"exit_{len(at) + 1}"
    np.testing.assert_array_equal(exits(IMAGES)[last], expected)
    assert {id(v) for v in network.variables} <= {id(v) for v in exits.variables}
    check_stages(exits)
    exits.save(tmp_path / "exits.keras")
    loaded = keras.models.load_model(tmp_path / "exits.keras")
    for name, logits in exits(IMAGES).items():
        np.testing.assert_allclose(models.cut(loaded, name)(IMAGES), logits, atol=1e-5)
    found = models.features(loaded)(IMAGES)
    assert {values.shape for values in found["features"].values()} == {(4, width)}
    np.testing.assert_allclose(found["logits"][last], expected, atol=1e-5)


def test_head_on_tokens_in_numpy():
    network = tokens(4)
    exits = randomise(models.add_exits(network, ["first"]))
    point = keras.Model(network.input, network.get_layer("first").output)
    x = np.asarray(point(IMAGES), np.float64).mean(axis=1)
    weights = {
        name: [np.array(w, np.float64) for w in exits.get_layer(f"exit_1_{name}").weights]
        for name in ("expand", "features", "logits")
    }
    x = x @ weights["expand"][0] + weights["expand"][1]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    x = x * weights["features"][0] + weights["features"][1]
    found = models.features(exits)(IMAGES)
    np.testing.assert_allclose(found["features"]["exit_1"], x, atol=1e-5)
    x = x @ weights["logits"][0] + weights["logits"][1]
    np.testing.assert_allclose(found["logits"]["exit_1"], x, atol=1e-5)


def test_logits_of_a_convolution_come_from_the_features():
    """A 1x1 convolution of pooled features, or the pooled convolution of features, is a product."""
    for network in (convolutional(), convolutional(False)):
        exits = randomise(models.add_exits(network, ["first"], mid=4))
        found = models.features(exits)(IMAGES)
        last = [layer for layer in network.layers if isinstance(layer, layers.Conv2D)][-1]
        kernel, bias = (np.array(w, np.float64) for w in last.weights)
        logits = np.asarray(found["features"]["exit_2"], np.float64) @ kernel[0, 0] + bias
        np.testing.assert_allclose(found["logits"]["exit_2"], logits, atol=1e-4)
        # The head shrinks the image to what is pooled, not to the one pixel that pooling makes.
        assert exits.get_layer("exit_1_stride_conv").strides == (2, 2)


def test_heads_that_tokens_cannot_have_and_layers_out_of_sight():
    with pytest.raises(ValueError, match="`head` must be 'bottleneck' for features of tokens"):
        models.add_exits(tokens(), ["first"], head="attention")
    with pytest.raises(ValueError, match="'query', which is inside 'multi_head_attention"):
        models.add_exits(tokens(), ["query"])


def test_saved_and_loaded(tmp_path):
    """The heads are found again by their names alone."""
    _, exits = small(head="attention")
    exits.save(tmp_path / "exits.keras")
    keras.backend.clear_session()  # layers are numbered as in a new process
    loaded = keras.models.load_model(tmp_path / "exits.keras")
    expected = exits.predict(IMAGES, verbose=0)
    found = loaded.predict(IMAGES, verbose=0)
    assert list(found) == list(models.features(loaded)(IMAGES[:1])["logits"])
    for name in models.exit_names(exits):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-6)
    cut = models.cut(loaded, "exit_2").predict(IMAGES, verbose=0)
    np.testing.assert_allclose(cut, expected["exit_2"], atol=1e-6)


@pytest.mark.parametrize("exit", ["exit_1", "exit_3", "exit_4"])
def test_cut(tmp_path, exit):
    network, exits = small()
    pruned = models.cut(exits, exit)
    expected = exits.predict(IMAGES, verbose=0)[exit]
    np.testing.assert_allclose(pruned.predict(IMAGES, verbose=0), expected, atol=1e-6)
    index = int(exit[-1])
    for layer in pruned.layers:
        stage, other = layer.name.partition("stage")[2], layer.name.partition("exit_")[2]
        assert not stage or int(stage[0]) <= index
        assert not other or int(other[0]) == index
        assert layer is exits.get_layer(layer.name)
    if exit == "exit_4":
        assert pruned.count_params() == network.count_params()
    pruned.save(tmp_path / "cut.keras")
    loaded = keras.models.load_model(tmp_path / "cut.keras")
    np.testing.assert_allclose(loaded.predict(IMAGES, verbose=0), expected, atol=1e-6)
    assert loaded.count_params() == pruned.count_params()


def check_stages(exits):
    chain = models.stages(exits)
    expected = exits.predict(IMAGES, verbose=0)
    assert len(chain) == len(expected)
    carried = IMAGES
    for index, stage in enumerate(chain, start=1):
        outputs = stage.predict(carried, verbose=0)
        np.testing.assert_allclose(outputs["logits"], expected[f"exit_{index}"], atol=1e-5)
        assert ("features" in outputs) == (index < len(chain))
        carried = outputs.get("features")


@pytest.mark.parametrize("head", ["bottleneck", "attention"])
def test_stages_chained_are_the_network(head):
    _, exits = small(head=head)
    check_stages(exits)
    chain = models.stages(exits)
    # Each layer with weights runs in one stage, and the weights are shared.
    owners = [id(v) for stage in chain for v in stage.variables]
    assert sorted(owners) == sorted(id(v) for v in exits.variables)
    assert [stage.input_shape[1:] for stage in chain] == [
        (16, 16, 3),
        (16, 16, 4),
        (8, 8, 8),
        (4, 4, 16),
    ]


def test_stages_of_a_network_with_exits_inside_a_stage():
    keras.utils.set_random_seed(0)
    network = models.build("resnet20", (16, 16, 3), 5)
    check_stages(randomise(models.add_exits(network, mid=4)))


def bypassed():
    image = keras.Input((16, 16, 3))
    before = layers.Conv2D(4, 1, name="before")(image)
    inside = layers.Conv2D(4, 1, name="inside")(before)
    x = layers.GlobalAveragePooling2D()(layers.Add(name="after")([before, inside]))
    return keras.Model(image, layers.Dense(5)(x), name="bypassed")


def test_stages_need_all_that_follows_to_pass_the_exit():
    exits = models.add_exits(bypassed(), ["inside"], mid=4)
    with pytest.raises(ValueError, match=r"bypass .* exit_2 needs more than .* exit_1"):
        models.stages(exits)
    check_stages(models.add_exits(bypassed(), ["before"], mid=4))


@pytest.mark.parametrize(
    "at, message",
    [
        (["stage1", "stge2"], r"'stge2'. Near matches: .*stage2"),
        (["stage2", "stage1"], "shallow to deep. Received: 'stage2' before 'stage1'"),
        (["stage2", "stage2"], "shallow to deep. Received: 'stage2' before 'stage2'"),
        (["features"], r"\(batch, tokens, channels\). Received: 'features'"),
        ([], "at least one layer"),
    ],
)
def test_wrong_attachments(at, message):
    with pytest.raises(ValueError, match=rf"`at` must .*{message}"):
        models.add_exits(models.build("resnet8", (8, 8, 1), 3), at)


def test_wrong_arguments():
    network = models.build("resnet8", (8, 8, 1), 3)
    with pytest.raises(ValueError, match="`head` must be one of bottleneck, attention"):
        models.add_exits(network, head="neck")
    with pytest.raises(ValueError, match="`mid` must be a positive integer"):
        models.add_exits(network, mid=0)
    with pytest.raises(
        ValueError, match="`at` must be given: 'bypassed' has no layers named stage1"
    ):
        models.add_exits(bypassed())


def test_networks_that_do_not_return_logits():
    network = models.build("resnet8", (8, 8, 1), 3)
    softmax = keras.Model(network.input, layers.Softmax()(network.output))
    pooled = network.get_layer("features").output
    dense = keras.Model(network.input, layers.Dense(3, activation="softmax")(pooled))
    maps = keras.Model(network.input, network.get_layer("stage3").output)
    for wrong in (softmax, dense, maps, models.add_exits(network, mid=4)):
        with pytest.raises(ValueError, match="`network` must return logits"):
            models.add_exits(wrong, ["stage1"])
    average = keras.Model(network.input, pooled)
    with pytest.raises(ValueError, match="`network` must end with a dense layer"):
        models.add_exits(average, ["stage1"])


@pytest.mark.parametrize("function", [models.exit_names, models.features, models.stages])
def test_networks_without_exits(function):
    network = models.build("resnet8", (8, 8, 1), 3)
    with pytest.raises(ValueError, match="'resnet8', which returns one output"):
        function(network)
    with pytest.raises(ValueError, match="multi-exit"):
        models.cut(network, "exit_1")


def test_cut_at_an_unknown_exit():
    exits = models.add_exits(models.build("resnet8", (8, 8, 1), 3), mid=4)
    with pytest.raises(ValueError, match=r"one of exit_1, exit_2, exit_3. Received: exit='exit_4'"):
        models.cut(exits, "exit_4")


def test_features_of_the_deepest_exit_are_those_before_its_dropout():
    network = models.add_exits(models.build("resnet8", (8, 8, 1), 3, dropout=0.5), mid=4)
    pooled = models.features(network).output["features"]["exit_3"]
    assert pooled._keras_history.operation.name == "features"


def test_backbone_is_all_but_the_heads():
    plain = models.build("resnet8", (8, 8, 1), 10)
    names = [layer.name for layer in exits.backbone(plain)]
    assert names == [layer.name for layer in plain.layers if layer.name != "logits"]
    several = exits.backbone(models.add_exits(plain))
    assert {layer.name for layer in several} == set(names)


def test_channels_first():
    """An exit's head would take the width for channels."""
    image = keras.Input((8, 8, 3))
    x = layers.Permute((3, 1, 2))(image)
    x = layers.Conv2D(4, 3, data_format="channels_first", name="first")(x)
    x = layers.GlobalAveragePooling2D(data_format="channels_first")(x)
    network = keras.Model(image, layers.Dense(5)(x), name="own")
    with pytest.raises(ValueError, match=r"must have channels last.*'own', .*'first' has"):
        models.add_exits(network, ["first"], mid=4)


@pytest.mark.parametrize("name", ["exit_1_stem", "exit_2_logits"])
def test_names_of_heads_are_theirs(name):
    """What has one would be taken for a part of a head."""
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, 2, name="second")(layers.Conv2D(4, 3, name=name)(image))
    network = keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))
    with pytest.raises(ValueError, match=f"other names than those of heads.*Conv2D '{name}'"):
        models.add_exits(network, ["second"], mid=4)
