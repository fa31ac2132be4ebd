"""The sections that show images: confused classes, hard images, labels to check, and augmented views."""

from collections.abc import Sequence

from kdjax.report import findings
from kdjax.report.markup import Markup, element, joined
from kdjax.report.material import Material, Side
from kdjax.report.parts import (
    details,
    figure,
    file_name,
    lines,
    picture,
    prediction,
    student_predictions,
    table,
    teacher_prediction,
    tile,
)

PAIRS, PAIR_IMAGES, HARDEST, SUSPECTS = 6, 6, 12, 24


def confused(material: Material) -> list[Markup]:
    """Shows the pairs of classes that students confuse, with the images."""
    test, classes, students = material.test, material.results["dataset"]["classes"], _students(material)
    if not material.students:
        return [element("p", "No student succeeded.")]
    pairs = findings.confused_pairs(test.students.argmax(-1), test.labels)
    if not pairs:
        return [element("p", f"None: {students} classify all {len(test.labels)} test images correctly.")]
    of_teacher = [] if test.teacher is None else findings.confused_pairs(test.teacher.argmax(-1)[None], test.labels)
    by_teacher = {(pair.true, pair.predicted): pair.mistakes for pair in of_teacher}
    intro = f"Mistakes of {students} (all arms and seeds of the table) on the test images, the most frequent first" + (
        f"; {PAIRS} of {len(pairs)} pairs." if len(pairs) > PAIRS else "."
    )
    pair_blocks = []
    for pair in pairs[:PAIRS]:
        tiled = list(zip(pair.images, pair.networks, strict=True))[:PAIR_IMAGES]
        tiles = (
            tile(test, image, joined(f"{count} of {students}"), *_teacher_prediction(test, image, classes))
            for image, count in tiled
        )
        caption = (
            f"{_plural(pair.mistakes, 'mistake')} on {_plural(len(pair.images), 'image')}"
            + (f", {len(tiled)} of them shown" if len(pair.images) > len(tiled) else "")
            + ("." if test.teacher is None else f"; the teacher made {by_teacher.get((pair.true, pair.predicted), 0)}.")
        )
        heading = element("h3", f"{classes[pair.true]} taken for {classes[pair.predicted]}")
        pictures = figure(element("div", *tiles, class_="tiles"), caption)
        pair_blocks.append(element("div", heading, pictures, class_="pair"))
    return [element("p", intro), element("div", *pair_blocks, class_="pairs")]


def hardest(material: Material) -> list[Markup]:
    """Shows the test images with the largest loss."""
    test, classes = material.test, material.results["dataset"]["classes"]
    if not material.students:
        return [element("p", "No student succeeded.")]
    tiles = (
        tile(
            test,
            image,
            joined("labeled ", element("b", classes[test.labels[image]])),
            student_predictions(test.students[:, image], classes),
            *_teacher_prediction(test, image, classes),
            joined(f"loss {loss:.2f}"),
        )
        for image, loss in findings.hardest(test.students, test.labels, HARDEST)
    )
    caption = (
        f"The {min(HARDEST, len(test.labels))} of {len(test.labels)} test images with the largest loss, −log p(label) "
        f"in nats, mean over {_students(material)}."
    )
    return [figure(element("div", *tiles, class_="tiles"), caption)]


def suspects(material: Material) -> list[Markup]:
    """Shows the images that all networks put into one class other than the label."""
    classes, sides = material.results["dataset"]["classes"], (material.test, material.validation)
    teacher = [] if sides[0].teacher is None else ["the teacher"]
    networks = " and ".join([*teacher, *([_students(material)] if material.students else [])])
    if not networks:
        return [element("p", "No network was measured.")]
    suspect_images = [
        (side, *suspect)
        for side in sides
        for suspect in findings.suspect_labels(side.teacher, side.students, side.labels)
    ]
    suspect_images.sort(key=lambda suspect: -suspect[3])
    intro = (
        f"A list to check: images for which {networks} agree on a class other than the label. Either the label is "
        "wrong, or the image fools all networks alike. Students learn from their teacher, so their agreement with it "
        "counts for less than that many separate opinions. "
        f"The list covers {len(sides[0].labels)} test and {len(sides[1].labels)} "
        "validation images, but no training images, because networks memorize their labels."
    )
    if not suspect_images:
        return [element("p", intro), element("p", "There is none.")]
    tiles = (
        tile(
            side,
            image,
            joined("labeled ", element("b", classes[side.labels[image]])),
            prediction("all say", classes[other], probability),
            joined(side.name),
        )
        for side, image, other, probability in suspect_images[:SUSPECTS]
    )
    caption = f"{_plural(len(suspect_images), 'image')}, the surest first; the mean of the networks' probabilities."
    parts = [element("p", intro), figure(element("div", *tiles, class_="tiles"), caption)]
    if rest := suspect_images[SUSPECTS:]:
        rows = (
            (
                element("span", side.names[image], class_="name"),
                classes[side.labels[image]],
                f"{classes[other]} {100 * probability:.0f} %",
                side.name,
            )
            for side, image, other, probability in rest
        )
        rest_table = table("More labels to check", ("file", "labeled", "all say", "split"), rows, "text")
        parts.append(details(f"The other {len(rest)}, without pictures", rest_table))
    return parts


def views(material: Material) -> list[Markup]:
    """Shows augmented views of some training images, and what the networks predict for them."""
    augmented, results = material.views, material.results
    classes, distill = results["dataset"]["classes"], results["config"]["distill"]
    rows = []
    for row, (name, label) in enumerate(zip(augmented.names, augmented.labels, strict=True)):
        cells = [joined(*lines(element("b", classes[label]), file_name(name)))]
        cells.append(picture(augmented.images[row], f"{name}, as it is stored"))
        for column, view in enumerate(augmented.views[row]):
            predictions = []
            if augmented.teacher is not None:
                predictions.append(teacher_prediction(augmented.teacher[row, column], classes))
            if len(augmented.students):
                predictions.append(student_predictions(augmented.students[:, row, column], classes))
            cells.append(joined(picture(view, f"view {column + 1} of {name}"), *lines(*predictions)))
        rows.append(cells)
    count = augmented.views.shape[1]
    header = ("training image", "as stored", *(f"view {column + 1}" for column in range(count)))
    subjects = "teacher and students asked about these pictures, the teacher at its own resolution"
    caption = (
        f"{len(augmented.names)} of {results['dataset']['splits']['train']} training images and "
        f"{_plural(count, 'view')} each, at the {results['student']['image_size']} px that a student sees. After "
        f"training, {subjects if results['teacher'] else 'students asked about these pictures'}. They were trained on "
        "views of these images, so being right here says little about new ones."
    )
    if results["teacher"] and augmented.teacher is None:
        caption += " The teacher's outputs were given as stored logits, so there is no teacher to ask."
    if distill.get("mixup"):
        caption += f" In training, pairs of views were mixed (mixup {distill['mixup']:g}); here they are not."
    return [figure(table("Augmented views", header, rows, "views text"), caption)]


def _students(material: Material) -> str:
    return _plural(len(material.students), "student")


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _teacher_prediction(side: Side, image: int, classes: Sequence[str]) -> list[Markup]:
    """Returns the teacher's class of an image; [] if the teacher was not measured."""
    return [] if side.teacher is None else [teacher_prediction(side.teacher[image], classes)]
