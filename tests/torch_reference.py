"""Plain PyTorch VGG16, MobileNetV2 and MobileNetV3 with torchvision's names, to hold kdjax's networks against."""

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


def conv_norm_v3(inputs, outputs, kernel, stride=1, groups=1, activation=None, eps=1e-3):
    parts = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=eps, momentum=0.01),
    ]
    return nn.Sequential(*parts, *([activation()] if activation else []))


class SqueezeExcitation(nn.Module):
    def __init__(self, channels):
        super().__init__()
        squeezed = divisible(channels // 4)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x):
        scale = self.fc2(torch.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return nn.functional.hardsigmoid(scale) * x


class InvertedResidualV3(nn.Module):
    def __init__(self, inputs, kernel, hidden, outputs, excite, activation, stride, eps):
        super().__init__()
        parts = []
        if hidden != inputs:
            parts.append(conv_norm_v3(inputs, hidden, 1, activation=activation, eps=eps))
        parts.append(conv_norm_v3(hidden, hidden, kernel, stride, hidden, activation, eps))
        if excite:
            parts.append(SqueezeExcitation(hidden))
        parts.append(conv_norm_v3(hidden, outputs, 1, eps=eps))
        self.block = nn.Sequential(*parts)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.block(x) if self.residual else self.block(x)


V3 = {  # kernel, hidden, outputs, squeeze and excite, hard swish, stride; features in front of the logits
    "small": (
        "3 16 16 1 0 2, 3 72 24 0 0 2, 3 88 24 0 0 1, 5 96 40 1 1 2, 5 240 40 1 1 1, 5 240 40 1 1 1, 5 120 48 1 1 1, "
        "5 144 48 1 1 1, 5 288 96 1 1 2, 5 576 96 1 1 1, 5 576 96 1 1 1",
        1024,
    ),
    "large": (
        "3 16 16 0 0 1, 3 64 24 0 0 2, 3 72 24 0 0 1, 5 72 40 1 0 2, 5 120 40 1 0 1, 5 120 40 1 0 1, 3 240 80 0 1 2, "
        "3 200 80 0 1 1, 3 184 80 0 1 1, 3 184 80 0 1 1, 3 480 112 1 1 1, 3 672 112 1 1 1, 5 672 160 1 1 2, "
        "5 960 160 1 1 1, 5 960 160 1 1 1",
        1280,
    ),
}


class MobileNetV3(Normalized):
    def __init__(self, num_classes, size, width=1.0, dropout=0.2, eps=1e-3):
        super().__init__()
        rows, features = V3[size]
        inputs = divisible(16 * width)
        parts = [conv_norm_v3(3, inputs, 3, 2, activation=nn.Hardswish, eps=eps)]
        for row in rows.split(", "):
            kernel, hidden, outputs, excite, hard_swish, stride = map(int, row.split())
            hidden, outputs = divisible(hidden * width), divisible(outputs * width)
            activation = nn.Hardswish if hard_swish else nn.ReLU
            parts.append(InvertedResidualV3(inputs, kernel, hidden, outputs, excite, activation, stride, eps))
            inputs = outputs
        parts.append(conv_norm_v3(inputs, 6 * inputs, 1, activation=nn.Hardswish, eps=eps))
        self.features = nn.Sequential(*parts)
        last = divisible(features * width)
        self.classifier = nn.Sequential(
            nn.Linear(6 * inputs, last), nn.Hardswish(), nn.Dropout(dropout), nn.Linear(last, num_classes)
        )

    def forward(self, x):
        return self.classifier(self.features(self.normalize(x)).mean((2, 3)))
