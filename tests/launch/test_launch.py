"""The shell files that the launch scripts share, with stand-ins for Python."""

import os
import shutil
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

    installing = f"installing kdjax and its dependencies into {tmp_path / 'venv'}: this may take minutes\n"
    assert source("one") == (["installed"], installing)
    assert source("one") == ([], "")
    assert source("one", "test") == (["installed"], installing)
    assert source("one") == ([], "")
    installed, said = source("two")
    assert installed and said.count("\n") == 2 and said.endswith(installing)
    assert f"ran kdjax from {tmp_path / 'one'}" in said and f"runs {tmp_path / 'two'}" in said
    assert source("one")[0] == ["installed"]  # the environment runs the other checkout by now


NO_ENSUREPIP = f"""#!/bin/bash
# As Debian's without python3-venv; of its own it only answers a question.
exec {sys.executable} -c "import sys; sys.modules['ensurepip'] = None; exec(sys.argv[1])" "$2"
"""


def test_a_python_that_cannot_install_pip_is_skipped(bash, tmp_path):
    place(tmp_path / "bin" / "python3.12", NO_ENSUREPIP)
    real = place(tmp_path / "bin" / "python3.11", REAL)
    assert bash(f"{FIND} 3.12 3.11").stdout == f"{real}\n"


# A Python that makes environments quickly and without pip, says what it installs and where, and is else a real one.
QUICK = f"""#!/bin/bash
case "$*" in
  "-m venv"*) exec {sys.executable} -m venv --without-pip "${{@:3}}" ;;
  *) exec {sys.executable} "$@" ;;
esac
"""


