"""Three data sets on the fixed splits of AiTLAS Benchmark Arena, for comparison with its ten networks.

    launch/local.sh --config=configs/aitlas.py:uc_merced --workdir=runs/aitlas/uc_merced-vgg16
    launch/local.sh --config=configs/aitlas.py:uc_merced,efficientnet_lite2 \
        --workdir=runs/aitlas/uc_merced-efficientnet_lite2 --stages=teacher
    launch/local.sh --config=configs/aitlas.py:uc_merced,ensemble --workdir=runs/aitlas/uc_merced-ensemble

The same works for eurosat and rsscn7. The argument is NAME[,TEACHER]. The first run is the paper's pair, VGG16 and
MobileNetV2, with all four arms. The second trains another teacher. In the third, this teacher and the students alone of
the first run form an ensemble, which teaches new students. Images and splits are read from data/ unless
`--config.dataset.path` and `--config.dataset.splits` say otherwise. Made for a GPU; results so far:
docs/results/README.md, "UC Merced at 224 px, on a GPU" and "EuroSAT at 128 px, on a GPU".
"""

from pathlib import Path

from kdjax.config import from_file

RUNS = Path("runs/aitlas")
ARCHIVES = {"uc_merced": "uc_merced", "eurosat": "eurosat_rgb", "rsscn7": "rsscn7"}
# Side of the networks' input, side at which images are kept, epochs of the students.
SETTINGS = {"uc_merced": (224, 256, 40), "eurosat": (128, 144, 15), "rsscn7": (192, 192, 40)}


def get_config(arg=""):
    """`arg` is NAME[,TEACHER]; "" means uc_merced,vgg16. TEACHER is vgg16, efficientnet_lite2 or ensemble."""
    name, teacher = ((arg or "uc_merced").split(",", 1) + ["vgg16"])[:2]
    if name not in SETTINGS:
        raise ValueError(f"no data set {name}: give {', '.join(SETTINGS)}")
    size, storage, epochs = SETTINGS[name]
    config = from_file(Path(__file__).with_name(f"{name}.py"), str(size))
    config.name = f"aitlas_{name}_{teacher}"
    config.seeds = (0, 1, 2)
    config.dataset.path = f"data/{ARCHIVES[name]}.zip"
    config.dataset.splits = f"data/splits/aitlas_{ARCHIVES[name]}.json"
    config.dataset.storage_size = storage
    config.student.epochs = epochs
    if teacher == "vgg16":
        config.teacher.epochs = 8 if name == "eurosat" else 12
    elif teacher == "efficientnet_lite2":
        config.teacher.model, config.teacher.weights = teacher, "timm/tf_efficientnet_lite2.in1k"
        for field in ("epochs", "batch_size", "learning_rate", "head_factor", "warmup_epochs", "dropout"):
            config.teacher[field] = config.student[field]
    elif teacher == "ensemble":
        config.teacher.ensemble = (
            f"students={RUNS / name}-vgg16:student_alone",
            f"workdir={RUNS / name}-efficientnet_lite2",
        )
    else:
        raise ValueError(f"no teacher {teacher}: give vgg16, efficientnet_lite2 or ensemble")
    return config
