"""The report shows an export as its run's where it is of a student of that run, and says so where it is not."""

import json

import pytest
from helpers.report_material import exported, material

from kdjax.report import page, stage

FOREIGN = {
    "arm": {"arm": "dist"},
    "seed": {"seed": 9},
    "figures": {"test": {"count": 60, "top1": 0.69, "nll": 2.4739}},
    "top-1 alone": {"top1": 0.0},
    "loss alone": {"nll": 9.0},
    "no figures": {"test": None},
    "no figure": {"test": {}},
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_an_export_of_another_student_is_left_out_with_a_word(run, capsys, kind):
    given, changed = material(seeds=(0,)), FOREIGN[kind]
    parity = exported(given)
    if kind.endswith("alone"):
        changed = {"test": parity["student"]["test"] | changed}
    parity["student"] |= changed
    (run.workdir / "export" / "parity.json").write_text(json.dumps(parity))
    stage.report(run)
    assert (run.workdir / "report.html").read_text(encoding="utf-8") == page.render(given)
    assert "parity.json is left out, as its student is none of results.json: run --stages=export again" in (
        capsys.readouterr().out
    )


def test_an_export_that_was_computed_by_another_program_is_of_the_student_still(run, capsys):
    """It adds in another order."""
    parity = exported(material(seeds=(0,)))
    parity["student"]["test"]["nll"] *= 1 + 1e-5
    (run.workdir / "export" / "parity.json").write_text(json.dumps(parity))
    stage.report(run)
    assert "left out" not in capsys.readouterr().out
    assert "Exported files" in (run.workdir / "report.html").read_text(encoding="utf-8")
