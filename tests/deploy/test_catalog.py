"""The STAC item and the head of the model card, by the libraries that read them; and what bad input ends in."""

import datetime
import hashlib
import json

import pytest
from refusal import refused

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from helpers.export_folder import CLASSES, FIGURES, SIDE, TRUST, write_export  # noqa: E402
from huggingface_hub import ModelCard  # noqa: E402

from kdjax.data.meaning import Meaning  # noqa: E402
from kdjax.deploy import catalog, stac  # noqa: E402
from kdjax.deploy.export.card_head import head  # noqa: E402
from kdjax.deploy.landuse_map import legend  # noqa: E402


@pytest.fixture
def export(tmp_path):
    folder = tmp_path / "export"
    write_export(folder)
    return folder


def described(export, *flags):
    catalog.main([str(export), *flags])
    return json.loads((export / "stac_item.json").read_text(encoding="utf-8"))


def test_what_is_not_known_is_not_claimed(export, capsys):
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    item = described(export)
    facts = item["properties"]
    assert item["geometry"] is None and "bbox" not in item and not {"license", "gsd"} & facts.keys()
    assert before <= datetime.datetime.fromisoformat(facts["datetime"]) <= datetime.datetime.now(datetime.UTC)
    assert "Where its images lie is not known. When its images were taken is not known" in facts["description"]
    assert facts["mlm:pretrained"] is False and facts["mlm:pretrained_source"] is None
    assert "license unknown; give it by --license" in capsys.readouterr().out
    assert ModelCard((export / "README.md").read_text(encoding="utf-8")).data.license == "unknown"


def test_what_is_given_is_said(export):
    item = described(export, "--bbox=5.5,45,10,47.5", "--time=2016-04-01/2016-09-30", "--license=CC-BY-4.0")
    facts = item["properties"]
    assert item["bbox"] == [5.5, 45, 10, 47.5]
    (ring,) = item["geometry"]["coordinates"]
    assert ring == [[5.5, 45], [10, 45], [10, 47.5], [5.5, 47.5], [5.5, 45]]  # closed, anticlockwise
    assert facts["datetime"] is None and facts["license"] == "CC-BY-4.0"
    assert (facts["start_datetime"], facts["end_datetime"]) == ("2016-04-01T00:00:00Z", "2016-09-30T23:59:59Z")
    assert "The area is what the model was said to be for. The time is that of its images." in facts["description"]
    assert described(export)["properties"]["license"] == "CC-BY-4.0"  # the card has it still, in the hub's spelling


def test_places_and_pixels_of_the_data_are_known(tmp_path):
    export = tmp_path / "export"
    write_export(export, Meaning((0.0, 10000.0), ("16-bit",), 64, 10.0, 640), bounds=[9, 48, 9.5, 48.25])
    item = described(export)
    assert item["bbox"] == [9, 48, 9.5, 48.25] and item["properties"]["gsd"] == 10
    assert "The area is that of the middles of its tiles." in item["properties"]["description"]
    assert "0 to 10000 become 0 to 255" in item["properties"]["mlm:input"][0]["description"]
    assert described(export, "--bbox=-180,-90,180,90")["bbox"] == [-180, -90, 180, 90]
    assert described(export, "--bbox=176,-20,-178,-12")["bbox"] == [176, -20, -178, -12]  # across 180 degrees


def test_a_place_across_180_degrees_has_two_parts(tmp_path):
    export = tmp_path / "export"
    write_export(export, Meaning((0.0, 10000.0), ("16-bit",), 64, 10.0, 640), bounds=[178.5, -18, -178, -16])
    item = described(export)
    assert item["bbox"] == [178.5, -18, -178, -16] and item["geometry"]["type"] == "MultiPolygon"
    assert item["geometry"]["coordinates"] == [
        [[[178.5, -18], [180, -18], [180, -16], [178.5, -16], [178.5, -18]]],
        [[[-180, -18], [-178, -18], [-178, -16], [-180, -16], [-180, -18]]],
    ]
    pytest.importorskip("jsonschema")
    validation = pytest.importorskip("pystac.validation")
    assert validation.validate_dict({**item, "stac_extensions": []})


