"""Plain PyTorch VGG16 and MobileNetV2 with torchvision's state-dict names, to hold kdjax's networks against."""

from __future__ import annotations

import torch
from torch import nn

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Normalized(nn.Module):
    """Adds the normalization that kdjax's networks do inside; images are (b, 3, H, W) in [0, 1]."""

    def __init__(self):
        super().__init__()
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).reshape(1, 3, 1, 1), persistent=False)

    def normalize(self, x):
        return (x - self.mean) / self.std


class VGG16(Normalized):
    def __init__(self, num_classes, width=1.0, head="average", dropout=0.0, batch_norm=False):
        super().__init__()
        plan = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"]
        scaled = lambda channels: max(8, round(channels * width / 8) * 8)
        parts, inputs = [], 3
        for item in plan:
            if item == "M":
                parts.append(nn.MaxPool2d(2, 2))
                continue
            parts.append(nn.Conv2d(inputs, scaled(item), 3, padding=1))
            if batch_norm:
                parts.append(nn.BatchNorm2d(scaled(item)))
            parts.append(nn.ReLU(inplace=True))
            inputs = scaled(item)
        self.features = nn.Sequential(*parts)
        if head == "fc":
            hidden = scaled(4096)
            self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(7), nn.Flatten())
            self.classifier = nn.Sequential(
                nn.Linear(49 * inputs, hidden),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Linear(hidden, hidden),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Linear(hidden, num_classes),
            )
        else:
            self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.classifier = nn.Linear(inputs, num_classes)

    def forward(self, x):
        return self.classifier(self.pool(self.features(self.normalize(x))))


def conv_norm(inputs, outputs, kernel, stride=1, groups=1):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    def __init__(self, inputs, outputs, stride, expansion):
        super().__init__()
        hidden = inputs * expansion
        parts = [conv_norm(inputs, hidden, 1)] if expansion != 1 else []
        parts += [
            conv_norm(hidden, hidden, 3, stride, hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        self.conv = nn.Sequential(*parts)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.conv(x) if self.residual else self.conv(x)


def divisible(channels):
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class MobileNetV2(Normalized):
    def __init__(self, num_classes, width=1.0, dropout=0.2):
        super().__init__()
        rows = [
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ]
        inputs = divisible(32 * width)
        parts = [conv_norm(3, inputs, 3, 2)]
        for expansion, channels, blocks, stride in rows:
            for block in range(blocks):
                parts.append(
                    InvertedResidual(inputs, divisible(channels * width), stride if block == 0 else 1, expansion)
                )
                inputs = divisible(channels * width)
        last = divisible(1280 * max(1.0, width))
        parts.append(conv_norm(inputs, last, 1))
        self.features = nn.Sequential(*parts)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))

    def forward(self, x):
        return self.classifier(self.features(self.normalize(x)).mean((2, 3)))
