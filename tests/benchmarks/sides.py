"""The two sides that are timed: kdjax's steps and PyTorch's, each a process that does what its parent asks.

Networks, shapes, batch, objective and optimizer are the same. Each side is set up as its users run it.
"""

import functools
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
CLASSES, TEMPERATURE, LEARNING_RATE, WEIGHT_DECAY, CLIP = 21, 4.0, 1e-3, 1e-4, 1.0
NAMES = {"teacher": "vgg16", "student": "mobilenet_v2"} | {
    name: name for name in ("efficientnet_lite0", "efficientnet_lite2", "resnet50")
}
"""The networks by their part in a row's name."""
REFERENCES = {  # in torch_reference
    "teacher": ("VGG16", {}),
    "student": ("MobileNetV2", {"dropout": 0}),
    "efficientnet_lite0": ("EfficientNetLite", {"dropout": 0}),
    "efficientnet_lite2": ("EfficientNetLite", {"dropout": 0, "repeats": (1, 3, 3, 4, 4, 5, 1), "channels": 1.1}),
    "resnet50": ("ResNet", {"block": "Bottleneck", "repeats": (3, 4, 6, 3)}),
}
MODES = {"cpu": ("eager", "compile"), "gpu": ("compile", "max-autotune")}
"""How PyTorch runs, by kind of device."""


def network(row: str) -> str:
    """The network that a row runs or trains, a key of `NAMES`."""
    return next((name for name in NAMES if row.startswith(name)), "student")


def needed(rows: Iterable[str]) -> list[str]:
    """The networks that rows need, keys of `NAMES`."""
    return sorted({network(row) for row in rows} | {"teacher" for row in rows if row == "online_distillation"})


def population(row: str) -> tuple[int, int]:
    """Seeds and arms that a row trains: "population_16" is four of each, "population_4" four arms of one seed."""
    count = int(row.split("_")[1]) if row.startswith("population") else 1
    arms = 4 if count % 4 == 0 else 1
    return count // arms, arms


