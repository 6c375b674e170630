"""Weights from PyTorch: the same logits as the network there, by whatever names it has them."""

import numpy as np
import pytest

from kdtoolkit import models


def torch_names(network):
    """torchvision's names -> the variables."""
    names = {}
    for layer in network.layers:
        for variable in layer.weights:
            parameter = {
                "kernel": "weight",
                "bias": "bias",
                "gamma": "weight",
                "beta": "bias",
                "moving_mean": "running_mean",
                "moving_variance": "running_var",
            }[variable.name]
            module = {"stem_conv": "conv1", "stem_bn": "bn1", "logits": "fc"}.get(layer.name)
            if module is None:
                stage, block, part = layer.name.split("_", 2)
                part = {"shortcut_conv": "downsample.0", "shortcut_bn": "downsample.1"}.get(
                    part, part
                )
                module = f"layer{stage[5:]}.{int(block[5:]) - 1}.{part}"
            names[f"{module}.{parameter}"] = variable
    return names


def random_state(network, seed=0):
    """A state dict of the right names and shapes, and the values that the network should get."""
    rng = np.random.default_rng(seed)
    state, expected = {}, {}
    for name, variable in torch_names(network).items():
        value = rng.uniform(0.5, 1.5, variable.shape).astype(np.float32)
        expected[variable.path] = value
        if value.ndim == 4:
            value = np.moveaxis(value, (3, 2), (0, 1))
        state[name] = np.ascontiguousarray(value.T if value.ndim == 2 else value)
        if name.endswith("running_var"):
            state[name.replace("running_var", "num_batches_tracked")] = np.array(7)
    return state, expected


def small(**options):
    return models.build("resnet8", (8, 8, 3), 5, padding="torch", **options)


def load(network, state, tmp_path):
    np.savez(tmp_path / "state.npz", **state)
    models.load_state_dict(network, tmp_path / "state.npz")


def renamed(state, *replacements):
    def rename(name):
        for old, new in replacements:
            name = name.replace(old, new)
        return name

    return {rename(name): value for name, value in state.items()}


SPELLINGS = {
    "torchvision": (),
    "head": (("fc.", "head."),),
    "head.fc": (("fc.", "head.fc."),),
    "last_linear": (("fc.", "last_linear."),),
    "classifier": (("fc.", "classifier."),),
    "linear and shortcut": (("fc.", "linear."), ("downsample.", "shortcut.")),
    "transformers": (
        ("downsample.0", "shortcut.convolution"),
        ("downsample.1", "shortcut.normalization"),
        *((f"layer{k}.", f"encoder.stages.{k - 1}.layers.") for k in (1, 2, 3)),
        *((f".{b}.conv{i}", f".{b}.layer.{i - 1}.convolution") for i in (1, 2) for b in (0, 1, 2)),
        *((f".{b}.bn{i}", f".{b}.layer.{i - 1}.normalization") for i in (1, 2) for b in (0, 1, 2)),
        ("conv1.", "embedder.embedder.convolution."),
        ("bn1.", "embedder.embedder.normalization."),
        ("fc.", "classifier.1."),
    ),
    "sequences": (
        ("downsample.", "shortcut."),
        *((f".{b}.conv1", f".{b}.residual_function.0") for b in (0, 1, 2)),
        *((f".{b}.bn1", f".{b}.residual_function.1") for b in (0, 1, 2)),
        *((f".{b}.conv2", f".{b}.residual_function.3") for b in (0, 1, 2)),
        *((f".{b}.bn2", f".{b}.residual_function.4") for b in (0, 1, 2)),
        ("conv1.", "conv1.0."),
        ("bn1.", "conv1.1."),
        *((f"layer{k}.", f"conv{k + 1}_x.") for k in (1, 2, 3)),
    ),
}


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.model."])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_names_of_other_code_bases(spelling, prefix, tmp_path):
    network = small()
    state, expected = random_state(network)
    state = renamed(state, *SPELLINGS[spelling])
    load(network, {prefix + name: value for name, value in state.items()}, tmp_path)
    for variable in network.weights:
        np.testing.assert_array_equal(variable, expected[variable.path])


