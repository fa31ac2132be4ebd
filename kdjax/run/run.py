"""A run: its configuration, working directory, devices and data, checked against each other before anything starts."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from kdjax import data as datasets
from kdjax import networks
from kdjax.data.bands import RGB
from kdjax.data.dataset import Dataset
from kdjax.data.rows import Images
from kdjax.errors import InputError
from kdjax.fields import INT32_MAX
from kdjax.inputs.augment import Augmentation
from kdjax.objective.arms import resolve
from kdjax.objective.outputs import Outputs
from kdjax.results.comparison import judged_by
from kdjax.run import checks, folders, network_bands, other_run, record
from kdjax.run.arms import arm_settings, common_weights, student_arms, teacher_arms
from kdjax.run.augmentation import augmentation
from kdjax.run.network_bands import TakenBands, frozen, taken
from kdjax.run.onnx_teacher import declared
from kdjax.run.teacher_source import given_field
from kdjax.runtime import devices, files, memory, temporary
from kdjax.teacher.onnx import opened
from kdjax.training.learner import Learner


@dataclasses.dataclass(frozen=True)
class Run:
    """What all stages share.

    Attributes:
        config: the configuration, with the dtype that the run computes in.
        workdir: its directory.
        cache_dir: for decoded images and teacher logits.
        dataset: its data.
        teacher: the teacher, where it is a network of kdjax's; its folder may be another run's.
        student: the students.
        log: takes lines for the person who waits.
        follows: whether another process writes this run: then only `evaluation/` is written here.
    """

    config: ml_collections.ConfigDict
    workdir: Path
    cache_dir: Path
    dataset: Dataset
    teacher: Learner | None
    student: Learner
    log: Callable[[str], None]
    follows: bool = False

    @property
    def results_dir(self) -> Path:
        """Where the figures are written."""
        return self.workdir / "evaluation" if self.follows else self.workdir

    @property
    def teacher_size(self) -> int:
        """Side of the teacher's input, px, whatever kind it is."""
        return self.config.teacher.image_size or self.config.dataset.image_size

    @property
    def augmentation(self) -> Augmentation:
        """How training views differ from their images. Color is that of red, green and blue alone."""
        asked = augmentation(self.config.dataset.augmentation)
        if self.dataset.meaning.bands is None:
            return asked
        return dataclasses.replace(asked, brightness=0.0, contrast=0.0, saturation=0.0)

    def on_device(self, images: Images, stored: Outputs | None = None) -> bool:
        """Whether these images and what the teacher said of their views lie on the devices, or are read as needed."""
        if self.config.run.images != "auto":
            return self.config.run.images == "device"
        return images.nbytes + memory.tree_bytes(stored) <= _capacity(self.student) // 4


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
    checks.validate(config)
    begun = record.begun(workdir)
    config, document = record.with_dtype(config, workdir, goes_on=begun, follows=follows)
    if begun:
        record.check_same_config(workdir, document)
    if other_run.named(config):
        other_run.check_config(config)
    folders.make_cache(cache_dir)
    dataset = datasets.load(config.dataset, data_seed=config.data_seed, cache_dir=cache_dir, log=log)
    if not devices.same(dataset.fingerprint):
        raise InputError(
            "dataset: the processes of this run found different images or labels: give all of them the same files, and "
            "the same versions of the libraries that decode them"
        )
    if begun:
        record.check_same_data(workdir, dataset, config.dataset.path, log)
        dataset = network_bands.as_begun(workdir, dataset)
    if one_of_splits and dataset.overlap is None:
        raise InputError(
            f"splits: {dataset.name} has a test split of its own, the same for every data_seed: set splits=1, and more "
            "seeds for repetitions"
        )
    if other_run.named(config):
        other_run.check_data(config, dataset, log)
    _log_data(config, dataset, log)
    teacher = _teacher(config, workdir, dataset, log)
    student = _student(config, workdir, dataset, teacher, log)
    run = Run(config, workdir, cache_dir, dataset, teacher, student, log, follows)
    _check_memory(run)
    if teacher is not None and not teacher.read_only and config.teacher.fit == "all":
        _check_batch(teacher)
    _check_batch(student)
    if follows:
        return dataclasses.replace(run, student=dataclasses.replace(student, read_only=True))
    folders.lock(workdir)
    if not begun and devices.first_process_says(record.begun(workdir)):
        raise InputError(
            f"workdir {workdir}: another run began there while this one read its images: repeat the command to go on "
            "with that run, or choose another workdir"
        )
    if jax.process_index() == 0:
        files.sweep(workdir, ("teacher", "distill", "evaluation"))
        temporary.sweep(workdir)
        files.write_json(workdir / "config.json", document)
        if not begun:  # what a run began with stays what it is compared with
            files.write_json(workdir / "splits.json", record.splits_document(dataset))
        if (bands := network_bands.document(dataset)) is not None:
            files.write_json(workdir / network_bands.NAME, bands)
        else:  # of a configuration that trained nothing here
            (workdir / network_bands.NAME).unlink(missing_ok=True)
    return run


