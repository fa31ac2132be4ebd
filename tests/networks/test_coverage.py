"""Every family of networks is in the tables of the tests that any network must pass."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

from kdjax import networks

TESTS = Path(__file__).parents[1]
TABLES = {  # the file, and the name of its table
    "networks/test_networks.py": "CASES",
    "networks/test_pretrained.py": "NAMINGS",
    "deploy/test_export.py": "CASES",
}


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
@pytest.mark.parametrize("file", TABLES)
def test_each_family_is_tested(family, file):
    text = (TESTS / file).read_text(encoding="utf-8")
    table = re.search(rf"^{TABLES[file]} = (.*?)^\S", text + "\n#", re.M | re.S)[1]
    named = [name for name in FAMILIES[family] if f'"{name}"' in table]
    if TABLES[file] == "NAMINGS" and not named:  # those that have both namings are listed above
        named = [name for name in FAMILIES[family] if f'"{name}"' in re.search(r"^BOTH = .*$", text, re.M)[0]]
    assert named, f"tests/{file}: add one of {', '.join(FAMILIES[family])} to {TABLES[file]}"
