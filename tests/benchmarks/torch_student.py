"""Accuracy of the student alone in plain PyTorch, on the split of a config, to hold kdjax's own against.

    python tests/benchmarks/torch_student.py --config=configs/uc_merced.py:128 --json=torch_student.json \\
        --config.dataset.path=uc_merced.zip --config.student.weights=mobilenet_v2.safetensors --config.seeds="(0,1,2)"

The same images, split, start, epochs and batch; the rest is PyTorch's and Pillow's own: AdamW with the one-cycle
schedule, gradients clipped at norm 1, the eight symmetries of the square and a random resized crop. Measured are the
weights of the last step. `--with_validation` trains on the validation images as well.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
from absl import app, flags
from ml_collections import config_flags
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

import torch_reference  # noqa: E402

from kdjax import data  # noqa: E402

_CONFIG = config_flags.DEFINE_config_file("config", None, "File with get_config().", lock_config=True)
_JSON = flags.DEFINE_string("json", None, "File for the figures.", required=True)
_WITH_VALIDATION = flags.DEFINE_bool("with_validation", False, "Train on the validation images as well.")
_CACHE = flags.DEFINE_string("cache", str(Path.home() / ".cache" / "kdjax"), "For decoded images.")


def view(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A random resized crop of 50 to 100 % of the area in one of eight orientations, uint8."""
    side, area, ratio = len(image), rng.uniform(0.5, 1), math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    width, height = (min(side, side * math.sqrt(area * root)) for root in (ratio, 1 / ratio))
    left, top = rng.uniform(0, side - width), rng.uniform(0, side - height)
    picture = Image.fromarray(image).resize((size, size), Image.BILINEAR, (left, top, left + width, top + height))
    pixels = np.rot90(np.asarray(picture), rng.integers(4))
    return pixels[:, ::-1] if rng.integers(2) else pixels


def batch_of(images: list[np.ndarray]) -> torch.Tensor:
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return pixels.contiguous(memory_format=torch.channels_last)


def trained(config, images: np.ndarray, labels: np.ndarray, classes: int, seed: int) -> torch.nn.Module:
    student, size = config.student, config.dataset.image_size
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = torch_reference.MobileNetV2(classes, width=student.width, dropout=student.dropout)
    if student.weights:
        weights = {name: tensor.float() for name, tensor in load_file(student.weights).items()}
        missing = model.load_state_dict(weights, strict=False).missing_keys
        assert {name.split(".")[0] for name in missing if not name.endswith("num_batches_tracked")} == {"classifier"}
    model = model.to(memory_format=torch.channels_last).train()
    steps = math.ceil(len(images) / student.batch_size) * student.epochs
    optimizer = torch.optim.AdamW(model.parameters(), student.learning_rate, weight_decay=student.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, student.learning_rate, total_steps=steps)
    for epoch in range(student.epochs):
        for rows in np.array_split(rng.permutation(len(images)), steps // student.epochs):
            loss = functional.cross_entropy(
                model(batch_of([view(images[row], size, rng) for row in rows])), torch.from_numpy(labels[rows]).long()
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), student.clip)
            optimizer.step()
            schedule.step()
        print(f"seed {seed}, epoch {epoch + 1}: loss {loss.item():.3f}", flush=True)
    return model.eval()


@torch.inference_mode()
def top1(model: torch.nn.Module, split: data.Split, size: int) -> float:
    shown = [np.asarray(Image.fromarray(image).resize((size, size), Image.BILINEAR)) for image in split.images]
    logits = torch.cat([model(batch_of(shown[start : start + 64])) for start in range(0, len(shown), 64)])
    return float((logits.argmax(1).numpy() == split.labels).mean())


def main(argv: list[str]) -> None:
    config = _CONFIG.value
    Path(_CACHE.value).mkdir(parents=True, exist_ok=True)
    dataset = data.load(**config.dataset, data_seed=config.data_seed, cache_dir=Path(_CACHE.value), log=print)
    parts = [dataset.train.labeled(), *([dataset.validation] if _WITH_VALIDATION.value else [])]
    images, labels = (np.concatenate([getattr(part, name) for part in parts]) for name in ("images", "labels"))
    found = {"training_images": len(images), "seeds": list(config.seeds), "val_top1": [], "test_top1": []}
    for seed in config.seeds:
        model = trained(config, images, labels, len(dataset.classes), seed)
        found["test_top1"].append(top1(model, dataset.test, config.dataset.image_size))
        found["val_top1"].append(top1(model, dataset.validation, config.dataset.image_size))
        print(found, flush=True)
    Path(_JSON.value).write_text(json.dumps({**found, "command": sys.argv}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
