"""A run: its configuration, working directory, devices and data, checked against each other before anything starts."""

import dataclasses
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from kdjax import config as configuration
from kdjax import data as datasets
from kdjax import networks
from kdjax.errors import InputError
from kdjax.run import other_run
from kdjax.runtime import files, memory
from kdjax.runtime.devices import Mapping, first_process_says, for_population


@dataclasses.dataclass
class Run:
    """What all stages share."""

    config: ml_collections.ConfigDict
    workdir: Path
    cache_dir: Path
    mapping: Mapping
    population_mapping: Mapping
    dataset: datasets.Dataset
    log: Callable[[str], None]
    follows: bool
    """Whether another process writes this run: then only `evaluation/` is written here."""

    @property
    def dtype(self) -> Any:
        """Compute dtype of the networks."""
        name = self.config.dtype
        if name == "auto":
            name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
        return jnp.dtype(name)

    @property
    def results_dir(self) -> Path:
        """Where the figures are written."""
        return self.workdir / "evaluation" if self.follows else self.workdir

    @property
    def teacher_size(self) -> int:
        """Side of the teacher's input, px."""
        return self.config.teacher.image_size or self.config.dataset.image_size

    @property
    def student_size(self) -> int:
        """Side of the students' input, px."""
        return self.config.dataset.image_size

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms, in the order of their axis."""
        return tuple(self.config.distill.arms)

    def on_device(self, images: np.ndarray) -> bool:
        """Whether all these images are held on the devices, or read from the host as they are needed."""
        if self.config.run.images != "auto":
            return self.config.run.images == "device"
        return images.nbytes <= memory.capacity(self.mapping.local[0]) // 4

    def network(self, stage: str) -> nn.Module:
        """The teacher's or the students' network."""
        config = self.config[stage]
        options: dict[str, Any] = {"dropout": config.dropout, "dtype": self.dtype}
        on_cpu = jax.default_backend() == "cpu"
        if config.model.startswith("vgg"):
            options["head"] = self.config.teacher.head
            options["convolution"] = _resolved(self.config.teacher.convolution, "winograd" if on_cpu else "conv")
        else:
            options["depthwise"] = _resolved(self.config.student.depthwise, "shift" if on_cpu else "conv")
        return networks.create(config.model, num_classes=len(self.dataset.classes), width=config.width, **options)


def _resolved(form: str, fastest: str) -> str:
    return fastest if form == "auto" else form


def open_run(
    config: ml_collections.ConfigDict,
    workdir: Path,
    cache_dir: Path,
    log: Callable[[str], None],
    *,
    follows: bool = False,
    one_of_splits: bool = False,
) -> Run:
    """Checks the configuration against the working directory, the data and the devices, and loads the data.

    Args:
        config: the configuration.
        workdir: the working directory; made if absent, unless `follows`.
        cache_dir: for decoded images and teacher logits.
        log: takes lines for the person who waits.
        follows: another process writes this run; this one writes `evaluation/` only, and holds no lock.
        one_of_splits: other runs differ from this one in their data seed, which must therefore change the test split.

    Raises:
        InputError: names what does not fit. Nothing was written into `workdir` then.
    """
    configuration.validate(config)
    document = json.loads(config.to_json())
    # Until there is a checkpoint the directory may change its mind.
    begun = any(workdir.glob("*/checkpoints/[0-9]*"))
    if begun:
        before = configuration.completed(_record(workdir, "config.json"))
        found = configuration.first_difference({**document, "run": None}, {**before, "run": None})
        if found:
            raise InputError(f"workdir {workdir} holds a run of another config: {found}; choose another workdir")
    mapping = Mapping()
    population = for_population(len(config.seeds), len(config.distill.arms))
    if config.teacher.workdir:
        other_run.check_config(config)
    trained = ("student",) if configuration.given_teacher(config) else ("teacher", "student")
    for stage in trained:
        shared_out = mapping if stage == "teacher" else population
        if shared_out.axis_name and config[stage].batch_size % len(mapping.devices):
            raise InputError(
                f"{stage}.batch_size is {config[stage].batch_size}: must be divisible by the "
                f"{len(mapping.devices)} devices"
            )
        source = config[stage].weights
        if source and source.endswith(".safetensors") and not Path(source).is_file():
            raise InputError(f"{stage}.weights: no file {source}")
    if config.teacher.onnx and not Path(config.teacher.onnx).is_file():
        raise InputError(f"teacher.onnx: no file {config.teacher.onnx}")
    for folder in config.distill.logits:
        if not (Path(folder) / "parts.json").is_file():
            raise InputError(f"distill.logits: {folder} is no folder of teacher logits: it has no parts.json")
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=cache_dir).close()
    except OSError as error:
        raise InputError(
            f"run.cache_dir: {cache_dir} cannot be written ({error.strerror}): set it to a folder that can"
        ) from None
    dataset = datasets.load(**config.dataset, data_seed=config.data_seed, cache_dir=cache_dir, log=log)
    if begun:
        _check_same_data(workdir, dataset, log)
    if one_of_splits and dataset.overlap is None:
        raise InputError(
            f"splits: {dataset.name} has a test split of its own, the same for every data_seed: set splits=1, and more "
            "seeds for repetitions"
        )
    if config.teacher.workdir:
        other_run.check_data(config, dataset, log)
    images = {"teacher": int((dataset.train.labels >= 0).sum()), "student": len(dataset.train.labels)}
    for stage in trained:
        if config[stage].batch_size > images[stage]:
            raise InputError(
                f"{stage}.batch_size is {config[stage].batch_size}, more than the {images[stage]} images it is "
                "trained on"
            )
    log(
        f"data: {dataset.name}, {len(dataset.classes)} classes, {len(dataset.train.labels)} training, "
        f"{len(dataset.validation.labels)} validation, {len(dataset.test.labels)} test images"
    )
    for note in dataset.notes:
        log(f"data: {note}")
    run = Run(config, workdir, cache_dir, mapping, population, dataset, log, follows)
    run.network("teacher"), run.network("student")
    if follows:
        return run
    first = jax.process_index() == 0
    if not first_process_says(first and _locked(workdir)):
        raise InputError(
            f"workdir {workdir} is in use: another run writes to it; wait for it or choose another workdir"
        )
    if first:
        files.write_json(workdir / "config.json", document)
        files.write_json(workdir / "splits.json", _splits(dataset))
    return run


def _locked(workdir: Path) -> bool:
    """Whether this process got the lock of the working directory, until it ends."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        files.lock(workdir / ".lock")
    except BlockingIOError:
        return False
    except OSError as error:
        raise InputError(f"workdir {workdir} cannot be written ({error.strerror}): choose another workdir") from None
    return True


