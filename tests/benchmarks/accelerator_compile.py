"""What the TPU compiler says of a run's programs, without a TPU.

    python tests/benchmarks/accelerator_compile.py [--chips=v5e,v6e] [--devices=8] [--programs=student_1,...] \\
        [--size=224] [--batch=512] [--largest=20] [--json=FILE]

Needs the package `libtpu` in the version that JAX names (`pip install 'jax[tpu]'`); a CPU suffices. Nothing is run: the
programs are those that a run maps over its devices, compiled for one chip or for eight. The table gives the memory that
the compiler plans, its count of operations and of bytes moved, for an image and a student, and the images a second that
the peaks of a chip allow. That is a bound, not a forecast. A loop's body is counted once, so the counts are those of
one step. `--largest` lists the instructions that move the most bytes.
"""

import argparse
import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np
from hlo_traffic import traffic
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from kdjax import networks
from kdjax.config import base
from kdjax.data.dataset import Split
from kdjax.inputs import augment
from kdjax.inputs.batch import Examples, PlanStep
from kdjax.inputs.tiled import device_layout
from kdjax.objective.arms import Arm, resolve
from kdjax.objective.outputs import Outputs
from kdjax.run.arms import TEACHER_ARM, teacher_arms
from kdjax.runtime import devices
from kdjax.teacher import trained as views
from kdjax.teacher.teacher import ViewSettings
from kdjax.training import predictor
from kdjax.training.learner import Learner
from kdjax.training.population import TrainingData, population

WITHOUT_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
"""What libtpu would ask the machine for."""


@dataclasses.dataclass(frozen=True)
class Chip:
    """Peaks of one chip, by https://cloud.google.com/tpu/docs: bfloat16 operations and bytes a second, bytes."""

    flops: float
    bandwidth: float
    memory: float


CHIPS = {"v5e": Chip(197e12, 819e9, 16e9), "v6e": Chip(918e12, 1640e9, 32e9)}


@dataclasses.dataclass(frozen=True)
class Setting:
    """What decides the shapes of all programs; by default those of a run on RESISC45 at 224 px.

    Attributes:
        size, side: of the networks' input and of the stored images, px.
        batch, teacher_batch: global batches of students and teacher.
        examples: training images in the devices' memory.
        views: of each of them whose teacher's outputs are stored.
        arms_at_once: of a population's students side by side, see `step.Recipe`; 1 as runs on a TPU do, 0 = all.
    """

    size: int = 224
    side: int = 252
    batch: int = 512
    teacher_batch: int = 64
    examples: int = 25200
    classes: int = 45
    views: int = 8
    arms_at_once: int = 1


PROGRAMS = ("teacher_step", "teacher_views", "student_1", "student_4", "student_16", "evaluation")
ARMS = ("student_alone", "kl", "cosine", "kl_cosine")


@dataclasses.dataclass(frozen=True)
class Program:
    """A program of a run with the shapes of its arguments.

    Attributes:
        compiled: what `devices.DeviceMapping.map` gave.
        arguments: arrays or their shapes.
        images: how many images one step takes over all devices, once for each student of those side by side.
    """

    compiled: Any
    arguments: tuple[Any, ...]
    images: int


def learner(name: str, setting: Setting, mapping: devices.DeviceMapping, rows: tuple[int, int] = (1, 1)) -> Learner:
    """The learner of a section of the configuration, as a run on an accelerator has it."""
    section = base()[name]
    section.batch_size = setting.teacher_batch if name == "teacher" else setting.batch
    network = networks.create(
        section.model, setting.classes, dropout=section.dropout, form="examples_first", dtype=jnp.bfloat16
    )
    return Learner(
        name=name, folder=Path(name), section=section, network=network, size=setting.size, total_steps=100,
        seeds=tuple(range(rows[0])), arm_names=tuple(TEACHER_ARM) if name == "teacher" else ARMS[-rows[1] :],
        mapping=mapping,
    )  # fmt: skip


def arms(who: Learner) -> tuple[Arm, ...]:
    """The settings of its networks."""
    if who.name == "teacher":
        return teacher_arms(who.section)
    rates = {"learning_rate": who.section.learning_rate, "weight_decay": who.section.weight_decay}
    return resolve(who.arm_names, base().arms, temperature=4.0, **rates)


def split(setting: Setting) -> Split:
    """A training split of these shapes, which takes no memory."""
    side, count = setting.side, setting.examples
    images = np.broadcast_to(np.uint8(0), (count, side, side, 3))
    return Split(images, np.zeros(count, np.int32), ("",) * count)


