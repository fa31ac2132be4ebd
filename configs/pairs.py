"""Teachers × students: which teacher helps which student.

    for teacher in vgg16 efficientnet_lite2 frozen_efficientnet_lite0; do
      launch/local.sh --config=configs/pairs.py:$teacher --workdir=runs/pairs/$teacher --stages=teacher
      for student in mobilenet_v2 efficientnet_lite0; do
        launch/local.sh --config=configs/pairs.py:$teacher,$student --workdir=runs/pairs/$student-$teacher
      done
    done
    for student in mobilenet_v2 efficientnet_lite0; do
      launch/local.sh --config=configs/pairs.py:students,$student --workdir=runs/pairs/$student-students
    done
    python -m kdjax.report.overview runs/pairs/*-* --output=pairs.html

The argument is TEACHER[,STUDENT[,NAME[,ARGUMENT]]]; NAME is another config in this folder, uc_merced by default. A
teacher is a network that is fine-tuned, `frozen_` and a network that gets a fitted head, or `students`: the mean of
the students alone of `runs/pairs/STUDENT-vgg16`. Without a student the config is that of the teacher's own run, from
which all pairs take it; its outputs are computed once for all students.
"""

from pathlib import Path

from kdjax.config import from_file

WEIGHTS = {
    "vgg16": "timm/vgg16.tv_in1k",
    "resnet18": "timm/resnet18.tv_in1k",
    "resnet34": "timm/resnet34.tv_in1k",
    "resnet50": "timm/resnet50.tv_in1k",
    "mobilenet_v2": "timm/mobilenetv2_100.ra_in1k",
    "mobilenet_v3_small": "timm/mobilenetv3_small_100.lamb_in1k",
    "mobilenet_v3_large": "timm/mobilenetv3_large_100.ra_in1k",
    **{f"efficientnet_lite{size}": f"timm/tf_efficientnet_lite{size}.in1k" for size in range(5)},
}
"""ImageNet weights on the Hugging Face hub."""

RUNS = Path("runs/pairs")


def get_config(arg=""):
    """`arg` is TEACHER[,STUDENT[,NAME[,ARGUMENT]]]; "" means vgg16,mobilenet_v2 on uc_merced."""
    teacher, student, name, argument = ((arg or "vgg16,mobilenet_v2").split(",", 3) + ["", "", ""])[:4]
    if teacher == "students":  # these are trained in other runs, so there is no run of the teacher alone
        student = student or "mobilenet_v2"
    frozen, model = teacher.startswith("frozen_"), teacher.removeprefix("frozen_")
    for network in (model, student):
        if network not in ("", "students", *WEIGHTS):
            raise ValueError(f"no network {network}: give {', '.join(WEIGHTS)}")
    config = from_file(Path(__file__).with_name(f"{name or 'uc_merced'}.py"), argument)
    config.name = f"{config.name}_{student or 'teacher'}_{teacher}"
    config.seeds = (0, 1, 2)
    config.distill.arms = ("student_alone", "kl_cosine", "kl_features")
    if student:
        config.student.model, config.student.weights = student, WEIGHTS[student]
    else:  # the teacher's own run trains no students
        config.student.weights = None
    if teacher == "students":  # a mean of several networks has no features for `kl_features`
        config.teacher.students = str(RUNS / f"{student}-vgg16:student_alone")
        config.distill.arms = ("student_alone", "kl_cosine")
        return config
    config.teacher.model, config.teacher.weights = model, WEIGHTS[model]
    if frozen:
        config.teacher.fit = "head"
    elif not model.startswith("vgg"):
        # Networks with BatchNorm are trained as the students are.
        for field in ("epochs", "batch_size", "learning_rate", "head_factor", "warmup_epochs", "dropout"):
            config.teacher[field] = config.student[field]
    if student:
        config.teacher.workdir = str(RUNS / teacher)
    return config