def _record(workdir: Path, name: str) -> dict[str, Any]:
    """What a run with checkpoints has written down of itself."""
    try:
        return json.loads((workdir / name).read_text())
    except (OSError, ValueError):
        raise InputError(
            f"workdir {workdir} holds checkpoints, but no readable {name} that tells of which run: put it back or "
            "choose another workdir"
        ) from None


def _splits(dataset: datasets.Dataset) -> dict[str, Any]:
    """The content of splits.json: the splits, and what tells whether their names still mean the same images."""
    return {**dataset.splits_document(), "fingerprint": dataset.fingerprint}


def _check_same_data(workdir: Path, dataset: datasets.Dataset, log: Callable[[str], None]) -> None:
    """Refuses data of other names than the run's; other pixels under the same names are told.

    Other versions of the decoding libraries may change the last bit of a pixel. Other names would put images that were
    trained on among those that measure.
    """
    before, now = _record(workdir, "splits.json"), _splits(dataset)
    for side in now.keys() - {"fingerprint"}:
        differing = set(before.get(side, ())) ^ set(now[side])
        if differing:
            raise InputError(
                f"workdir {workdir} holds a run on other data: {len(differing)} names under {side!r} of its "
                f"splits.json differ, such as {min(differing)}: put the data back or choose another workdir"
            )
    if before.get("fingerprint", now["fingerprint"]) != now["fingerprint"]:
        log("data: the images are not those that this run began with: decoded by other versions, or changed")
