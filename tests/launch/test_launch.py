"""The shell files that the launch scripts share, with stand-ins for Python."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIM = "#!/bin/sh\necho 'pyenv: python3.12: command not found' >&2\nexit 127\n"
OLD = "#!/bin/sh\nexit 1\n"  # what the question for 3.11 or later is answered with
REAL = f'#!/bin/sh\nexec {sys.executable} "$@"\n'


def place(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def bash(tmp_path):
    """Runs bash where only `tmp_path`/bin, `tmp_path`/later and the programs of the system are found."""

    def run(script, **variables):
        environment = {"PATH": f"{tmp_path / 'bin'}:{tmp_path / 'later'}:/nowhere", "HOME": str(tmp_path)}
        return subprocess.run(
            ["/bin/bash", "-c", script], env={**environment, **variables}, capture_output=True, text=True, timeout=60
        )

    return run


FIND = f"source {ROOT / 'launch' / 'pythons.sh'}; find_python"


def test_a_shim_that_does_not_run_is_skipped_for_the_next_version(bash, tmp_path):
    place(tmp_path / "bin" / "python3.12", SHIM)
    real = place(tmp_path / "bin" / "python3.11", REAL)
    done = bash(f"{FIND} 3.12 3.11 3")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{real}\n", "")


def test_behind_a_shim_the_same_version_is_looked_for_further_on(bash, tmp_path):
    place(tmp_path / "bin" / "python3.12", SHIM)
    place(tmp_path / "bin" / "python3.11", REAL)
    of_pyenv = place(tmp_path / ".pyenv" / "versions" / "3.12.1" / "bin" / "python3.12", REAL)
    assert bash(f"{FIND} 3.12 3.11").stdout == f"{of_pyenv}\n"
    on_path = place(tmp_path / "later" / "python3.12", REAL)
    assert bash(f"{FIND} 3.12 3.11").stdout == f"{on_path}\n"
    elsewhere = place(tmp_path / "pyenv" / "versions" / "3.13.0" / "bin" / "python3.13", REAL)
    assert bash(f"{FIND} 3.13", PYENV_ROOT=str(tmp_path / "pyenv")).stdout == f"{elsewhere}\n"


def test_where_none_runs_the_status_says_so(bash, tmp_path):
    place(tmp_path / "bin" / "python3.12", SHIM)
    place(tmp_path / "bin" / "python3", OLD)
    done = bash(f"set -euo pipefail; {FIND} 3.12 3 || echo none")
    assert (done.stdout, done.stderr) == ("none\n", "")


STAND_IN = """#!/bin/bash
# Its installation of kdjax is a file that names the checkout.
held=$VIRTUAL_ENV/held
case "$*" in
  *find_spec*) [[ -e $held ]] && echo "$(<"$held")/kdjax/__init__.py"; exit 0 ;;
  *install*) target=${@: -1}; echo "${target%%[*}" >"$held"; echo installed ;;
esac
"""


def test_an_environment_is_installed_once_and_a_change_of_checkout_is_said(tmp_path):
    place(tmp_path / "venv" / "bin" / "python", STAND_IN)
    for name in ("one", "two"):
        place(tmp_path / name / "pyproject.toml", "[project]\n")

    def source(checkout, extras=""):
        script = (
            f"set -euo pipefail; root={tmp_path / checkout}; source {ROOT / 'launch' / 'environment.sh'} '{extras}'"
        )
        environment = {**os.environ, "VIRTUAL_ENV": str(tmp_path / "venv")}
        environment["PATH"] = f"{tmp_path / 'venv' / 'bin'}:{environment['PATH']}"
        done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
        return done.stdout.split(), done.stderr

    assert source("one") == (["installed"], "")
    assert source("one") == ([], "")
    assert source("one", "test") == (["installed"], "")
    assert source("one") == ([], "")
    installed, said = source("two")
    assert installed and said.count("\n") == 1
    assert f"ran kdjax from {tmp_path / 'one'}" in said and f"runs {tmp_path / 'two'}" in said
    assert source("one")[0] == ["installed"]  # the environment runs the other checkout by now
