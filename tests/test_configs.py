"""Every file of configs/ is a config that may run; those that vary another change what they name."""

from pathlib import Path

import pytest

from kdjax.config import ARMS, from_file
from kdjax.errors import InputError
from kdjax.run.checks import validate

CONFIGS = Path(__file__).parents[1] / "configs"


def load(name, argument=""):
    config = from_file(CONFIGS / f"{name}.py", argument)
    validate(config)
    return config


def trials(config):
    """The number of arms of each family."""
    families = [config.arms[arm].get("family", arm) for arm in config.distill.arms]
    return {family: families.count(family) for family in families}


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.py")))
def test_every_config_is_valid_as_it_stands(name):
    assert load(name).name


def test_a_config_of_another_file_keeps_its_argument():
    assert load("ablation", "uc_merced,96").dataset.image_size == 96
    assert load("sweep", "eurosat").dataset.path == load("eurosat").dataset.path
    with pytest.raises(InputError, match="absent.py"):
        load("ablation", "absent")


def test_a_sweep_gives_every_arm_the_same_number_of_trials():
    assert trials(load("sweep")) == dict.fromkeys(ARMS, 12)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("sweep", "student.learning_rate"),
        ("sweep", "distill.temperature"),
        ("label_fraction", "student.learning_rate"),
    ],
)
def test_what_every_trial_sets_is_refused_from_the_user_but_not_from_the_config_that_is_varied(name, path):
    config = load(name, "0.1,demo" if name == "label_fraction" else "demo")
    section, field = path.split(".")
    config[section][field] *= 2
    with pytest.raises(InputError, match=f"^{path} is .* does nothing: every arm that would use it sets its own"):
        validate(config)


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.2, 0.5])
def test_the_baselines_of_few_labels_have_as_many_trials(fraction):
    config = load("label_fraction", f"{fraction}")
    assert config.dataset.label_fraction == fraction and config.dataset.unlabeled == "keep"
    assert trials(config) == {"student_alone": 2, "labeled_alone": 2, "kl_cosine": 2}
    only = [arm for arm in config.distill.arms if config.arms[arm].get("labeled_only")]
    assert only == ["labeled_alone_0", "labeled_alone_1"]
    assert trials(load("label_fraction", "1")) == {"student_alone": 2, "kl_cosine": 2}


def test_a_teacher_may_see_more_pixels_than_its_students():
    config = load("resolution", "64,128")
    assert (config.dataset.image_size, config.teacher.image_size) == (64, 128)
    assert config.dataset.storage_size == load("uc_merced", "128").dataset.storage_size


def test_a_teacher_of_the_demo_may_see_infrared():
    config = load("demo", "bands")
    assert set(config.student.bands) == {"red", "green", "blue"} < set(config.dataset.bands)
    assert config.teacher.bands == () and load("demo").dataset.bands == ()
    with pytest.raises(ValueError, match="'bands' or none, got 'band'"):
        load("demo", "band")


def test_the_run_of_a_teacher_asks_for_no_weights_of_a_student():
    assert load("pairs", "vgg16").student.weights is None
    assert load("pairs", "vgg16,efficientnet_lite0").student.weights == "timm/tf_efficientnet_lite0.in1k"


@pytest.mark.parametrize(
    ("name", "argument", "said"),
    [
        ("aitlas", "ucmerced", "no data set ucmerced: give uc_merced, eurosat, rsscn7"),
        ("pairs", "resnet101", "no network resnet101: give vgg16, "),
        ("pairs", "students,mobilenet", "no network mobilenet: give vgg16, "),
    ],
)
def test_a_mistyped_argument_is_told_with_the_choices(name, argument, said):
    with pytest.raises(ValueError, match=said):
        load(name, argument)


def test_narrow_students_start_from_scratch():
    assert load("width", "0.5,eurosat").student.width == 0.5
    assert load("width", "0.5").student.weights is None and load("width", "1.0").student.weights is not None
    assert load("scratch").student.weights is None and load("scratch").teacher.weights is not None