def refused(network, state, tmp_path):
    """The one-line message, after checking that nothing was assigned."""
    before = network.get_weights()
    with pytest.raises(ValueError) as caught:
        load(network, state, tmp_path)
    for old, new in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    (line,) = str(caught.value).splitlines()
    return line


def test_state_dicts_that_do_not_fit(tmp_path):
    network = small()
    state, _ = random_state(network)
    without = {name: value for name, value in state.items() if name != "layer2.0.bn1.running_var"}
    assert "missing: stage2_block1_bn1.running_var" in refused(network, without, tmp_path)
    more = state | {"layer1.1.conv1.weight": np.ones((16, 16, 3, 3)), "ema.decay": np.ones(1)}
    message = refused(network, more, tmp_path)
    assert message.endswith("unexpected: layer1.1.conv1.weight, ema.decay")
    assert "'resnet8'" in message and "missing" not in message
    shapes = state | {"layer1.0.conv1.weight": np.ones((16, 16, 1, 3), np.float32)}
    assert refused(network, shapes, tmp_path).endswith(
        "other shapes: layer1.0.conv1.weight of (16, 16, 1, 3) for (16, 16, 3, 3)"
    )
    scalar = state | {"fc.bias": np.float32(1)}
    assert "other shapes: fc.bias of () for (5,)" in refused(network, scalar, tmp_path)
    integers = state | {"bn1.bias": np.ones(16, np.int64)}
    assert "no floating point: bn1.bias" in refused(network, integers, tmp_path)
    twice = state | {"module.fc.bias": state["fc.bias"]}
    assert "one network. Received: fc.bias and module.fc.bias" in refused(network, twice, tmp_path)


def test_other_depths_are_counted_not_listed(tmp_path):
    state, _ = random_state(models.build("resnet14", (8, 8, 3), 5))
    # Ten tensors (two convolutions, two normalisations) of a further block in each of three stages.
    message = refused(small(), state, tmp_path)
    assert "unexpected: layer1.1.conv1.weight," in message and message.endswith("and 26 more")


def test_other_classes(tmp_path):
    state, _ = random_state(models.build("resnet8", (8, 8, 3), 7))
    message = refused(small(), state, tmp_path)
    assert "must tell 5 classes apart" in message and message.endswith("weights for 7")


def test_other_shortcut(tmp_path):
    state, _ = random_state(small(shortcut="identity"))
    assert "missing: stage2_block1_shortcut_conv.weight" in refused(small(), state, tmp_path)
    state, _ = random_state(small())
    message = refused(small(shortcut="identity"), state, tmp_path)
    assert "unexpected: layer2.0.downsample.0.weight" in message


def test_network_that_pads_otherwise(tmp_path):
    state, expected = random_state(small())
    message = refused(models.build("resnet8", (8, 8, 3), 5), state, tmp_path)
    assert "padding='torch'" in message and "'stage2_block1_conv1' pads 8x8" in message
    odd = models.build("resnet8", (9, 9, 3), 5)  # 9, 5, 3: the same on both sides
    load(odd, state, tmp_path)
    np.testing.assert_array_equal(odd.get_layer("logits").bias, expected["logits/bias"])


def test_network_of_another_kind(tmp_path):
    network = models.add_exits(small(), mid=4)
    state, _ = random_state(small())
    assert "missing: exit_1_squeeze_conv.weight" in refused(network, state, tmp_path)


