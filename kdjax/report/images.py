"""The sections of images: classes taken for each other, hard images, labels to check, augmented views."""

from collections.abc import Sequence

from kdjax.report import findings
from kdjax.report.markup import Markup, element, joined
from kdjax.report.material import Material, Side
from kdjax.report.parts import details, figure, file_name, lines, picture, says, students_say, table, teacher_says, tile

PAIRS, PAIR_IMAGES, HARDEST, SUSPECTS = 6, 6, 12, 24


def confused(material: Material) -> list[Markup]:
    """The pairs of classes that students take for each other, with the images."""
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
    shown_pairs = []
    for pair in pairs[:PAIRS]:
        shown = list(zip(pair.images, pair.networks, strict=True))[:PAIR_IMAGES]
        tiles = (
            tile(test, image, joined(f"{count} of {students}"), *_teacher_says(test, image, classes))
            for image, count in shown
        )
        caption = (
            f"{_counted(pair.mistakes, 'mistake')} on {_counted(len(pair.images), 'image')}"
            + (f", {len(shown)} of them shown" if len(pair.images) > len(shown) else "")
            + ("." if test.teacher is None else f"; the teacher made {by_teacher.get((pair.true, pair.predicted), 0)}.")
        )
        heading = element("h3", f"{classes[pair.true]} taken for {classes[pair.predicted]}")
        pictures = figure(element("div", *tiles, class_="tiles"), caption)
        shown_pairs.append(element("div", heading, pictures, class_="pair"))
    return [element("p", intro), element("div", *shown_pairs, class_="pairs")]


def hardest(material: Material) -> list[Markup]:
    """The test images with the largest loss."""
    test, classes = material.test, material.results["dataset"]["classes"]
    if not material.students:
        return [element("p", "No student succeeded.")]
    tiles = (
        tile(
            test,
            image,
            joined("labeled ", element("b", classes[test.labels[image]])),
            students_say(test.students[:, image], classes),
            *_teacher_says(test, image, classes),
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
    """Images whose label all networks deny with one voice."""
    classes, sides = material.results["dataset"]["classes"], (material.test, material.validation)
    teacher = [] if sides[0].teacher is None else ["the teacher"]
    who = " and ".join([*teacher, *([_students(material)] if material.students else [])])
    if not who:
        return [element("p", "No network was measured.")]
    found = [
        (side, *one) for side in sides for one in findings.suspect_labels(side.teacher, side.students, side.labels)
    ]
    found.sort(key=lambda one: -one[3])
    intro = (
        f"A list to check: images for which {who} agree on a class other than the label. Either the label is wrong, "
        "or the image fools all networks alike. Students learn from their teacher, so their agreement with it counts "
        "for less than that many separate opinions. "
        f"The list covers {len(sides[0].labels)} test and {len(sides[1].labels)} "
        "validation images, but no training images, because networks memorize their labels."
    )
    if not found:
        return [element("p", intro), element("p", "There is none.")]
    tiles = (
        tile(
            side,
            image,
            joined("labeled ", element("b", classes[side.labels[image]])),
            says("all say", classes[other], probability),
            joined(side.name),
        )
        for side, image, other, probability in found[:SUSPECTS]
    )
    caption = f"{_counted(len(found), 'image')}, the surest first; the mean of the networks' probabilities."
    parts = [element("p", intro), figure(element("div", *tiles, class_="tiles"), caption)]
    if more := found[SUSPECTS:]:
        rows = (
            (
                element("span", side.names[image], class_="name"),
                classes[side.labels[image]],
                f"{classes[other]} {100 * probability:.0f} %",
                side.name,
            )
            for side, image, other, probability in more
        )
        listed = table("More labels to check", ("file", "labeled", "all say", "split"), rows, "text")
        parts.append(details(f"The other {len(more)}, without pictures", listed))
    return parts


def views(material: Material) -> list[Markup]:
    """What augmentation makes of some training images, and what the networks say of it."""
    shown, results = material.views, material.results
    classes, distill = results["dataset"]["classes"], results["config"]["distill"]
    rows = []
    for row, (name, label) in enumerate(zip(shown.names, shown.labels, strict=True)):
        cells = [joined(*lines(element("b", classes[label]), file_name(name)))]
        cells.append(picture(shown.images[row], f"{name}, as it is stored"))
        for column, view in enumerate(shown.views[row]):
            said = []
            if shown.teacher is not None:
                said.append(teacher_says(shown.teacher[row, column], classes))
            if len(shown.students):
                said.append(students_say(shown.students[:, row, column], classes))
            cells.append(joined(picture(view, f"view {column + 1} of {name}"), *lines(*said)))
        rows.append(cells)
    count = shown.views.shape[1]
    header = ("training image", "as stored", *(f"view {column + 1}" for column in range(count)))
    asked = "teacher and students asked about these pictures, the teacher at its own resolution"
    caption = (
        f"{len(shown.names)} of {results['dataset']['splits']['train']} training images and {_counted(count, 'view')} "
        f"each, at the {results['student']['image_size']} px that a student sees. After training, "
        f"{asked if results['teacher'] else 'students asked about these pictures'}. They were trained on views of "
        "these images, so being right here says little about new ones."
    )
    if results["teacher"] and shown.teacher is None:
        caption += " The teacher's outputs were given as stored logits, so there is no teacher to ask."
    if distill.get("mixup"):
        caption += f" In training, pairs of views were mixed (mixup {distill['mixup']:g}); here they are not."
    return [figure(table("Augmented views", header, rows, "views text"), caption)]


def _students(material: Material) -> str:
    return _counted(len(material.students), "student")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _teacher_says(side: Side, image: int, classes: Sequence[str]) -> list[Markup]:
    """The teacher's class of an image, where it was measured."""
    return [] if side.teacher is None else [teacher_says(side.teacher[image], classes)]
