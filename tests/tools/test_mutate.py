"""The mutants are those of the code as it is, and those who survive are told."""

import subprocess
import sys
from pathlib import Path

import pytest
from tools import mutate

ROOT = Path(__file__).parents[2]


def test_every_mutant_changes_one_line_and_has_tests():
    assert len(mutate.MUTANTS) >= 60
    assert len({(one.file, one.old, one.new) for one in mutate.MUTANTS}) == len(mutate.MUTANTS)
    for one in mutate.MUTANTS:
        before = (ROOT / one.file).read_text(encoding="utf-8")
        assert mutate.applied(one, before) != before
        for path in one.tests.split(" -")[0].split():
            assert (ROOT / path).exists(), path


def test_a_line_that_is_not_there_is_said():
    gone = mutate.Mutant("kdjax/errors.py", "never there", "", "tests/results")
    with pytest.raises(SystemExit, match="0 times"):
        mutate.applied(gone, (ROOT / gone.file).read_text(encoding="utf-8"))


def test_where_ci_is_set_a_missing_package_fails(monkeypatch, pytestconfig):
    conftest = pytestconfig.pluginmanager.get_plugin(str(ROOT / "tests" / "conftest.py"))
    monkeypatch.setattr(conftest, "COMPARED", ("numpy", "no_such_package"))
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.UsageError, match="install no_such_package"):
        conftest.pytest_configure()
    monkeypatch.delenv("CI")
    conftest.pytest_configure()


@pytest.mark.slow
def test_mutants_are_killed_and_survivors_are_told(tmp_path):
    cheap = [number for number, one in enumerate(mutate.MUTANTS) if one.tests.startswith("tests/results/")][:2]
    chosen = ",".join(map(str, cheap))
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "tools" / "mutate.py", f"--only={chosen}"],
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "2 of 2 mutants killed", done.stdout + done.stderr
    (tmp_path / "programs").mkdir()
    copy = mutate.Copy(mutate.copied(tmp_path), tmp_path / "programs")
    harmless = mutate.Mutant("kdjax/errors.py", '"""', '""" ', "tests/results/test_comparison.py")
    text = (copy.place / harmless.file).read_text(encoding="utf-8")
    harmless = mutate.Mutant(harmless.file, text, text + "\n# harmless\n", harmless.tests)
    assert copy.killed(harmless) is False
    assert (copy.place / harmless.file).read_text(encoding="utf-8") == text
