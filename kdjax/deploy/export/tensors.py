"""student.safetensors: the trained tensors under the names of PyTorch's packages."""

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
    place: Path, model: str, variables: dict[str, Any], facts: Mapping[str, str], trust: Trust | None = None
) -> None:
    """student.safetensors in the first naming of the network, and the names of its tensors in its aliases.

    Args:
        place: the folder.
        model: name of the network.
        variables: of the student.
        facts: what the other files say of themselves; its classes, bands and value range are needed to read this
            one, and "mean" and "std" of its channels in [0, 1], as its pixels are not normalized inside.
        trust: of its answers.
    """
    tensors = pretrained.named_tensors(model, variables)
    counters = {
        name.replace("running_mean", "num_batches_tracked"): np.zeros((), np.int64)  # PyTorch reads it in training only
        for name in tensors
        if name.endswith("running_mean")
    }
    # Its own writer has an exception of its own for a full disk.
    known = {name: facts[name] for name in ("classes", "bands", "value_range", "mean", "std") if name in facts}
    metadata = {"format": "pt", **known, **(trust.metadata() if trust else {})}
    content = _with_metadata(save(tensors | counters), metadata)
    files.write_bytes(place / "student.safetensors", content)
    for naming in MODELS[model].aliases:
        # Both tables list the same leaves in the same order.
        names = dict(zip(tensors, pretrained.named_tensors(model, variables, naming), strict=True))
        names |= {
            counter: names[counter.replace("num_batches_tracked", "running_mean")].replace(
                "running_mean", "num_batches_tracked"
            )
            for counter in counters
        }
        (place / f"{naming}_names.json").write_text(json.dumps(names, indent=1) + "\n", encoding="utf-8")


def _with_metadata(content: bytes, metadata: dict[str, str]) -> bytes:
    """The content of a safetensors file, with metadata: safetensors itself writes these in an order of chance."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps({"__metadata__": metadata, **json.loads(content[8:start])}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at multiples of 8
    return len(header).to_bytes(8, "little") + header + content[start:]
