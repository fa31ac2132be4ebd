"""The sections of images: which are shown, in which order, and what is said of them."""

import base64
import dataclasses
import io
import re

import numpy as np
import pytest
from helpers import tiles
from helpers.report_material import CLASSES, material
from PIL import Image

from kdjax.report import images, parts
from kdjax.report.markup import joined


@pytest.mark.parametrize(
    ("height", "width", "shown"),
    [(64, 64, (64, 64)), (200, 200, (128, 128)), (64, 128, (128, 64)), (72, 144, (128, 64)), (300, 100, (43, 128))],
)
def test_pictures_keep_their_shape(height, width, shown):
    """Two composites stand side by side, so that a picture may be twice as wide as high."""
    drawn = tiles.picture(1, height, width)
    tag = parts.picture(drawn, "alt")
    assert re.findall(r'(?:width|height)="(\d+)"', tag) == [str(size) for size in shown]
    content = base64.b64decode(re.search('base64,([^"]*)', tag)[1])
    found = np.asarray(Image.open(io.BytesIO(content)), float)
    expected = np.asarray(Image.fromarray(drawn).resize(shown, Image.Resampling.LANCZOS), float)
    assert found.shape == expected.shape and np.abs(found - expected).mean() < 8  # what JPEG loses


def written(parts):
    return str(joined(*parts))


def sure(classes, probability):
    """Log-probabilities (…, 4) of networks that give one class this probability."""
    rest = (1 - probability) / (len(CLASSES) - 1)
    return np.log(np.where(np.eye(len(CLASSES), dtype=bool)[np.array(classes)], probability, rest))


def of_test(labels, teacher, students, probabilities=0.7):
    """Material whose test images have these labels, and are taken for these classes."""
    given = material(seeds=(0,))
    count = len(labels)
    test = dataclasses.replace(
        given.test, images=given.test.images[:count], labels=np.array(labels), names=[f"{k}.png" for k in range(count)],
        teacher=sure(teacher, np.reshape(probabilities, (-1, 1))),
        students=np.stack([sure(one, np.reshape(probabilities, (-1, 1))) for one in students]),
    )  # fmt: skip
    empty = {name: getattr(given.validation, name)[:0] for name in ("images", "labels", "names", "teacher")}
    validation = dataclasses.replace(given.validation, students=given.validation.students[:2, :0], **empty)
    return dataclasses.replace(given, test=test, validation=validation, students=given.students[: len(students)])


def test_confused_classes_with_their_images_and_the_teachers_mistakes():
    # Two students take both forests for sea, one takes the sea for forest; the teacher takes one forest for sea.
    given = of_test([1, 1, 2, 0], [2, 1, 2, 0], [[2, 2, 1, 0], [2, 2, 2, 0]])
    pairs = written(images.confused(given)).split('<div class="pair">')[1:]
    assert [re.search("<h3>(.*?)</h3>", one)[1] for one in pairs] == ["forest taken for sea", "sea taken for forest"]
    captions = [re.findall("<figcaption>(.*?)</figcaption>", one)[-1] for one in pairs]
    assert captions == [
        "4 mistakes on 2 images; the teacher made 1.",
        "1 mistake on 1 image; the teacher made 0.",
    ]
    assert re.findall(r'title="(\d.png)"', pairs[0]) == ["0.png", "1.png"]
    assert "<div>2 of 2 students</div><div>teacher <b>sea</b> 70\u00a0%</div>" in pairs[0]
    assert "<div>1 of 2 students</div><div>teacher <b>sea</b> 70\u00a0%</div>" in pairs[1]


def test_without_mistakes_it_says_so():
    text = written(images.confused(of_test([1, 0], [1, 0], [[1, 0], [1, 0]])))
    assert "None: 2 students classify all 2 test images correctly." in text


def test_labels_to_check_are_listed_the_surest_first():
    given = of_test([0, 1, 2, 3], [1, 2, 2, 0], [[1, 2, 2, 0], [1, 2, 2, 1]], [0.6, 0.9, 0.95, 0.99])
    text = written(images.suspects(given))
    assert re.findall(r'title="(\d.png)"', text) == ["1.png", "0.png"]  # all agree on 2.png, the students not on 3.png
    assert "<div>labeled <b>forest</b></div><div>all say <b>sea</b> 90\u00a0%</div><div>test</div>" in text
    assert "<div>labeled <b>field</b></div><div>all say <b>forest</b> 60\u00a0%</div>" in text
    assert "2 images, the surest first" in text and "There is none" not in text


def test_the_hardest_images_come_first_with_their_loss():
    given = of_test([0, 1, 2], [0, 1, 1], [[0, 2, 2], [0, 2, 1]], [0.9, 0.9, 0.6])
    text = written(images.hardest(given))
    losses = [-np.log(0.9), -np.log(0.1 / 3), -(np.log(0.6) + np.log(0.4 / 3)) / 2]
    assert re.findall(r'title="(\d.png)"', text) == ["1.png", "2.png", "0.png"]
    assert re.findall(r"loss (\d+\.\d+)", text) == [f"{losses[k]:.2f}" for k in (1, 2, 0)]
    assert "students 2\u00a0<b>sea</b>" in text and "students 1\u00a0<b>forest</b>, 1\u00a0<b>sea</b>" in text
