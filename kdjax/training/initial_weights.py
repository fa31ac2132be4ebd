"""The weights that a training starts from: checked, loaded, and recorded in the stage's folder."""

from typing import Any

import jax

from kdjax.data.bands import RGB, colors
from kdjax.errors import InputError
from kdjax.networks import pretrained
from kdjax.networks.weights_metadata import band_names
from kdjax.runtime import files
from kdjax.training.learner import WEIGHTS, Learner
from kdjax.training.state import TrainState


def check(learner: Learner) -> None:
    """Makes sure that training can start from the weights that the learner's section names, if it names any.

    Raises:
        InputError: names the field, and what does not fit.
    """
    section = learner.section
    if not section.weights:
        return
    try:
        _check_bands(learner)
        pretrained.check(section.weights, section.model, learner.variables, section.weights_pixels, _colors(learner))
    except InputError as error:
        trained = section.get("fit") in (None, "all")  # other fits need weights
        scratch = f"; --config.{learner.name}.weights= (nothing) starts from scratch" if trained else ""
        raise InputError(f"{learner.name}.{error}{scratch}") from None


def initial(learner: Learner) -> TrainState:
    """A new state, from the weights that the learner's section names, or from scratch.

    Logs and records the weights as `write_record` does.

    Raises:
        InputError: the file of weights does not fit.
    """
    if not learner.section.weights:
        return learner.scratch()
    classifier = "fitting" if learner.section.head == "fc" else "keep"
    loaded = load(learner, learner.variables, classifier)
    state = learner.scratch(pretrained=lambda _: loaded.variables)
    write_record(learner, loaded)
    return state


def load(learner: Learner, variables: dict[str, Any], classifier: str) -> pretrained.Loaded:
    """The variables of one network with what the file of weights has for them, see `pretrained.load_imagenet`."""
    section = learner.section
    _check_bands(learner)
    return pretrained.load_imagenet(
        section.weights, section.model, variables, classifier, section.weights_pixels, _colors(learner)
    )


def write_record(learner: Learner, loaded: pretrained.Loaded) -> None:
    """Logs which weights were loaded, and writes `WEIGHTS` into the learner's folder."""
    learner.log(f"{learner.name}: {loaded.report}")
    if jax.process_index() == 0:
        learner.folder.mkdir(parents=True, exist_ok=True)
        files.write_json(learner.folder / WEIGHTS, loaded.record)


def _colors(learner: Learner) -> tuple[int | None, ...] | None:
    """The indices of red, green and blue among the learner's bands; None if these are exactly red, green and blue."""
    return None if learner.bands == RGB else colors(learner.bands)


def _check_bands(learner: Learner) -> None:
    source = learner.section.weights
    names = band_names(source)
    if names is not None and tuple(names) != learner.bands:
        raise InputError(
            f"weights {source}: made for the bands {' '.join(names)}, not {' '.join(learner.bands)}: set "
            f"{learner.name}.bands to the first"
        )