class Kdjax:
    """kdjax's side: the steps that a run maps over its devices, for a population of one."""

    def __init__(self, folder: Path, size: int, batch: int):
        sys.path.insert(0, str(ROOT))
        from kdjax.runtime import host

        host.prepare()
        import jax

        from kdjax import networks
        from kdjax.runtime import devices

        self.folder, self.size, self.batch = folder, size, batch
        self.kind = "cpu" if jax.default_backend() == "cpu" else "gpu"
        options = (
            {"form": "examples_last"} if self.kind == "cpu" else {"form": "examples_first", "dtype": jax.numpy.bfloat16}
        )
        self.models = {role: networks.create(name, CLASSES, **options) for role, name in NAMES.items()}
        self.mapping = devices.DeviceMapping(jax.devices()[:1])

    def describe(self, roles: Sequence[str] = ("student", "teacher")) -> dict:
        """Writes the networks' weights and the batch; returns what is known of the machine and the networks."""
        import jax
        from safetensors.numpy import save_file

        from kdjax import networks
        from kdjax.networks import pretrained

        example = np.zeros((1, self.size, self.size, 3), np.float32)
        for role in roles:
            variables = jax.jit(self.models[role].init)(jax.random.key(1), example)
            save_file(pretrained.named_tensors(NAMES[role], variables), self.folder / f"{role}.safetensors")
        rng = np.random.default_rng(0)
        np.savez(
            self.folder / "batch.npz",
            images=rng.random((self.batch, self.size, self.size, 3), np.float32),
            labels=rng.integers(0, CLASSES, self.batch),
            teacher_logits=rng.normal(0, 3, (self.batch, CLASSES)).astype(np.float32),
        )
        known = {"kind": self.kind, "device": jax.devices()[0].device_kind, "jax": jax.__version__}
        known["macs"] = {role: networks.cost(self.models[role], self.size)["macs"] for role in roles}
        if self.kind == "gpu":
            from matrix_rate import matrix_product_flops

            known["matrix_product_flops"] = matrix_product_flops()
        return known

    def prepare(self, row: str, mode: str) -> float:
        """Compiles a row's step; returns its first loss, or a forward pass's mean squared logit."""
        import jax
        import jax.numpy as jnp

        from kdjax.inputs.batch import Batch
        from kdjax.objective.arms import Hyperparameters
        from kdjax.objective.outputs import Outputs
        from kdjax.training import optimizer, state
        from kdjax.training.step import Recipe, frozen_outputs, train_step

        data = np.load(self.folder / "batch.npz")
        variables = {role: self._variables(role) for role in needed([row])}
        model = self.models[network(row)]
        if row.endswith("forward"):
            program = lambda variables, images, axis_name: model.apply(variables, images, train=False).logits
            forward = self.mapping.map(program, ("whole", "whole"))
            placed = self.mapping.place((variables[network(row)], data["images"]))
            self.step = lambda: forward(*placed)
            return float(jnp.square(self.step()).mean())

        adamw = functools.partial(optimizer.adamw, clip=CLIP, head_factor=1.0)
        cached = row == "cached_distillation" or row.startswith("population")
        seeds, arms = population(row)
        soft = jnp.full(arms, float(cached or row == "online_distillation"))
        hyper = Hyperparameters(
            weights={"ce": jnp.ones(arms), "kl": soft, "cosine": soft},
            temperature=jnp.full(arms, TEMPERATURE),
            learning_rate=jnp.full(arms, LEARNING_RATE),
            weight_decay=jnp.full(arms, WEIGHT_DECAY),
        )
        each_seed = lambda array: np.stack([array] * seeds)
        batch = Batch(
            images=each_seed(data["images"]),
            labels=each_seed(data["labels"].astype(np.int32)),
            teacher=Outputs(each_seed(data["teacher_logits"])) if cached else None,
            keys=jax.random.split(jax.random.key(0), (seeds, self.batch)),
        )
        at_once = int(mode) if mode.isdigit() else None
        recipe = Recipe(model, self.size, adamw, lambda step: 1.0, arms_at_once=at_once)

        def program(students, teacher, batch, hyper, axis_name):
            if teacher is not None:
                batch = batch.replace(teacher=frozen_outputs(self.models["teacher"], teacher, batch.images))
            return train_step(students, batch, hyper, recipe=recipe, axis_name=axis_name)

        mapped = self.mapping.map(program, ("rows", "whole", "whole", "arms"), donate=(0,))
        students = state.create(
            state.initializer(model, self.size),
            adamw,
            seeds=tuple(range(seeds)),
            arms=arms,
            pretrained=lambda _: {"batch_stats": {}} | variables[network(row)],
        )
        teacher = variables["teacher"] if row == "online_distillation" else None
        self.students, *rest = self.mapping.place((students, teacher, batch, hyper))

        def step():
            self.students, averages = mapped(self.students, *rest)
            return averages["loss"].total

        self.step = step
        return float(np.mean(step()))

    def memory(self) -> dict[str, int]:
        """Bytes: the state of the students, and the most that the process (CPU) or the device held."""
        import resource

        import jax

        from kdjax.runtime import memory

        stats = jax.devices()[0].memory_stats() or {}
        peak = stats.get("peak_bytes_in_use", 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return {"state": memory.tree_bytes(self.students), "peak": peak}

    def run(self, steps: int) -> tuple[float, float]:
        """Seconds that so many steps take: by the clock, and of all the process's processor time."""
        import jax

        start = time.perf_counter(), time.process_time()
        for _ in range(steps):
            out = self.step()
        jax.block_until_ready(out)
        return time.perf_counter() - start[0], time.process_time() - start[1]

    def _variables(self, role: str) -> dict:
        import jax

        from kdjax.networks import pretrained

        example = np.zeros((1, self.size, self.size, 3), np.float32)
        shapes = jax.eval_shape(self.models[role].init, jax.random.key(0), example)
        blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), dict(shapes))
        return pretrained.load_imagenet(self.folder / f"{role}.safetensors", NAMES[role], blank, "whole").variables