@pytest.fixture
def activated(tmp_path):
    """Sources environment.sh for a checkout, up to what it installs; gives the status and what was said."""
    place(tmp_path / "bin" / "python3.12", QUICK)
    place(tmp_path / "bin" / "python", QUICK)

    def source(checkout, **variables):
        place(checkout / "pyproject.toml", "[project]\n")
        place(checkout / "launch" / "pythons.sh", (ROOT / "launch" / "pythons.sh").read_text(encoding="utf-8"))
        # In place of pip: where it would install.
        script = (
            f"set -euo pipefail; root={checkout}; "
            'python() { case "$*" in *"pip install"*) command python -I -c "import sys; print(sys.prefix)" ;; '
            '*) command python "$@" ;; esac; }; '
            f"source {ROOT / 'launch' / 'environment.sh'} ''"
        )
        environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        environment["PATH"] = f"{tmp_path / 'bin'}:{environment['PATH']}"
        done = subprocess.run(
            ["bash", "-c", script], env={**environment, **variables}, capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stdout.strip(), done.stderr.strip()

    return source


def test_a_checkout_has_an_environment_of_its_own_wherever_it_goes(activated, tmp_path):
    one, two, copied = tmp_path / "one", tmp_path / "two", tmp_path / "copied"
    installing = "installing kdjax and its dependencies into {}: this may take minutes"
    assert activated(one) == (0, str(one / ".venv"), installing.format(one / ".venv"))
    assert activated(one) == (0, "", "")
    shutil.copytree(one, copied, symlinks=True)  # `activate` there is of the first
    assert activated(copied) == (0, str(copied / ".venv"), installing.format(copied / ".venv"))
    one.rename(two)
    assert activated(two) == (0, str(two / ".venv"), installing.format(two / ".venv"))
    assert activated(two) == (0, "", "")


def test_an_environment_that_is_not_that_of_python_is_refused(activated, tmp_path):
    checkout = tmp_path / "one"
    for stale in (tmp_path / "gone", tmp_path):
        status, out, said = activated(checkout, VIRTUAL_ENV=str(stale))
        assert (status, out) == (2, "") and said.count("\n") == 0 and f"VIRTUAL_ENV is {stale}" in said
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("script", ["local.sh", "test.sh", "tpu_vm.sh"])
def test_an_exported_cdpath_does_not_matter(tmp_path, script):
    checkout = tmp_path / "checkout"
    place(checkout / "launch" / script, (ROOT / "launch" / script).read_text(encoding="utf-8"))
    place(checkout / "launch" / "environment.sh", 'printf "%q\\n" "$root"; exit\n')
    place(tmp_path / "bin" / "git", '#!/bin/bash\nprintf "%q\\n" "$2" >&2\n')  # its -C
    place(tmp_path / "bin" / "gcloud", "#!/bin/bash\n")
    environment = {**os.environ, "CDPATH": ".:/tmp", "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    command = ["bash", f"launch/{script}", "name", "zone"]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and {*done.stdout.splitlines(), *done.stderr.splitlines()} == {str(checkout)}


def test_a_worker_takes_the_commit_of_any_branch(tmp_path):
    """On a first start it clones, on a second it fetches; the commit was pushed to a branch that is not the default."""
    work, given = tmp_path / "work", tmp_path / "given.git"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        **{f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        "HOME": str(tmp_path / "home"),
        "KDJAX_REPOSITORY": str(given),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    }
    git = lambda *words: subprocess.run(["git", "-C", str(work), *words], env=environment, check=True, timeout=60)
    place(work / "launch" / "tpu_vm.sh", (ROOT / "launch" / "tpu_vm.sh").read_text(encoding="utf-8"))
    place(work / "launch" / "local.sh", "#!/bin/bash\ncat number\n")
    place(tmp_path / "bin" / "gcloud", '#!/bin/bash\nlast=${@: -1:1}\nexec bash -c "${last#--command=}"\n')
    place(tmp_path / "bin" / "curl", "#!/bin/bash\necho 0\n")
    (tmp_path / "home").mkdir()
    subprocess.run(["git", "init", "--quiet", "--bare", str(given)], env=environment, check=True, timeout=60)
    git("init", "--quiet", "--initial-branch=main")
    for number, branch in enumerate(("main", "main", "feature")):
        (work / "number").write_text(str(number))
        git("checkout", "--quiet", "-B", branch)
        git("add", "--all")
        git("commit", "--quiet", "--message=one")
        git("push", "--quiet", str(given), branch)
        command = ["bash", str(work / "launch" / "tpu_vm.sh"), "name", "zone"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, str(number)), done.stderr


@pytest.fixture
def array_task(tmp_path):
    """Runs slurm.sbatch as one task of an array; gives the flags that kdjax gets, or what is said."""
    place(tmp_path / "launch" / "environment.sh", "")
    place(tmp_path / "bin" / "srun", '#!/bin/bash\nprintf "%s\\n" "${@:5}"\n')

    def run(configs, task):
        environment = {
            **os.environ,
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_ARRAY_TASK_ID": str(task),
            "KDJAX_CONFIGS": configs,
        }
        command = ["bash", str(ROOT / "launch" / "slurm.sbatch")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        return done.stdout.splitlines() if done.returncode == 0 else (done.returncode, done.stderr)

    return run


def test_each_config_of_an_array_has_a_folder_of_its_own(array_task):
    configs = "configs/demo.py  configs/ablation.py:eurosat\n\tmine/my.pyramid.py\nmine/a.py:b/c.py,d"
    expected = [
        ("configs/demo.py", "demo"),
        ("configs/ablation.py:eurosat", "ablation-eurosat"),
        ("mine/my.pyramid.py", "my.pyramid"),
        ("mine/a.py:b/c.py,d", "a-b-c.py-d"),
    ]
    for task, (config, name) in enumerate(expected):
        assert array_task(configs, task) == [f"--config={config}", f"--workdir=runs/{name}"]
    status, said = array_task(configs, 4)
    assert status == 2 and "no config number 4" in said


@pytest.mark.parametrize("configs", ["a/demo.py b/demo.py", "a/demo.py:x,y c.py a/demo.py:x:y", "c.py c.py"])
def test_two_configs_of_an_array_that_would_share_a_folder_are_refused(array_task, configs):
    for task in (0, len(configs.split()) - 1):
        status, said = array_task(configs, task)
        assert status == 2 and said.count("\n") == 1 and said.startswith("error: ") and "would both write to" in said