def test_the_item_describes_the_files(export):
    item = described(export)
    facts, assets = item["properties"], item["assets"]
    (given,), (logits, drawn) = facts["mlm:input"], facts["mlm:output"]
    assert given["name"] == "images" and given["input"]["shape"] == [-1, SIDE, SIDE, 3]
    assert given["bands"] == [band["name"] for band in facts["bands"]] == ["red", "green", "blue"]
    assert logits["name"] == "logits" and logits["result"]["shape"] == [-1, len(CLASSES)]
    assert [one["description"] for one in logits["classification:classes"]] == list(CLASSES)
    assert [one["name"] for one in logits["classification:classes"]] == ["bare-soil", "forest-mixed", "Wuste"]
    values = {one["name"]: one["value"] for one in drawn["classification:classes"]}
    assert values == {"bare-soil": 0, "forest-mixed": 1, "Wuste": 2, "unknown": legend.UNKNOWN, "nodata": legend.NODATA}
    assert facts["kdjax:metrics"] == {"validation": FIGURES, "test": {**FIGURES, "top1": 0.875}}
    assert facts["mlm:hyperparameters"]["temperature"] == TRUST.temperature
    assert facts["mlm:hyperparameters"]["limits_of"] == "student.onnx"  # the 8-bit file has others
    assert assets.keys() == {path.name for path in export.iterdir()} - {"stac_item.json"}
    for name, asset in assets.items():
        content = (export / name).read_bytes()
        assert asset["href"] == f"./{name}" and asset["file:size"] == len(content)
        assert asset["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
        # Who loads a model must be told how, and only who does; without bands of an asset the item may have none.
        assert asset.get("bands") == (facts["bands"] if "mlm:model" in asset["roles"] else None)
        assert ("mlm:model" in asset["roles"]) == ("mlm:artifact_type" in asset) == name.endswith(".onnx")
    assert assets["student.int8.onnx"]["kdjax:test_top1"] == 0.85


def test_class_names_are_told_apart():
    assert len(set(stac._class_names(("a-2", "a", "á")))) == 3  # the number that tells one apart may be taken
    names = stac._class_names(("a b", "a-b", "unknown", "雪", "森"))
    assert names == ["a-b", "a-b-1", "unknown-2", "unnamed", "unnamed-4"]


DETAILS = [(), ("--bbox=5,45,10,47", "--time=2016-04-01/2016-09-30", "--license=CC-BY-4.0")]


@pytest.mark.parametrize("flags", DETAILS)
def test_the_schema_of_stac_takes_the_item(export, flags):
    """Of the core; pystac-core has it."""
    pytest.importorskip("jsonschema")
    validation = pytest.importorskip("pystac.validation")
    item = {**described(export, *flags), "stac_extensions": []}
    assert validation.validate_dict(item)
    with pytest.raises(pytest.importorskip("pystac.errors").STACValidationError):
        validation.validate_dict({**item, "bbox": "everywhere"})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pystac's own
@pytest.mark.parametrize("flags", DETAILS)
def test_the_extension_takes_the_item(export, flags):
    """By its authors' models: its own schema is not to be had offline."""
    pystac = pytest.importorskip("pystac")
    schema = pytest.importorskip("stac_model.schema")
    item = described(export, *flags)
    assert schema.SCHEMA_URI == stac.MLM
    read = schema.MLModelExtension.ext(pystac.Item.from_dict(item))
    assert read.item.assets["student.onnx"].roles[0] == "mlm:model"
    model = schema.MLModelProperties(**{k: v for k, v in item["properties"].items() if k.startswith("mlm:")})
    known = {field.alias for field in schema.MLModelProperties.model_fields.values()} | {"mlm:input", "mlm:output"}
    assert {name for name in item["properties"] if name.startswith("mlm:")} <= known
    (given,), outputs = model.input, model.output
    assert given.input.shape == [-1, SIDE, SIDE, 3] and given.input.data_type == "uint8"
    assert [len(one.classes) for one in outputs] == [len(CLASSES), len(CLASSES) + 2]


def test_the_hub_reads_the_head(export):
    described(export, "--license=CC-BY-4.0", "--dataset=blanchon/UC_Merced", "--dataset=other")
    text = (export / "README.md").read_text(encoding="utf-8")
    card = ModelCard(text)
    assert str(card) == text and text.endswith("\n# A card\n\nWhat a person has written: 100 % --- good.\n")
    data = card.data
    assert (data.license, data.library_name, data.pipeline_tag) == ("cc-by-4.0", "kdjax", "image-classification")
    assert data.datasets == ["blanchon/UC_Merced", "other"] and data.model_name == "UC Merced: 64 px"
    assert "knowledge-distillation" in data.tags and data.base_model is None
    results = {one.metric_name: (one.metric_type, one.metric_value, one.dataset_split) for one in data.eval_results}
    assert results == {
        "top-1": ("accuracy", 0.875, "test"),
        "macro-F1": ("f1", 0.91, "test"),
        "top-1 of student.int8.onnx": ("accuracy", 0.85, "test"),
    }
    assert {one.dataset_name for one in data.eval_results} == {"tiles: «a»"}


def test_licenses_that_the_hub_does_not_list_are_named(export):
    item = described(export, "--license=etalab-2.0")
    data = ModelCard((export / "README.md").read_text(encoding="utf-8")).data
    assert (data.license, data.license_name, item["properties"]["license"]) == ("other", "etalab-2.0", "etalab-2.0")
    described(export, "--license=MIT")
    data = ModelCard((export / "README.md").read_text(encoding="utf-8")).data
    assert data.license == "mit" and data.license_name is None


@pytest.mark.parametrize(
    ("written", "said"),
    [("license: other\nlicense_name: our own words", "other"), ("license: odbl", "odbl"), ("license: [mit]", "other")],
)
def test_a_license_that_a_person_wrote_into_the_card_stays(export, written, said):
    card = (export / "README.md").read_text(encoding="utf-8").replace("license: unknown", written)
    (export / "README.md").write_text(card, encoding="utf-8")
    assert described(export)["properties"]["license"] == said
    assert "our own words" not in written or "license_name: our own words" in (export / "README.md").read_text("utf-8")


def test_weights_of_the_hub_are_the_base_model(export):
    document = json.loads((export / "parity.json").read_text(encoding="utf-8"))
    source = {"source": "timm/mobilenetv2_100.ra_in1k@main:model", "commit": "0" * 40}
    for weights, base, said in (
        (source, "timm/mobilenetv2_100.ra_in1k", source["source"]),
        ({"source": "/home/me/weights.safetensors", "commit": None}, None, "weights.safetensors"),
    ):
        document["network"]["weights"] = weights
        assert ModelCard(head(document, distilled=False)).data.base_model == base
        (export / "parity.json").write_text(json.dumps(document), encoding="utf-8")
        assert described(export)["properties"]["mlm:pretrained_source"] == said


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (("--bbox=1,2,3",), "--bbox"),
        (("--bbox=10,45,5,47",), "--bbox"),
        (("--bbox=nan,45,5,47",), "--bbox"),
        (("--time=2016",), "--time"),
        (("--time=2016-09-30/2016-04-01",), "--time"),
        (("--license=no such license",), "--license"),
        (("--license=",), "--license"),
        (("--dataset=a/b/c",), "--dataset"),
        (("--lisense=MIT",), "lisense"),
    ],
)
def test_bad_arguments_end_in_one_line(export, capfd, flags, word):
    assert word in refused(capfd, catalog.main, export, *flags)
    assert not (export / "stac_item.json").exists()


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("parity.json", "{", "parity.json"),
        ("parity.json", "[]", "parity.json lacks student, network, data, artifacts"),
        ("parity.json", '{"student": {}, "artifacts": {}}', "lacks network, data"),
        ("parity.json", '{"student": {}, "network": {}, "data": {}, "artifacts": {}}', "'run'"),
        ("student.onnx", "text", "student.onnx"),
        ("student.safetensors", None, "student.safetensors"),
        ("README.md", "# No head", "README.md"),
        ("README.md", "---\na: [\n---\n", "README.md"),
        ("README.md", None, "README.md"),
    ],
)
def test_bad_folders_end_in_one_line(export, capfd, name, content, word):
    (export / name).unlink()
    if content is not None:
        (export / name).write_text(content, encoding="utf-8")
    assert word in refused(capfd, catalog.main, export, "--license=MIT")
    assert not (export / "stac_item.json").exists()
    if name != "README.md":
        assert "license: unknown" in (export / "README.md").read_text(encoding="utf-8")


def test_a_file_that_was_put_in_the_place_of_another_has_not_its_figures(export, capfd):
    document = json.loads((export / "parity.json").read_text(encoding="utf-8"))
    for name, measured in document["artifacts"].items():
        measured["sha256"] = hashlib.sha256((export / name).read_bytes()).hexdigest()
    (export / "parity.json").write_text(json.dumps(document), encoding="utf-8")
    catalog.main([str(export)])
    capfd.readouterr()
    (export / "stac_item.json").unlink()
    content = (export / "student.int8.onnx").read_bytes()
    renamed = content.replace(b"bare soil", b"wet sands")  # as many bytes, and a model that can be read
    assert len(renamed) == len(content) and renamed != content
    (export / "student.int8.onnx").write_bytes(renamed)
    assert "student.int8.onnx is not the file" in refused(capfd, catalog.main, export)
    assert not (export / "stac_item.json").exists()


def test_another_folder_is_refused(tmp_path, capfd):
    assert "EXPORT" in refused(capfd, catalog.main)
    assert "EXPORT: give the folder of an export" in refused(capfd, catalog.main, tmp_path)
