"""Channels pruned by Torch-Pruning and fine-tuned in PyTorch: the peer of `channel_pruning.py`.

    python benchmarks/channel_pruning_peer.py FOLDER IMPORTANCE SHARE

The folder is what `channel_pruning.py` prepares; one line of JSON comes out. PyTorch and
Torch-Pruning alone are imported.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
import torch_pruning
from torch import nn
from torch.nn import functional

STEPS = 50
"""In how many steps all channels would go, as Torch-Pruning's own examples do it."""


def conv_bn(arrays, conv, norm, stride=1):
    """A convolution, padded as in Keras, and its normalisation, with their weights."""
    kernel = arrays[f"{conv}.kernel"]
    height, _, inputs, outputs = kernel.shape
    module = nn.Conv2d(
        inputs, outputs, height, stride, height // 2 if stride == 1 else 0, bias=False
    )
    scale = nn.BatchNorm2d(outputs, float(arrays["epsilon"]), 1 - float(arrays["momentum"]))
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(kernel).permute(3, 2, 0, 1))
        for ours, theirs in (
            ("gamma", scale.weight),
            ("beta", scale.bias),
            ("moving_mean", scale.running_mean),
            ("moving_variance", scale.running_var),
        ):
            theirs.copy_(torch.from_numpy(arrays[f"{norm}.{ours}"]))
    # Of an even size, Keras pads a strided convolution behind alone.
    before = [nn.ZeroPad2d((0, 1, 0, 1))] if stride > 1 and height > 1 else []
    return nn.Sequential(*before, module, scale)


class Block(nn.Module):
    """Two convolutions and what goes past them."""

    def __init__(self, arrays, prefix, stride):
        super().__init__()
        self.first = conv_bn(arrays, f"{prefix}_conv1", f"{prefix}_bn1", stride)
        self.second = conv_bn(arrays, f"{prefix}_conv2", f"{prefix}_bn2")
        self.shortcut = nn.Identity()
        if f"{prefix}_shortcut_conv.kernel" in arrays:
            names = f"{prefix}_shortcut_conv", f"{prefix}_shortcut_bn"
            self.shortcut = conv_bn(arrays, *names, stride)

    def forward(self, x):
        y = functional.relu(self.first(x))
        return functional.relu(self.second(y) + self.shortcut(x))


def resnet(arrays):
    """The CIFAR ResNet of `kdtoolkit.models`, with its weights."""
    layers = [conv_bn(arrays, "stem_conv", "stem_bn"), nn.ReLU()]
    for stage in (1, 2, 3):
        block = 1
        while f"stage{stage}_block{block}_conv1.kernel" in arrays:
            stride = 2 if stage > 1 and block == 1 else 1
            layers.append(Block(arrays, f"stage{stage}_block{block}", stride))
            block += 1
    inputs, classes = arrays["logits.kernel"].shape
    logits = nn.Linear(inputs, classes)
    with torch.no_grad():
        logits.weight.copy_(torch.from_numpy(arrays["logits.kernel"]).T)
        logits.bias.copy_(torch.from_numpy(arrays["logits.bias"]))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), logits)


def macs(network, image):
    """Multiply-accumulates of convolutions and dense layers for one image, as ours are counted."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        total += output[0].numel() * math.prod(module.weight.shape[1:])

    hooks = [
        module.register_forward_hook(count)
        for module in network.modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    with torch.inference_mode():
        network(image)
    for hook in hooks:
        hook.remove()
    return total


def accuracy(network, x, y):
    """Share of images that are classified as labelled."""
    network.eval()
    with torch.inference_mode():
        right = [(network(a).argmax(1) == b).sum().item() for a, b in batches(x, y, 500)]
    return sum(right) / len(y)


def batches(x, y, size):
    """Pairs of tensors, images with the channels first and classes."""
    for start in range(0, len(y), size):
        images = torch.from_numpy(np.asarray(x[start : start + size]))
        yield images.permute(0, 3, 1, 2), torch.from_numpy(y[start : start + size])


def prune(network, importance, share, image, x, y):
    """Removes channels until that share of the multiply-accumulates is left."""
    most = share * macs(network, image)
    score = {
        "l1": torch_pruning.importance.GroupMagnitudeImportance(p=1),
        "group_norm": torch_pruning.importance.GroupMagnitudeImportance(p=2),
        "bn_scale": torch_pruning.importance.BNScaleImportance(),
        "taylor": torch_pruning.importance.GroupTaylorImportance(),
    }[importance]
    pruner = torch_pruning.pruner.BasePruner(
        network,
        image,
        score,
        global_pruning=True,
        pruning_ratio=1.0,
        iterative_steps=STEPS,
        ignored_layers=[network[-1]],
    )
    for _ in range(STEPS):
        if macs(network, image) <= most:
            return
        if importance == "taylor":
            network.zero_grad()
            for images, labels in batches(x, y, 32):
                functional.cross_entropy(network(images), labels).backward()
        pruner.step()
    raise RuntimeError("nothing of that size was reached")


def fine_tune(network, x, y, size, rate):
    """One pass through all images, a cosine from the rate to 0."""
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, -(-len(y) // size))
    for images, labels in batches(x, y, size):
        optimizer.zero_grad()
        functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        schedule.step()


def main(folder, importance, share):
    folder = Path(folder)
    data = {file.stem: np.load(file, mmap_mode="r") for file in folder.glob("*.npy")}
    settings = json.loads((folder / "settings.json").read_text())
    torch.set_num_threads(settings["threads"])
    with np.load(folder / "network.npz") as arrays:
        network = resnet(dict(arrays)).eval()
    labels = {name: np.array(data[name], np.int64) for name in ("train_y", "test_y", "score_y")}
    image = torch.zeros(1, 3, *data["test_x"].shape[1:3])
    test = data["test_x"], labels["test_y"]
    found = {"macs": [macs(network, image)], "accuracy": [accuracy(network, *test)]}
    prune(network, importance, float(share), image, data["score_x"], labels["score_y"])
    found["macs"].append(macs(network, image))
    found["accuracy"].append(accuracy(network, *test))
    size, rate = settings["batch_size"], settings["learning_rate"]
    fine_tune(network, data["train_x"], labels["train_y"], size, rate)
    found["accuracy"].append(accuracy(network, *test))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
