"""A run: configuration, working directory, devices and data, checked against each other before any stage starts."""

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
from kdjax.objective.arms import Arm
from kdjax.objective.outputs import Outputs
from kdjax.results.comparison import judged_by
from kdjax.run import checks, folders, network_bands, other_run, record
from kdjax.run.arms import TEACHER_ARM, common_weights, student_arms
from kdjax.run.augmentation import augmentation
from kdjax.run.network_bands import NetworkBands, bands_of, with_file_statistics
from kdjax.run.onnx_teacher import declared_facts
from kdjax.run.teacher_source import given_field
from kdjax.runtime import devices, files, memory, temporary
from kdjax.teacher.onnx import open_onnx
from kdjax.training.learner import Learner


@dataclasses.dataclass(frozen=True)
class Run:
    """What all stages share.

    Attributes:
        config: the configuration, with the dtype that the run computes in.
        workdir: the run's directory.
        cache_dir: holds decoded images and teacher logits.
        dataset: the data.
        teacher: the teacher if it is a network of kdjax's, otherwise None; its folder may be another run's.
        student: the students.
        arms: the settings of the students, one for each column of their population.
        log: takes lines for the user.
        follows: whether another process writes this run: then only `evaluation/` is written here.
    """

    config: ml_collections.ConfigDict
    workdir: Path
    cache_dir: Path
    dataset: Dataset
    teacher: Learner | None
    student: Learner
    arms: tuple[Arm, ...]
    log: Callable[[str], None]
    follows: bool = False

    @property
    def results_dir(self) -> Path:
        """The folder of results.json."""
        return self.workdir / "evaluation" if self.follows else self.workdir

    @property
    def teacher_size(self) -> int:
        """Side of the teacher's input, px, for every kind of teacher."""
        return self.config.teacher.image_size or self.config.dataset.image_size

    @property
    def selected_by(self) -> str:
        """The figure of `metrics.classification` by which validation ranks steps and arms."""
        return judged_by({"class_counts": self.dataset.class_counts})

    @property
    def augmentation(self) -> Augmentation:
        """How training views differ from their images. Only plain RGB images get color changes."""
        configured = augmentation(self.config.dataset.augmentation)
        if self.dataset.meaning.bands is None:
            return configured
        return dataclasses.replace(configured, brightness=0.0, contrast=0.0, saturation=0.0)

    def on_device(self, images: Images, stored: Outputs | None = None) -> bool:
        """Whether these images and the stored teacher outputs are kept on the devices, or read from the host."""
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
        cache_dir: holds decoded images and teacher logits.
        log: takes lines for the user.
        follows: another process writes this run; this one writes `evaluation/` only, and holds no lock.
        one_of_splits: this run is one of several that differ in their data seed, so the data seed must change the test
            split.

    Raises:
        InputError: names what does not fit. Nothing has been written into `workdir` then.
    """
    begun = folders.holds_run(workdir)
    checks.validate(config, record.begun_sections(workdir))
    config, document = record.with_dtype(config, workdir, goes_on=begun, follows=follows)
    if begun:
        record.check_same_config(workdir, document)
    if other_run.borrowed_runs(config):
        other_run.check_config(config)
    folders.make_cache(cache_dir)
    if not follows:
        folders.try_out(workdir)
    dataset = datasets.load(config.dataset, data_seed=config.data_seed, cache_dir=cache_dir, log=log)
    if not devices.same(dataset.fingerprint):
        raise InputError(
            "dataset: the processes of this run found different images or labels: give all of them the same files, and "
            "the same versions of the libraries that decode them"
        )
    if begun:
        record.check_same_data(workdir, dataset, config.dataset.path, log)
        dataset = network_bands.with_recorded_statistics(workdir, dataset)
    if one_of_splits and dataset.overlap is None:
        raise InputError(
            f"splits: {dataset.name} has a test split of its own, the same for every data_seed: set splits=1, and more "
            "seeds for repetitions"
        )
    if other_run.borrowed_runs(config):
        other_run.check_data(config, dataset, log)
    _log_data(config, dataset, log)
    teacher = _teacher(config, workdir, dataset, log)
    arms = student_arms(config, dataset)
    student = _student(config, workdir, dataset, arms, teacher, log)
    run = Run(config, workdir, cache_dir, dataset, teacher, student, arms, log, follows)
    _check_memory(run)
    if teacher is not None and not teacher.read_only and config.teacher.fit == "all":
        _check_batch(teacher, len(dataset.train.labeled()))
    _check_batch(student, len(dataset.train))
    if follows:
        return dataclasses.replace(run, student=dataclasses.replace(student, read_only=True))
    folders.lock(workdir)
    if not begun and devices.first_process_says(record.has_begun(workdir)):
        raise InputError(
            f"workdir {workdir}: another run began there while this one read its images: repeat the command to go on "
            "with that run, or choose another workdir"
        )
    if jax.process_index() == 0:
        files.sweep(workdir, ("teacher", "distill", "evaluation"))
        temporary.sweep(workdir)
        files.write_json(workdir / "config.json", document)
        if not begun:  # later starts are compared with the splits of the first
            files.write_json(workdir / "splits.json", record.splits_document(dataset))
        if (bands := network_bands.document(dataset)) is not None:
            files.write_json(workdir / network_bands.NAME, bands)
        else:  # left by another configuration, under which nothing was trained here
            (workdir / network_bands.NAME).unlink(missing_ok=True)
    return run


def _teacher(
    config: ml_collections.ConfigDict, workdir: Path, dataset: Dataset, log: Callable[[str], None]
) -> Learner | None:
    """This run's or another run's teacher; None if the teacher is not one network of kdjax's."""
    section = config.teacher
    if given_field(config) not in (None, "teacher.workdir"):
        return None
    (other,) = other_run.borrowed_runs(config) if section.workdir else (None,)
    folder = other.folder if other else workdir / "teacher"
    bands = with_file_statistics(section, folder, bands_of("teacher", section.bands, dataset, other), dataset)
    return Learner(
        name="teacher",
        folder=folder,
        section=section,
        network=_network(config, section, dataset, bands),
        size=section.image_size or config.dataset.image_size,
        total_steps=_teacher_steps(config, len(dataset.train.labeled())),
        seeds=(section.seed,),
        arm_names=tuple(TEACHER_ARM),
        mapping=devices.DeviceMapping(),
        log=log,
        read_only=bool(section.workdir),
        bands=bands.names if bands else RGB,
    )


