"""Smaller inputs: students at one resolution, their teacher at the same or a higher one.

    launch/local.sh --config=configs/resolution.py:48 --workdir=runs/px_48 --config.dataset.path=data/uc_merced.zip
    launch/local.sh --config=configs/resolution.py:64,128 --workdir=runs/px_64_128 \
        --config.dataset.path=data/uc_merced.zip

The argument is the students' image size in px, followed by the teacher's if it differs. Both see the same crops. Images
are stored at the size that the larger of the two needs. Run for a few steps only, so there are no results yet.
"""

from pathlib import Path

from kdjax.config import from_file


def get_config(arg=""):
    """`arg` is SIZE[,TEACHER_SIZE[,NAME]]; "" means 96 of uc_merced."""
    size, teacher, name = ((arg or "96").split(",", 2) + ["", ""])[:3]
    size, teacher = int(size), int(teacher or size)
    # The config of the larger size sets the size at which images are stored.
    config = from_file(Path(__file__).with_name(f"{name or 'uc_merced'}.py"), str(max(size, teacher)))
    config.name = f"{name or 'uc_merced'}_{size}_teacher_{teacher}"
    config.seeds = (0, 1, 2)
    config.dataset.image_size = size
    config.teacher.image_size = teacher
    return config
