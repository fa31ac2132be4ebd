"""What the documents name exists: links, files, commands, config fields, configs with their arguments, and tables."""

import contextlib
import importlib
import re
import runpy
from pathlib import Path

import pytest

from kdjax.config import base, from_file
from kdjax.flags import STAGES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
DOCUMENTS = [*PAGES, *sorted(ROOT.glob("configs/*.py")), *sorted(ROOT.glob("examples/*.py"))]

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page):
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def has_field(field):
    section = base()
    for name in field.split("."):
        if not hasattr(section, "keys") or name not in section.keys():
            return False
        section = section[name]
    return True


def flags_of(module, capsys):
    """The flags that the help of a command lists."""
    folder = (ROOT / module.replace(".", "/")).is_dir()
    with contextlib.suppress(SystemExit):  # argparse ends the process after its help
        importlib.import_module(f"{module}.__main__" if folder else module).main(["--help"])
    return set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", capsys.readouterr().out, re.MULTILINE))


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked if linked.suffix else linked / "README.md"), target


@documents
def test_files_exist(document):
    text = document.read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w/.])((?:kdjax|configs|tests|launch|docs|examples|\.ci)/[\w./*-]*[\w/*])", text)
    # In a recipe NAME stands for what the reader writes.
    missing = [path for path in named if not any(ROOT.glob(path.rstrip("/").replace("NAME", "*")))]
    assert not missing


def test_raw_figures_exist():
    folder = ROOT / "docs" / "results"
    text = (folder / "README.md").read_text(encoding="utf-8")
    data = set(re.findall(r"`([\w*]+\.jsonl?)`", text))
    missing = [name for name in data if not any(folder.glob(name))]
    assert len(data) > 10 and not missing


def test_every_raw_file_is_named():
    folder = ROOT / "docs" / "results"
    text = "".join(page.read_text(encoding="utf-8") for page in ROOT.glob("docs/**/*.md"))
    patterns = re.findall(r"([\w*]+\.jsonl?)`", text)
    files = [path for path in folder.iterdir() if path.suffix in (".json", ".jsonl")]
    assert not [path.name for path in files if not any(path.match(pattern) for pattern in patterns)]


@documents
def test_fields_exist(document):
    text = document.read_text(encoding="utf-8")
    fields = re.findall(r"--config\.([\w.]*\w)", text)
    fields += re.findall(r"`((?:dataset|teacher|student|distill)\.\w[\w.]*\w)[`=]", text)
    exported = re.compile(r"student\.(\w+\.)?(onnx|tflite|stablehlo|safetensors)")  # files, not fields
    assert not [field for field in fields if not has_field(field) and not exported.fullmatch(field)]


@documents
def test_commands_exist(document):
    for module in re.findall(r"python -m (kdjax[\w.]*\w)", document.read_text(encoding="utf-8")):
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), module


@documents
def test_commands_take_the_flags_they_are_given(document, capsys):
    command = re.compile(r"python -m (kdjax\.(?:deploy|report|results)[\w.]*\w)((?:\\\n|[^\n`|])*)")
    for module, arguments in command.findall(document.read_text(encoding="utf-8")):
        assert set(re.findall(r"\s(--[\w-]+)", arguments)) <= flags_of(module, capsys), module


@documents
def test_configs_take_the_arguments_they_are_given(document):
    for name, argument in re.findall(r"\b(\w+)\.py:([\w.,]*\w)", document.read_text(encoding="utf-8")):
        assert from_file(ROOT / "configs" / f"{name}.py", argument).name


@pages
def test_stages_and_arms_exist(page):
    text = page.read_text(encoding="utf-8")
    stages = {stage for stages in re.findall(r"--stages=([\w,]+)", text) for stage in stages.split(",")}
    assert stages <= set(STAGES)
    arms = {
        arm for arms in re.findall(r"--config\.distill\.arms=\"(.+?)\"", text) for arm in re.findall(r"'(\w+)'", arms)
    }
    known = base().arms
    assert not [arm for arm in arms if re.sub(r"_\d$", "", arm) not in known]


def test_tables_are_those_of_the_raw_figures():
    shown = "".join((ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/results/README.md"))
    tables = runpy.run_path(str(ROOT / "docs" / "results" / "draw.py"))["tables"]()
    assert len(tables) == 5
    for table in tables:
        assert table in shown