def _student(
    config: ml_collections.ConfigDict,
    workdir: Path,
    dataset: Dataset,
    arms: tuple[Arm, ...],
    teacher: Learner | None,
    log: Callable[[str], None],
) -> Learner:
    section = config.student
    bands = bands_of("student", section.bands, dataset)
    network, size, projection = _network(config, section, dataset, bands), config.dataset.image_size, None
    if any(arm.projected for arm in arms):
        if teacher is not None:
            length = networks.feature_count(teacher.network, teacher.size)
        else:  # an encoder: `validate` has refused teachers without features
            encoder = config.teacher
            length = open_onnx(encoder.onnx, declared_facts(encoder, dataset), encoder.image_size or size).length
        projection = networks.feature_count(network, size), length
    return Learner(
        name="student",
        folder=workdir / "distill",
        section=section,
        network=network,
        size=size,
        total_steps=_total_steps(section, len(dataset.train)),
        seeds=tuple(config.seeds),
        arm_names=tuple(arm.name for arm in arms),
        mapping=devices.for_population(len(config.seeds), len(arms))[0],
        log=log,
        projection=projection,
        bands=bands.names if bands else RGB,
    )


def other_networks(run: Run, other: other_run.OtherRun) -> Learner:
    """The networks of another run that this run takes as its teacher, read only.

    Raises:
        InputError: that run has no such networks, or their bands do not fit this run's data.
    """
    config = ml_collections.ConfigDict(other.config())
    section = config[other.section]
    if other.section == "teacher":
        seeds, arm_names, projection = [section.seed], TEACHER_ARM, None
        steps, mapping = other_run.total_steps(other), devices.DeviceMapping()
    else:
        program = other_run.trained_students(other)
        seeds, arm_names, projection, steps = (program[key] for key in ("seeds", "arms", "projection", "steps"))
        mapping = devices.for_population(len(seeds), len(arm_names))[0]
    field = f"{other.field}: {other.workdir}: {other.section}"
    bands = bands_of(field, section.get("bands", ()), run.dataset, other)
    bands = with_file_statistics(section, other.folder, bands, run.dataset)
    return Learner(
        name=other.section,
        folder=other.folder,
        section=section,
        network=_network(run.config, section, run.dataset, bands),
        size=section.get("image_size") or config.dataset.image_size,
        total_steps=steps,
        seeds=tuple(seeds),
        arm_names=tuple(arm_names),
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
    bands: NetworkBands | None,
) -> Any:
    """The network of a section of the configuration, by default in the layout that is fast on this backend."""
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
    """Updates of a training with this section of the configuration on `examples` training images."""
    steps = -(-section.epochs * examples // section.batch_size)
    if steps > INT32_MAX:
        raise InputError(f"epochs is {section.epochs}: {steps} steps are more than kdjax can count")
    return steps


def _teacher_steps(config: ml_collections.ConfigDict, examples: int) -> int:
    if config.teacher.workdir:
        (other,) = other_run.borrowed_runs(config)
        return other_run.total_steps(other)
    return _total_steps(config.teacher, examples) if config.teacher.fit == "all" else 1


def _check_memory(run: Run) -> None:
    """Refuses run.images='device' if the training images do not fit into a device's memory."""
    needed, capacity = run.dataset.train.images.nbytes, _capacity(run.student)
    if run.config.run.images == "device" and needed > capacity:
        raise InputError(
            f"run.images is 'device', but the training images take {needed / 1e9:.1f} GB and a device has "
            f"{capacity / 1e9:.1f} GB: set it to 'auto' or 'host'"
        )


def _capacity(learner: Learner) -> int:
    """Memory of one device, in bytes: the least over all processes, because all must run the same program.

    On a CPU this is the memory for a single device: if several copies of the images do not fit, fewer devices train.
    """
    return devices.smallest(memory.capacity(devices.for_population(*learner.rows)[-1].local))


def _check_batch(learner: Learner, examples: int) -> None:
    """Refuses a batch that is larger than the training set, or cannot be shared out over the devices.

    A learner whose training has ended is not checked.
    """
    size, count = learner.section.batch_size, len(learner.mapping.devices)
    if learner.has_ended:
        return
    if learner.mapping.axis_name and size % count:
        raise InputError(f"{learner.name}.batch_size is {size}: must be divisible by the {count} devices")
    if size > examples:
        raise InputError(f"{learner.name}.batch_size is {size}, more than its {examples} training images")


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
    labels = set(dataset.train.labels.tolist())
    missing = [name for label, name in enumerate(dataset.classes) if label not in labels]
    if missing and (weights or config.dataset.sampling == "balanced"):
        log(f"data: warning: no training image of {', '.join(missing)} has a label, and neither weights nor draws help")
