"""The Triton model repository, read by Triton's own protocol buffers, and what bad input ends in."""

import dataclasses

import numpy as np
import pytest
from refusal import refused

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from helpers.export_folder import CLASSES, SIDE, write_export  # noqa: E402

from kdjax.deploy import classifier, triton  # noqa: E402


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "export"
    write_export(folder)
    return folder


def test_the_repository_serves_the_file(export, tmp_path, capsys):
    triton.main([str(export / "student.onnx"), str(tmp_path / "models"), "--name=land-use", "--max-batch=16"])
    place = tmp_path / "models" / "land-use"
    assert str(place) in capsys.readouterr().out
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert written == [f"models/land-use/{name}" for name in ("1/model.onnx", "config.pbtxt", "labels.txt")]
    assert (place / "labels.txt").read_text(encoding="utf-8").split("\n") == [*CLASSES, ""]
    assert f"dims: [{SIDE}, {SIDE}, 3]" in (place / "config.pbtxt").read_text(encoding="utf-8")  # and no batch
    session = onnxruntime.InferenceSession(place / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 16):
        (logits,) = session.run(["logits"], {"images": np.zeros((count, SIDE, SIDE, 3), np.uint8)})
        assert logits.shape == (count, 3)


def test_triton_reads_the_configuration(export, tmp_path):
    pytest.importorskip("grpc")
    pytest.importorskip("tritonclient")
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as proto

    triton.main([str(export / "student.int8.onnx"), str(tmp_path)])
    text = (tmp_path / "student" / "config.pbtxt").read_text(encoding="utf-8")
    config = text_format.Parse(text, proto.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ("student", "onnxruntime", 32)
    assert config.HasField("dynamic_batching") and not config.default_model_filename
    (given,), (result,) = config.input, config.output
    # The dimension of the batch is max_batch_size's, and not among these.
    assert (given.name, given.data_type, list(given.dims)) == ("images", proto.TYPE_UINT8, [SIDE, SIDE, 3])
    assert (result.name, result.data_type, list(result.dims)) == ("logits", proto.TYPE_FP32, [3])
    assert (tmp_path / "student" / result.label_filename).is_file()


def test_files_that_take_one_batch_or_other_numbers_are_refused(export, tmp_path, capfd):
    for name, change, word in (
        ("batch.onnx", lambda graph: setattr(graph.input[0].type.tensor_type.shape.dim[0], "dim_value", 4), "4 images"),
        ("type.onnx", lambda graph: setattr(graph.input[0].type.tensor_type, "elem_type", 6), "tensor(int32)"),
    ):
        model = onnx.load(export / "student.onnx")
        change(model.graph)
        onnx.save(model, tmp_path / name)
        line = refused(capfd, triton.main, tmp_path / name, tmp_path / "models")
        assert name in line and word in line and not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "ARTIFACT"),
        (("{e}/student.onnx",), "REPOSITORY"),
        (("/nowhere.onnx", "{t}/models"), "/nowhere.onnx"),
        (("{e}", "{t}/models"), "student.onnx"),
        (("{e}/README.md", "{t}/models"), "README.md"),
        (("{e}/student.onnx", "{t}/no/models"), "models"),
        (("{e}/student.onnx", "{e}/README.md"), "README.md"),
        (("{e}/student.onnx", "/proc/models"), "REPOSITORY /proc/models: cannot be written"),
        (("{e}/student.onnx", "{t}/models", "--name=../x"), "--name"),
        (("{e}/student.onnx", "{t}/models", "--name="), "--name"),
        (("{e}/student.onnx", "{t}/models", "--max-batch=0"), "--max-batch"),
        (("{e}/student.onnx", "{t}/models", "--max-batch=2147483648"), "--max-batch"),  # more than its field holds
    ],
)
def test_bad_input_ends_in_one_line(export, tmp_path, capfd, arguments, word):
    filled = [one.format(e=export, t=tmp_path) for one in arguments]
    assert word in refused(capfd, triton.main, *filled)
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_format_is_refused(export, tmp_path, capfd, monkeypatch):
    read = lambda *given, real=classifier._onnx: dataclasses.replace(real(*given), signature=None)  # as LiteRT's
    monkeypatch.setattr(classifier, "_onnx", read)
    line = refused(capfd, triton.main, export / "student.onnx", tmp_path / "models")
    assert "student.onnx: not an ONNX file" in line and not list(tmp_path.iterdir())


def test_a_model_that_is_there_stays(export, tmp_path, capfd):
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "config.pbtxt").write_text("mine")
    assert "has a model student" in refused(capfd, triton.main, export / "student.onnx", tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["student", "config.pbtxt"]