def program(name: str, setting: Setting, mapping: devices.DeviceMapping) -> Program:
    """One of `PROGRAMS`."""
    number = name.removeprefix("student_")
    if name == "teacher_step" or number != name:
        rows = (1, 1) if name == "teacher_step" else (max(int(number) // 4, 1), min(int(number), 4))
        who = learner("teacher" if name == "teacher_step" else "student", setting, mapping, rows)
        logits = jax.ShapeDtypeStruct((setting.views, setting.examples, setting.classes), jnp.float32)
        examples = split(setting)
        data = TrainingData(
            examples, examples, data_seed=0, augmentation=augment.DEFAULT, selected_by="top1", on_device=True,
            views=setting.views, stored=None if name == "teacher_step" else Outputs(logits),
        )  # fmt: skip
        at_once = min(setting.arms_at_once, rows[1])
        trained = dataclasses.replace(population(who, arms(who), data), longest=2).with_arms_at_once(at_once or None)
        images = who.section.batch_size * (at_once or math.prod(rows))
        return Program(trained.compiled(), trained.arguments(), images)
    who = learner("teacher" if name == "teacher_views" else "student", setting, mapping)
    variables = who.layout.best.variables
    batch = predictor.batch_per_device(variables, who.cost["activation_bytes"]) * len(mapping.devices)
    if name == "teacher_views":
        single = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[2:], leaf.dtype), variables)
        plan = mapping.split(PlanStep(np.zeros(batch, np.int32), np.zeros(batch, np.int32)))
        images = device_layout(split(setting).images, mapping.local[0])
        examples = Examples(images, None, data_seed=np.int32(0))
        program = views.compiled_view_step(who.network, ViewSettings(setting.size, 0), mapping)
        return Program(program, (single, examples, plan), batch)
    images = mapping.split(np.broadcast_to(np.uint8(0), (batch, setting.side, setting.side, 3)))
    return Program(predictor.compiled(who.network, size=setting.size, mapping=mapping), (variables, images), batch)


def mapping(name: str, chips: Sequence[jax.Device]) -> devices.DeviceMapping:
    """The mapping of a program: on several chips 16 students are shared out, else the batch is."""
    if len(chips) > 1 and name == "student_16":
        return devices.RowMapping((4, len(chips) // 4), chips)
    return devices.DeviceMapping(chips)


def lowered(built: Program, mapped: devices.DeviceMapping) -> jax.stages.Lowered:
    """A program for the devices of its mapping, whichever machine this is."""
    place = {} if len(mapped.devices) > 1 else {"sharding": SingleDeviceSharding(mapped.devices[0])}
    shape = lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, **place)
    return built.compiled.lower(*jax.tree.map(shape, built.arguments))


def topology(kind: str) -> list[Any]:
    """Eight chips of a kind that are not there."""
    for name, value in WITHOUT_TPU.items():
        os.environ.setdefault(name, value)
    return topologies.get_topology_desc(platform="tpu", topology_name=f"{kind}:2x4").devices


def measured(compiled: jax.stages.Compiled, images: float, chip: Chip) -> dict[str, Any]:
    """What the compiler says of a program that takes so many images on one chip."""
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    flops, moved = cost["flops"] / images, cost["bytes accessed"] / images
    by_hlo = sum(one.read + one.written for one in traffic(compiled.as_text())) / images
    seconds = {"arithmetic": flops / chip.flops, "memory": moved / chip.bandwidth}
    return {
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "fits": memory.argument_size_in_bytes + results + memory.temp_size_in_bytes <= chip.memory,
        "flops_an_image": flops,
        "bytes_an_image": moved,
        "bytes_an_image_by_instructions": by_hlo,
        "bound": max(seconds, key=lambda what: seconds[what]),
        "images_per_second_at_most": 1 / max(seconds.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", default=",".join(CHIPS))
    parser.add_argument("--devices", type=int, default=1, choices=(1, 8))
    parser.add_argument("--programs", default=",".join(PROGRAMS))
    for field in dataclasses.fields(Setting):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=int, default=field.default)
    parser.add_argument("--largest", type=int, default=0, help="list so many instructions of each program")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--hlo", type=Path, help="a folder for the compiled programs' text")
    options = parser.parse_args()
    setting = Setting(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Setting)})
    document = {"jax": jax.__version__, "setting": dataclasses.asdict(setting), "programs": []}
    for kind in options.chips.split(","):
        chips = topology(kind)[: options.devices]
        for name in options.programs.split(","):
            mapped = mapping(name, chips)
            built = program(name, setting, mapped)
            start, images = time.perf_counter(), built.images / len(chips)
            found = {"chip": kind, "devices": len(chips), "program": name}
            document["programs"].append(found)
            try:
                compiled = lowered(built, mapped).compile()
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                found |= {"fits": False, "error": str(error).splitlines()[0]}
                print(f"{kind} x {len(chips)} {name:14s} DOES NOT FIT: {found['error']}", flush=True)
                write(document, options.json)
                continue
            found |= measured(compiled, images, CHIPS[kind])
            show(found, time.perf_counter() - start)
            for one in traffic(compiled.as_text())[: options.largest]:
                read, written = one.read / images / 1e6, one.written / images / 1e6
                print(f"    {read:6.2f} MB read, {written:6.2f} written an image: {one.result[:60]} {one.source[-70:]}")
            write(document, options.json)
            if options.hlo:
                options.hlo.mkdir(parents=True, exist_ok=True)
                (options.hlo / f"{kind}_{name}_{len(chips)}.txt").write_text(compiled.as_text(), encoding="utf-8")


def write(document: dict[str, Any], path: Path | None) -> None:
    """What is known so far, where a file is asked for."""
    if path:
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def show(found: dict[str, Any], seconds: float) -> None:
    """A line about a program."""
    print(
        f"{found['chip']} x {found['devices']} {found['program']:14s} "
        f"arguments {found['argument_bytes'] / 1e9:6.2f} GB, temporary {found['temporary_bytes'] / 1e9:6.2f} GB, "
        f"{'fits' if found['fits'] else 'DOES NOT FIT'}; an image {found['flops_an_image'] / 1e9:6.2f} GFLOP, "
        f"{found['bytes_an_image'] / 1e6:6.1f} MB ({found['bytes_an_image_by_instructions'] / 1e6:.1f} by its "
        f"instructions); {found['bound']} allows {found['images_per_second_at_most']:,.0f} images/s; compiled in "
        f"{seconds:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