def _teacher(
    config: ml_collections.ConfigDict, workdir: Path, dataset: Dataset, log: Callable[[str], None]
) -> Learner | None:
    """The teacher where it is a network of kdjax's: this run's, or another's."""
    section = config.teacher
    if given_field(config) not in (None, "teacher.workdir"):
        return None
    examples = int((dataset.train.labels >= 0).sum())
    (other,) = other_run.named(config) if section.workdir else (None,)
    folder = other.folder if other else workdir / "teacher"
    bands = frozen(section, folder, taken("teacher", section.bands, dataset, other), dataset)
    return Learner(
        name="teacher",
        folder=folder,
        section=section,
        network=_network(config, section, dataset, bands),
        size=section.image_size or config.dataset.image_size,
        examples=examples,
        total_steps=_teacher_steps(config, examples),
        seeds=(section.seed,),
        arms=teacher_arms(section, common_weights(config, dataset)),
        mapping=devices.DeviceMapping(),
        log=log,
        read_only=bool(section.workdir),
        bands=bands.names if bands else RGB,
        selected_by=judged_by({"class_counts": dataset.class_counts}),
    )


def _student(
    config: ml_collections.ConfigDict,
    workdir: Path,
    dataset: Dataset,
    teacher: Learner | None,
    log: Callable[[str], None],
) -> Learner:
    section, examples, arms = config.student, len(dataset.train), student_arms(config, dataset)
    bands = taken("student", section.bands, dataset)
    network, projection = _network(config, section, dataset, bands), None
    if any(arm.projected for arm in arms):
        # `validate` has refused teachers without features: without a network this is an encoder.
        projection = (
            networks.feature_count(network, config.dataset.image_size),
            networks.feature_count(teacher.network, teacher.size)
            if teacher is not None
            else opened(
                config.teacher.onnx,
                declared(config.teacher, dataset),
                config.teacher.image_size or config.dataset.image_size,
            ).length,
        )
    return Learner(
        name="student",
        folder=workdir / "distill",
        section=section,
        network=network,
        size=config.dataset.image_size,
        examples=examples,
        total_steps=_total_steps(section, examples),
        seeds=tuple(config.seeds),
        arms=arms,
        mapping=devices.for_population(len(config.seeds), len(arms))[0],
        log=log,
        projection=projection,
        bands=bands.names if bands else RGB,
        selected_by=judged_by({"class_counts": dataset.class_counts}),
    )


def other_networks(run: Run, other: other_run.OtherRun) -> Learner:
    """The networks of another run that this one takes as teacher, read only.

    Raises:
        InputError: they are not there.
    """
    there = ml_collections.ConfigDict(other.config())
    section = there[other.section]
    if other.section == "teacher":
        seeds, projection, steps = [section.seed], None, other_run.total_steps(other)
        arms, mapping = teacher_arms(section), devices.DeviceMapping()
    else:
        program = other_run.trained_students(other)
        seeds, projection, steps = program["seeds"], program["projection"], program["steps"]
        settings = arm_settings(there.arms)
        arms = resolve(tuple(program["arms"]), settings, temperature=1.0, learning_rate=1.0, weight_decay=0.0)
        mapping = devices.for_population(len(seeds), len(arms))[0]
    where = f"{other.field}: {other.workdir}: {other.section}"
    bands = frozen(section, other.folder, taken(where, section.get("bands", ()), run.dataset, other), run.dataset)
    return Learner(
        name=other.section,
        folder=other.folder,
        section=section,
        network=_network(run.config, section, run.dataset, bands),
        size=section.get("image_size") or there.dataset.image_size,
        examples=len(run.dataset.train),
        total_steps=steps,
        seeds=tuple(seeds),
        arms=arms,
        mapping=mapping,
        log=run.log,
        read_only=True,
        projection=projection and tuple(projection),
        bands=bands.names if bands else RGB,
    )


