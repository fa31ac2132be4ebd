"""Uses kdjax without its command: a teacher, its stored logits, and a population of students that learn from them.

    python examples/by_hand.py

Between reading its data and writing its table, a run makes only these few calls. A real run fine-tunes the teacher
first. This script takes an untrained network to end within a minute, so its numbers mean nothing.
"""

import functools
from pathlib import Path
from tempfile import TemporaryDirectory

import jax
import numpy as np

from kdjax import data, networks
from kdjax.inputs.batch import Examples
from kdjax.inputs.feed import resident_feed
from kdjax.inputs.plan import Plan
from kdjax.objective.arms import hyperparameters, measured_terms, resolve
from kdjax.runtime.devices import DeviceMapping
from kdjax.teacher.store import cached_folder, view_name
from kdjax.teacher.teacher import ViewSettings
from kdjax.teacher.trained import from_network
from kdjax.training import optimizer, state
from kdjax.training.step import Recipe, empty_averages, planned_steps

SIZE, BATCH, VIEWS, SEEDS, STEPS = 32, 16, 2, (0, 1), 4
ARMS = {"student_alone": {"ce": 1.0}, "kl_cosine": {"ce": 1.0, "kl": 1.0, "cosine": 1.0}}


def main() -> dict[str, np.ndarray]:
    """Returns the mean of each measured term over the steps, (seed, arm)."""
    dataset = data.load(
        source="demo", demo_classes=4, demo_train=48, demo_validation=8, demo_test=8,
        image_size=SIZE, storage_size=36, data_seed=0, cache_dir=None,
    )  # fmt: skip
    train, classes, mapping = dataset.train, len(dataset.classes), DeviceMapping()
    form = "examples_last" if jax.default_backend() == "cpu" else "examples_first"  # the faster layout

    # The teacher runs once on each view of each training image; its outputs are stored on disk.
    network = networks.create("vgg16_bn", classes, width=0.1, form=form)
    variables = jax.tree.map(np.asarray, network.init(jax.random.key(0), np.zeros((1, SIZE, SIZE, 3), np.float32)))
    settings = ViewSettings(SIZE, data_seed=0)
    teacher = from_network("vgg16_bn", network, variables, settings, dtype="float32", on_device=True, mapping=mapping)
    with TemporaryDirectory() as cache:
        store = cached_folder(Path(cache), {**teacher.parts, "examples": dataset.fingerprint}, classes, print)
        outputs = [
            store.read(view_name(view), len(train), lambda a, b: teacher.views(train.images, np.arange(a, b), view))  # noqa: B023
            for view in range(VIEWS)
        ]
        stored = jax.tree.map(lambda *views: np.stack(views), *outputs)  # a copy, because the files go with the folder

    # One student for each seed and arm; a single program trains them all.
    arms = resolve(tuple(ARMS), ARMS, temperature=4.0, learning_rate=1e-3, weight_decay=0.01)
    adamw = functools.partial(optimizer.adamw, clip=1.0, head_factor=1.0)
    student = networks.create("mobilenet_v2", classes, width=0.1, dropout=0.2, form=form)
    students = state.create(state.initializer(student, SIZE), adamw, seeds=SEEDS, arms=len(arms))
    recipe = Recipe(student, SIZE, adamw, optimizer.schedule(STEPS, 1))
    kinds = ("rows", "rows", "whole", "whole", "arms", "seeds", "plan", "whole")
    step = mapping.map(functools.partial(planned_steps, recipe=recipe), kinds, (0, 1), donate=(0,))
    averages = empty_averages((len(SEEDS), len(arms)), measured_terms(arms))
    examples = Examples(np.asarray(train.images), train.labels, stored, np.int32(0))
    plan = Plan(SEEDS, len(train), BATCH, VIEWS)
    share = resident_feed(plan, mapping, STEPS)(0, STEPS)
    students, averages = step(
        students, averages, examples, None, hyperparameters(arms), np.int32(SEEDS), share, np.int32(STEPS)
    )
    return {name: np.asarray(average.compute()) for name, average in averages.items()}


if __name__ == "__main__":
    for term, values in main().items():
        print(f"{term:10}", values.round(3).tolist())
