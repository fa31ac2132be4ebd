"""Writes student.safetensors: the trained tensors under the names of PyTorch packages."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from kdjax.deploy.trust import Trust
from kdjax.networks import MODELS, pretrained
from kdjax.runtime import files


def write(
    directory: Path, model: str, variables: dict[str, Any], metadata: Mapping[str, str], trust: Trust | None = None
) -> None:
    """Writes student.safetensors with the model's first naming, and a file of tensor names for each alias.

    Args:
        directory: the folder to write to.
        model: a key of `networks.MODELS`.
        variables: of the student.
        metadata: of the other files of the export. Of these, the classes, bands and value range are copied; so are
            "mean" and "std" of the channels in [0, 1], because this file leaves the normalization of pixels to its
            reader.
        trust: fitted to student.onnx, which computes the same function.
    """
    tensors = pretrained.named_tensors(model, variables)
    counters = {
        name.replace("running_mean", "num_batches_tracked"): np.zeros((), np.int64)  # PyTorch uses it only in training
        for name in tensors
        if name.endswith("running_mean")
    }
    fields = {name: metadata[name] for name in ("classes", "bands", "value_range", "mean", "std") if name in metadata}
    header = {"format": "pt", **fields, **(trust.metadata() if trust else {})}
    content = _with_metadata(save(tensors | counters), header)
    # Not safetensors' own writer, which raises its own exception if the disk is full.
    files.write_bytes(directory / "student.safetensors", content)
    for naming in MODELS[model].aliases:
        # Both tables list the same leaves in the same order.
        names = dict(zip(tensors, pretrained.named_tensors(model, variables, naming), strict=True))
        names |= {
            counter: names[counter.replace("num_batches_tracked", "running_mean")].replace(
                "running_mean", "num_batches_tracked"
            )
            for counter in counters
        }
        (directory / f"{naming}_names.json").write_text(json.dumps(names, indent=1) + "\n", encoding="utf-8")


def _with_metadata(content: bytes, metadata: dict[str, str]) -> bytes:
    """Adds metadata to the content of a safetensors file; safetensors itself would write them in a random order."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps({"__metadata__": metadata, **json.loads(content[8:start])}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors must start at multiples of 8 bytes
    return len(header).to_bytes(8, "little") + header + content[start:]