def twin(blocks, widths, shortcut="conv", stem="small", expansion=1, classes=5):
    """A ResNet of plain torch.nn with torchvision's names and random statistics."""
    torch = pytest.importorskip("torch")
    nn, pad = torch.nn, torch.nn.functional.pad

    class Block(nn.Module):
        def __init__(self, before, width, stride):
            super().__init__()
            sizes = [1, 3, 1] if expansion > 1 else [3, 3]
            channels = [before, *[width] * (len(sizes) - 1), width * expansion]
            self.sizes = sizes
            for i, size in enumerate(sizes):
                # The 3x3 convolution strides, the first of two.
                step = stride if size == 3 and sizes[:i].count(3) == 0 else 1
                conv = nn.Conv2d(channels[i], channels[i + 1], size, step, size // 2, bias=False)
                setattr(self, f"conv{i + 1}", conv)
                setattr(self, f"bn{i + 1}", nn.BatchNorm2d(channels[i + 1]))
            self.stride, self.missing = stride, channels[-1] - before
            if self.missing or stride > 1:
                self.downsample = (
                    nn.Sequential(
                        nn.Conv2d(before, channels[-1], 1, stride, bias=False),
                        nn.BatchNorm2d(channels[-1]),
                    )
                    if shortcut == "conv"
                    else nn.Identity()
                )

        def forward(self, x):
            y = x
            for i in range(1, len(self.sizes) + 1):
                y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
                y = y.relu() if i < len(self.sizes) else y
            if hasattr(self, "downsample") and shortcut == "conv":
                x = self.downsample(x)
            elif hasattr(self, "downsample"):
                half = self.missing // 2
                x = pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))
            return (y + x).relu()

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            kernel, stride = (7, 2) if stem == "imagenet" else (3, 1)
            self.conv1 = nn.Conv2d(3, widths[0], kernel, stride, kernel // 2, bias=False)
            self.bn1 = nn.BatchNorm2d(widths[0])
            self.maxpool = nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.Identity()
            before = widths[0]
            for stage, (count, width) in enumerate(zip(blocks, widths, strict=True), start=1):
                made = []
                for block in range(count):
                    made.append(Block(before, width, 2 if stage > 1 and block == 0 else 1))
                    before = width * expansion
                setattr(self, f"layer{stage}", nn.Sequential(*made))
            self.fc = nn.Linear(before, classes)

        def forward(self, x):
            x = self.maxpool(self.bn1(self.conv1(x)).relu())
            for stage in range(1, len(blocks) + 1):
                x = getattr(self, f"layer{stage}")(x)
            return self.fc(x.mean((2, 3)))

    torch.manual_seed(0)
    network = ResNet().eval()
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)  # the default lets the images vanish
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.0),
                (module.bias, -0.2, 0.2),
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
            ):
                nn.init.uniform_(tensor, low, high)
    return network


@pytest.mark.parametrize(
    ("name", "shape", "options", "structure"),
    [
        ("resnet20", (32, 32, 3), {}, {"blocks": (3, 3, 3), "widths": (16, 32, 64)}),
        (
            "resnet20",
            (32, 32, 3),
            {"shortcut": "identity"},
            {"blocks": (3, 3, 3), "widths": (16, 32, 64), "shortcut": "identity"},
        ),
        ("resnet18", (32, 32, 3), {}, {"blocks": (2, 2, 2, 2), "widths": (64, 128, 256, 512)}),
        (
            "resnet18",
            (64, 64, 3),
            {"stem": "imagenet"},
            {"blocks": (2, 2, 2, 2), "widths": (64, 128, 256, 512), "stem": "imagenet"},
        ),
        (
            "resnet50",
            (64, 64, 3),
            {"stem": "imagenet"},
            {
                "blocks": (3, 4, 6, 3),
                "widths": (64, 128, 256, 512),
                "stem": "imagenet",
                "expansion": 4,
            },
        ),
    ],
)
def test_logits_of_the_twin(name, shape, options, structure, tmp_path):
    theirs = twin(**structure)
    torch = pytest.importorskip("torch")
    torch.save(theirs.state_dict(), tmp_path / "state.pth")
    ours = models.build(name, shape, 5, padding="torch", **options)
    models.load_state_dict(ours, tmp_path / "state.pth")
    images = np.random.default_rng(1).normal(size=(3, *shape)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    assert np.ptp(expected, axis=0).min() > 0.02  # 200 tolerances: the images matter
    np.testing.assert_allclose(ours.predict(images, verbose=0), expected, rtol=1e-4, atol=1e-4)
