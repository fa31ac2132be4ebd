"""The command line: answered before JAX is imported, one line for each mistake."""

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from kdjax import flags
from kdjax.config import from_file
from kdjax.errors import InputError

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--help"], 0, "--workdir"),
        (["--stages=nonsense"], 2, "unknown stage 'nonsense'"),
        (["--stages="], 2, "--stages is empty"),
        (["--color=red"], 2, "color"),
        (["--config.student.epocs=3"], 2, "--config.student.epocs: there is no such field; did you mean epochs?"),
        (["--config=configs/none.py"], 2, "there is no file configs/none.py"),
        (["demo"], 2, "unexpected argument 'demo'"),
        (["--workdir=runs/[1]"], 2, "choose another name"),
    ],
)
def test_a_mistake_is_answered_without_jax(arguments, status, said):
    code = (
        "import sys\nfrom kdjax import main\ntry:\n    main.run()\nfinally:\n"
        "    print('jax' in sys.modules, 'flax' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == status and said in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "False False"
    assert status == 0 or done.stderr.count("\n") == 1


def config(tmp_path, body, head="from kdjax.config import base\n"):
    path = tmp_path / "mine.py"
    path.write_text(f"{head}def get_config(arg=''):\n    c = base()\n    {body}\n    return c\n")
    return str(path)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("c.student.epcohs = 99", "line 4: AttributeError: .*epochs"),
        ("c.distill.temprature = 2", "line 4: AttributeError: .*temperature"),
        ("c.sedes = (1,)", "line 4: AttributeError: .*seeds"),
        ("c.seeds = 3", "line 4: TypeError"),
        ("c.student.epochs = 'many'", "line 4: TypeError"),
        ("import nowhere_to_be_found", "line 4: ModuleNotFoundError: .*nowhere_to_be_found"),
        ("import sys; sys.exit(3)", "line 4: SystemExit: 3"),
        ("return None", "returns no configuration"),
        ("return {}", "returns no configuration"),
        ("c.student.epochs = = 3", "line 4: SyntaxError"),
        ("1 / 0", "line 4: ZeroDivisionError"),
    ],
)
def test_mistakes_in_a_config_file_name_its_line(tmp_path, body, said):
    with pytest.raises(InputError, match=f"--config: .*{said}") as caught:
        flags.load_config(config(tmp_path, body))
    assert "\n" not in str(caught.value)


def test_a_config_file_has_a_get_config(tmp_path):
    (tmp_path / "empty.py").write_text("x = 1\n")
    outer = config(tmp_path, "from kdjax.config import from_file; return from_file(arg)")
    for given in (tmp_path / "empty.py", f"{outer}:{tmp_path / 'empty.py'}"):
        with pytest.raises(InputError, match=r"^--config: \S*empty.py has no get_config\(\)$"):
            flags.load_config(str(given))


def test_arms_of_ones_own_may_be_added_and_the_argument_is_handed_over(tmp_path):
    path = config(tmp_path, "c.arms.mine = {'ce': 1.0}; c.name = arg or 'none'")
    assert flags.load_config(f"{path}:a,b:c").name == "a,b:c"
    assert flags.load_config(path).name == flags.load_config(f"{path}:").name == "none"
    assert flags.load_config(path).arms.mine.ce == 1.0


def test_the_default_of_a_config_file_counts_where_there_is_no_argument(tmp_path):
    """As where ml_collections reads the file."""
    path = tmp_path / "own.py"
    path.write_text(
        "from kdjax.config import base\ndef get_config(size=64):\n    c = base()\n    c.name = f'at_{int(size)}'\n"
        "    return c\n"
    )
    assert flags.load_config(str(path)).name == from_file(path).name == from_file(path, "").name == "at_64"
    assert flags.load_config(f"{path}:32").name == from_file(path, "32").name == "at_32"


@pytest.mark.parametrize("given", ["", "~nobody-of-this-name/run"])
def test_a_workdir_that_names_nothing_is_refused(given):
    with pytest.raises(InputError, match="--workdir: .*give"):
        flags.parse(["kdjax", f"--workdir={given}"])


def test_the_command_line_overrides_the_file_and_the_last_file_counts(tmp_path):
    path = config(tmp_path, "c.name = 'mine'")
    options = flags.parse(
        ["kdjax", "--config=none.py", f"--config={path}", "--config.seeds=(4,5)", "--config.student.epochs=2"]
    )
    assert options.config.seeds == (4, 5) and options.config.student.epochs == 2
    assert options.workdir == Path("runs/mine") and options.stages == ("teacher", "distill", "evaluate")


def test_a_field_given_twice_has_its_last_value():
    """ml_collections adds up the values of a tuple that is given twice."""
    arguments = [
        "kdjax", "--config.seeds=(0,1)", "--config.seeds", "(2,)", "--workdir=runs/x", "--config.student.epochs=3",
        "--config.distill.arms=('kl',)", "--config.student.epochs", "4", "--config.distill.arms=('cosine',)",
        "--config.run.tensorboard", "--config.run.litert=True",
    ]  # fmt: skip
    config = flags.parse(arguments).config
    assert tuple(config.seeds) == (2,) and config.student.epochs == 4 and tuple(config.distill.arms) == ("cosine",)
    assert config.run.tensorboard is True and config.run.litert is True


def test_every_stage_has_its_function():
    names = {name: pkgutil.resolve_name(place).__name__ for name, place in flags.STAGES.items()}
    assert names == {name: "train_teacher" if name == "teacher" else name for name in names}
    assert list(names) == ["describe", "teacher", "distill", "evaluate", "export", "report"]