class PyTorch:
    """PyTorch's side."""

    def __init__(self, folder: Path, size: int, batch: int):
        sys.path.insert(0, str(ROOT / "tests"))
        import torch

        self.folder = folder
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.device.type == "cpu":
            torch.set_num_threads(len(os.sched_getaffinity(0)))

    def describe(self) -> dict:
        import torch

        return {"torch": torch.__version__, "torch_threads": torch.get_num_threads()}

    def prepare(self, row: str, mode: str) -> float:
        """Compiles a row's step in a mode; returns its first loss, or a forward pass's mean squared logit."""
        import torch
        import torch_reference
        from safetensors.torch import load_file
        from torch.nn import functional

        torch._dynamo.reset()
        networks = {}
        for role in needed([row]):
            kind, options = REFERENCES[role]
            networks[role] = module = getattr(torch_reference, kind)(CLASSES, **options)
            module.load_state_dict(load_file(self.folder / f"{role}.safetensors"), strict=False)
            module.to(self.device, memory_format=torch.channels_last)
        data = np.load(self.folder / "batch.npz")
        images = torch.from_numpy(data["images"]).to(self.device).permute(0, 3, 1, 2)  # channels_last as it is
        labels, stored = (torch.from_numpy(data[name]).to(self.device) for name in ("labels", "teacher_logits"))
        autocast = torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda")
        compiled = {"eager": lambda f: f, "compile": torch.compile}
        wrap = compiled.get(mode, functools.partial(torch.compile, mode="max-autotune"))
        module = networks[network(row)]
        teacher = wrap(networks["teacher"].eval()) if "teacher" in networks else None
        module.train(not row.endswith("forward"))
        forward = wrap(module)

        if row.endswith("forward"):

            @torch.no_grad()
            def step():
                with autocast:
                    return forward(images)

            self.step = step
            return float(step().float().square().mean())

        kernels = [p for p in module.parameters() if p.ndim > 1]
        others = [p for p in module.parameters() if p.ndim <= 1]
        groups = [{"params": kernels, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True)

        def step():
            targets = stored
            if row == "online_distillation":
                with torch.no_grad(), autocast:
                    targets = teacher(images).float()
            with autocast:
                logits = forward(images)
            logits = logits.float()
            loss = functional.cross_entropy(logits, labels)
            if "distillation" in row:
                log_p, log_q = ((z / TEMPERATURE).log_softmax(1) for z in (targets, logits))
                loss = loss + TEMPERATURE**2 * functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
                loss = loss + (1 - functional.cosine_similarity(targets, logits)).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), CLIP)
            optimizer.step()
            return loss.detach()

        self.step = step
        return float(step())

    def run(self, steps: int) -> tuple[float, float]:
        """Seconds that so many steps take: by the clock, and of all the process's processor time."""
        import torch

        start = time.perf_counter(), time.process_time()
        for _ in range(steps):
            self.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start[0], time.process_time() - start[1]


SIDES = {"kdjax": Kdjax, "pytorch": PyTorch}


def serve(side: str, folder: str, size: int, batch: int) -> None:
    """A worker: one method call a line on its input, one answer a line on its output."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the log
    worker = SIDES[side](Path(folder), size, batch)
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        try:
            answer = {"value": getattr(worker, method)(*arguments)}
        except Exception:  # the parent reports it and goes on with the other modes
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


class Worker:
    """The parent's end of a worker process."""

    def __init__(self, side: str, folder: Path, size: int, batch: int):
        command = [sys.executable, __file__, side, str(folder), str(size), str(batch)]
        # Both processes may hold the one GPU: JAX must not take three quarters of its memory at once.
        environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self.log = open(folder / f"{side}.log", "w+", encoding="utf-8")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment
        )

    def call(self, method: str, *arguments):
        self.process.stdin.write(json.dumps([method, *arguments]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise RuntimeError(f"the worker ended:\n{self.log.read()[-2000:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["value"]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.log.close()


if __name__ == "__main__":
    side, folder, size, batch = sys.argv[1:]
    serve(side, folder, int(size), int(batch))
