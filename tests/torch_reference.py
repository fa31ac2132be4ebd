"""Plain PyTorch networks with the state-dict names of torchvision or timm, to hold kdjax's networks against."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Normalized(nn.Module):
    """Adds the normalization that kdjax's networks do inside; images are (b, 3, H, W) in [0, 1]."""

    def __init__(self, mean=MEAN, std=STD):
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float64).reshape(1, 3, 1, 1), persistent=False)

    def normalize(self, x):
        return (x - self.mean.to(x.dtype)) / self.std.to(x.dtype)


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
        nn.BatchNorm2d(outputs, eps=eps),
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
    def __init__(self, num_classes, size, width=1.0, dropout=0.2, eps=1e-3, kept=None):
        super().__init__()
        rows, features = V3[size]
        rows = rows.split(", ")
        inputs = divisible(16 * width)
        parts = [conv_norm_v3(3, inputs, 3, 2, activation=nn.Hardswish, eps=eps)]
        for row in rows if kept is None else [rows[place] for place in kept]:
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


class SameConv2d(nn.Conv2d):
    """TensorFlow's 'SAME' padding: what is missing to cover ceil(side / stride) windows, the odd zero last."""

    def forward(self, x):
        (height, width), side, stride = x.shape[2:], self.kernel_size[0], self.stride[0]
        rows, columns = (max(0, side - (stride if n % stride == 0 else n % stride)) for n in (height, width))
        x = functional.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return functional.conv2d(x, self.weight, None, self.stride, 0, 1, self.groups)


class LiteBlock(nn.Module):
    """timm's DepthwiseSeparableConv where `expansion` is 1, else its InvertedResidual."""

    def __init__(self, inputs, outputs, expansion, side, stride):
        super().__init__()
        hidden = inputs * expansion
        depthwise = SameConv2d(hidden, hidden, side, stride, groups=hidden, bias=False)
        norm = lambda channels: nn.BatchNorm2d(channels, eps=1e-3)
        if expansion == 1:
            self.conv_dw, self.bn1 = depthwise, norm(hidden)
            self.conv_pw, self.bn2 = nn.Conv2d(hidden, outputs, 1, bias=False), norm(outputs)
        else:
            self.conv_pw, self.bn1 = nn.Conv2d(inputs, hidden, 1, bias=False), norm(hidden)
            self.conv_dw, self.bn2 = depthwise, norm(hidden)
            self.conv_pwl, self.bn3 = nn.Conv2d(hidden, outputs, 1, bias=False), norm(outputs)
        self.expands, self.residual = expansion != 1, stride == 1 and inputs == outputs

    def forward(self, x):
        relu6 = functional.relu6
        if self.expands:
            y = relu6(self.bn1(self.conv_pw(x)))
            y = self.bn3(self.conv_pwl(relu6(self.bn2(self.conv_dw(y)))))
        else:
            y = self.bn2(self.conv_pw(relu6(self.bn1(self.conv_dw(x)))))
        return x + y if self.residual else y


class EfficientNetLite(Normalized):
    """`repeats` are the blocks of the seven stages, which timm's names do not depend on."""

    def __init__(self, num_classes, repeats=(1, 2, 2, 3, 3, 4, 1), channels=1.0, width=1.0, dropout=0.2):
        super().__init__((127 / 255,) * 3, (128 / 255,) * 3)
        kinds = zip(
            (1, 6, 6, 6, 6, 6, 6),
            (3, 3, 5, 3, 5, 5, 3),
            (16, 24, 40, 80, 112, 192, 320),
            (1, 2, 2, 2, 1, 2, 1),
            repeats,
            strict=True,
        )
        inputs, stages = divisible(32 * width), []
        self.conv_stem = SameConv2d(3, inputs, 3, 2, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs, eps=1e-3)
        for expansion, side, outputs, stride, count in kinds:
            outputs, stage = divisible(outputs * channels * width), []
            for place in range(count):
                stage.append(LiteBlock(inputs, outputs, expansion, side, stride if place == 0 else 1))
                inputs = outputs
            stages.append(nn.Sequential(*stage))
        self.blocks = nn.Sequential(*stages)
        last = divisible(1280 * max(1.0, width))
        self.conv_head = nn.Conv2d(inputs, last, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(last, eps=1e-3)
        self.drop = nn.Dropout(dropout)
        self.classifier = nn.Linear(last, num_classes)

    def forward(self, x):
        x = functional.relu6(self.bn1(self.conv_stem(self.normalize(x))))
        x = functional.relu6(self.bn2(self.conv_head(self.blocks(x))))
        return self.classifier(self.drop(x.mean((2, 3))))


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, inputs, planes, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False), nn.BatchNorm2d(planes)

    def convolved(self, x):
        return self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))

    def forward(self, x):
        return (self.convolved(x) + (self.downsample(x) if hasattr(self, "downsample") else x)).relu()


class Bottleneck(BasicBlock):
    expansion = 4

    def __init__(self, inputs, planes, stride):
        nn.Module.__init__(self)
        self.conv1, self.bn1 = nn.Conv2d(inputs, planes, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv3, self.bn3 = nn.Conv2d(planes, 4 * planes, 1, bias=False), nn.BatchNorm2d(4 * planes)

    def convolved(self, x):
        return self.bn3(self.conv3(self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()))


class ResNet(Normalized):
    """`repeats` are the blocks of the four stages."""

    def __init__(self, num_classes, block="BasicBlock", repeats=(2, 2, 2, 2), width=1.0):
        super().__init__()
        kind = {"BasicBlock": BasicBlock, "Bottleneck": Bottleneck}[block]
        planes = [max(8, round(64 * 2**stage * width / 8) * 8) for stage in range(4)]
        inputs = planes[0]
        self.conv1, self.bn1 = nn.Conv2d(3, inputs, 7, 2, 3, bias=False), nn.BatchNorm2d(inputs)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        for stage, count in enumerate(repeats):
            parts = []
            for place in range(count):
                stride, outputs = 2 if stage > 0 and place == 0 else 1, planes[stage] * kind.expansion
                part = kind(inputs, planes[stage], stride)
                if stride != 1 or inputs != outputs:
                    projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
                    part.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))
                parts.append(part)
                inputs = outputs
            setattr(self, f"layer{stage + 1}", nn.Sequential(*parts))
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x):
        x = self.maxpool(self.bn1(self.conv1(self.normalize(x))).relu())
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return self.fc(x.mean((2, 3)))
