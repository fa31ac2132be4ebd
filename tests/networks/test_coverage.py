"""Every family of networks is in the tables of the tests that any network must pass."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

from kdjax import networks
from kdjax.networks import graph

TESTS = Path(__file__).parents[1]
TABLES = (  # the file, and the name of its table
    ("networks/test_networks.py", "CASES"),
    ("networks/test_networks.py", "TRAINED"),
    ("networks/test_networks.py", "GRADIENTS"),
    ("networks/test_networks.py", "ONE_OF_EACH"),
    ("networks/test_input_bands.py", "FAMILIES"),
    ("networks/test_pretrained.py", "NAMINGS"),
    ("deploy/test_export.py", "CASES"),
    ("deploy/test_export.py", "REFERENCES"),
)


def families():
    for module in pkgutil.iter_modules(networks.__path__):
        found = getattr(importlib.import_module(f"kdjax.networks.{module.name}"), "MODELS", None)
        if found is not None:
            yield module.name, tuple(found)


FAMILIES = dict(families())


def test_families_are_found():
    assert {"vgg16", "mobilenet_v2", "resnet"} <= FAMILIES.keys()
    assert {name for names in FAMILIES.values() for name in names} == networks.MODELS.keys()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("file", "name"), TABLES)
def test_each_family_is_tested(family, file, name):
    text = (TESTS / file).read_text(encoding="utf-8")
    table = re.search(rf"^{name} = (.*?)^[^\s)\]}}]", text + "\n#", re.M | re.S)[1]
    named = [one for one in FAMILIES[family] if re.search(rf'"{one}[" ]', table)]
    if name == "NAMINGS" and not named:  # those that have both namings are listed above
        named = [one for one in FAMILIES[family] if f'"{one}"' in re.search(r"^BOTH = .*$", text, re.M)[0]]
    assert named, f"tests/{file}: add one of {', '.join(FAMILIES[family])} to {name}"


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_has_a_row_in_the_documentation(family):
    text = (TESTS.parent / "docs" / "experiments.md").read_text(encoding="utf-8")
    assert any(f"`{name}`" in text for name in FAMILIES[family])


@pytest.mark.parametrize("writers", ["onnx_graph.WRITERS", "litert_graph.WRITERS", "stablehlo.OPERATIONS"])
def test_every_operation_has_a_writer(writers):
    """Else it would be missed in the export, behind the training."""
    pytest.importorskip("onnx")
    module, table = writers.split(".")
    written = getattr(importlib.import_module(f"kdjax.deploy.export.{module}"), table)
    assert set(written) == set(graph.Node.__subclasses__())
