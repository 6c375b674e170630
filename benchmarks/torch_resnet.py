"""The CIFAR ResNet of `kdtoolkit.models` in PyTorch, and its train step, as a peer to time."""

import torch
from torch import nn
from torch.nn import functional


def conv_bn(inputs, outputs, size, stride=1):
    conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out")
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Block(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        self.first = conv_bn(inputs, width, 3, stride)
        self.second = conv_bn(width, width, 3)
        same = inputs == width
        self.shortcut = nn.Identity() if same else conv_bn(inputs, width, 1, stride)

    def forward(self, x):
        y = functional.relu(self.first(x))
        return functional.relu(self.second(y) + self.shortcut(x))


def resnet(depth, classes):
    """ResNet of `depth = 6n + 2` layers; memory format channels last."""
    layers, inputs = [conv_bn(3, 16, 3), nn.ReLU()], 16
    for width in (16, 32, 64):
        for block in range((depth - 2) // 6):
            layers.append(Block(inputs, width, 2 if block == 0 and width > 16 else 1))
            inputs = width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes)]
    return nn.Sequential(*layers, *head).to(memory_format=torch.channels_last)


class Training:
    """Steps of SGD on repeated batches, with the figures that a training loop shows.

    Args:
        network: returns logits.
        batches: pairs of NumPy arrays, images `(batch, height, width, 3)` and class indices.
        teacher: returns logits of the same classes, or None.
        teacher_weight: of `KL(teacher || network)`; the labels have the rest.
        compiled: whether `torch.compile` compiles the networks.
        bfloat16: whether they compute under `torch.autocast`.
        **optimizer: arguments of `torch.optim.SGD`.
    """

    def __init__(
        self,
        network,
        batches,
        teacher=None,
        teacher_weight=0.0,
        *,
        compiled=False,
        bfloat16=False,
        **optimizer,
    ):
        self.bfloat16 = bfloat16
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        prepare = torch.compile if compiled else (lambda network: network)
        self.network = prepare(network.to(self.device).train())
        self.teacher = teacher and prepare(teacher.to(self.device).eval())
        self.teacher_weight = teacher_weight
        self.optimizer = torch.optim.SGD(network.parameters(), **optimizer)
        # From (batch, height, width, 3), a transposed view is channels last without a copy.
        self.batches = [
            (torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(y).long())
            for x, y in batches
        ]
        self.step = 0
        self.loss = torch.zeros((), device=self.device)
        self.correct = torch.zeros((), dtype=torch.int64, device=self.device)

    def run(self, steps):
        for _ in range(steps):
            x, y = self.batches[self.step % len(self.batches)]
            self.step += 1
            self._train(x.to(self.device), y.to(self.device))
        self.loss.item()
        if self.device == "cuda":
            torch.cuda.synchronize()

    def _train(self, x, y):
        logits = self._logits(self.network, x)
        loss = functional.cross_entropy(logits, y)
        if self.teacher is not None:
            with torch.inference_mode():
                target = functional.log_softmax(self._logits(self.teacher, x), dim=-1)
            taught = functional.kl_div(
                functional.log_softmax(logits, dim=-1),
                target,
                reduction="batchmean",
                log_target=True,
            )
            loss = (1 - self.teacher_weight) * loss + self.teacher_weight * taught
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.inference_mode():
            self.loss += loss.detach()
            self.correct += (logits.argmax(dim=-1) == y).sum()

    def _logits(self, network, x):
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bfloat16):
            return network(x).float()