def _network(
    config: ml_collections.ConfigDict,
    section: ml_collections.ConfigDict,
    dataset: Dataset,
    bands: TakenBands | None,
) -> Any:
    """A learner's network, in the layout that is fast on this backend unless the user says otherwise."""
    form = config.run.form
    if form == "auto":
        form = "examples_last" if jax.default_backend() == "cpu" else "examples_first"
    network = networks.create(
        section.model,
        len(dataset.classes),
        width=section.width,
        head=section.head,
        dropout=section.dropout,
        form=form,
        dtype=jnp.dtype(config.dtype),
    )
    return network.clone(bands=bands.input) if bands else network


def _total_steps(section: ml_collections.ConfigDict, examples: int) -> int:
    """Updates of a stage with this configuration on so many examples."""
    total = -(-section.epochs * examples // section.batch_size)
    if total > INT32_MAX:
        raise InputError(f"epochs is {section.epochs}: {total} steps are more than kdjax can count")
    return total


def _teacher_steps(config: ml_collections.ConfigDict, examples: int) -> int:
    if config.teacher.workdir:
        (other,) = other_run.named(config)
        return other_run.total_steps(other)
    return _total_steps(config.teacher, examples) if config.teacher.fit == "all" else 1


def _check_memory(run: Run) -> None:
    """Refuses images that were asked onto a device that cannot hold them."""
    held, there = run.dataset.train.images.nbytes, _capacity(run.student)
    if run.config.run.images == "device" and held > there:
        raise InputError(
            f"run.images is 'device', but the training images take {held / 1e9:.1f} GB and a device has "
            f"{there / 1e9:.1f} GB: set it to 'auto' or 'host'"
        )


def _capacity(learner: Learner) -> int:
    """Bytes of the device of the smallest process: where images lie shapes the program, which all must share.

    Of a CPU's cores that of a single device: where several would hold the images once too often, fewer train.
    """
    return devices.least(memory.capacity(devices.for_population(*learner.rows)[-1].local))


def _check_batch(learner: Learner) -> None:
    """Whether a batch can be had of a learner's examples and shared out over its devices, unless it has ended."""
    size, count = learner.section.batch_size, len(learner.mapping.devices)
    if learner.has_ended:
        return
    if learner.mapping.axis_name and size % count:
        raise InputError(f"{learner.name}.batch_size is {size}: must be divisible by the {count} devices")
    if size > learner.examples:
        raise InputError(f"{learner.name}.batch_size is {size}, more than its {learner.examples} training images")


def _log_data(config: ml_collections.ConfigDict, dataset: Dataset, log: Callable[[str], None]) -> None:
    log(
        f"data: {dataset.name}, {len(dataset.classes)} classes, {len(dataset.train.labels)} training, "
        f"{len(dataset.validation.labels)} validation, {len(dataset.test.labels)} test images"
    )
    for note in dataset.notes:
        log(f"data: {note}")
    if dataset.statistics is not None:
        log("data: views differ in crop and orientation; brightness, contrast and saturation are for RGB alone")
    weights = common_weights(config, dataset)
    if weights:
        listed = ", ".join(f"{name} {weight:.3g}" for name, weight in zip(dataset.classes, weights, strict=True))
        log(f"data: class weights, of mean 1 over the labeled images that are drawn: {listed}")
    drawn = set(dataset.train.labels.tolist())
    missing = [name for label, name in enumerate(dataset.classes) if label not in drawn]
    if missing and (weights or config.dataset.sampling == "balanced"):
        log(f"data: warning: no training image of {', '.join(missing)} has a label, and neither weights nor draws help")
