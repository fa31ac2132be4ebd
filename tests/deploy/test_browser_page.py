"""try.html in a real browser: what it shows of tiles is what `predict` says of them."""

import json
import os
import threading
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from helpers import chromium, export_folder
from PIL import Image

from kdjax.deploy import predict
from kdjax.deploy.browser import __main__ as browser

ROOT = Path(__file__).parents[2]
RUNTIME = Path(os.environ.get("KDJAX_ONNXRUNTIME_WEB") or ROOT / browser.RUNTIME)
pytestmark = [
    pytest.mark.skipif(chromium.found() is None, reason=f"needs one of {', '.join(chromium.NAMES)}"),
    pytest.mark.skipif(
        not RUNTIME.is_dir(), reason="needs `npm install onnxruntime-web`, or its folder dist in KDJAX_ONNXRUNTIME_WEB"
    ),
]


@pytest.fixture
def export(tmp_path):
    export_folder.write_export(tmp_path / "export")
    return tmp_path / "export"


@pytest.fixture
def page(export, tmp_path):
    """A tab with the page, not yet ready, as the command serves it."""
    files = browser.served_files(export, RUNTIME)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(browser.Handler, files)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with chromium.tab(tmp_path / "browser") as tab:
                tab("Page.navigate", url=f"http://127.0.0.1:{server.server_port}/")
                yield tab
        finally:
            server.shutdown()


def write_tiles(folder):
    """Tiles of each class, of several sizes and kinds, and gray and dark ones that are unknown."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(12):
        height, width = rng.integers(5, 40, 2)
        color = 130 * np.eye(3)[number % 3] * (number not in (3, 7)) + (100 if number == 3 else 20)
        values = np.clip(color + rng.normal(0, 15, (height, width, 3)), 0, 255).astype(np.uint8)
        mode = {5: "RGBA", 6: "L"}.get(number, "RGB")
        Image.fromarray(values).convert(mode).save(folder / f"{number:02d}.{'bmp' if number == 8 else 'png'}")
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    half = np.concatenate([np.full((16, 16, 3), (200, 20, 20)), np.full((16, 16, 3), (20, 20, 200))]).astype(np.uint8)
    Image.fromarray(half).save(folder / "turned.png", exif=exif)


def test_the_page_says_what_predict_says(export, page, tmp_path, capsys):
    write_tiles(tmp_path / "tiles")
    paths = sorted((tmp_path / "tiles").iterdir())
    predict.main([str(export / "student.onnx"), str(tmp_path / "tiles"), "--format=json", "--top=3"])
    expected = json.loads(capsys.readouterr().out)
    sets = {}
    for level in export_folder.TRUST.limits:
        predict.main([str(export / "student.onnx"), str(tmp_path / "tiles"), "--format=json", f"--set={level}"])
        sets[level] = [len(one["classes"]) for one in json.loads(capsys.readouterr().out)]
    page.wait_for("document.body.dataset.state === 'ready'")
    page.choose("#files", paths)
    page.wait_for(f"document.querySelectorAll('tr[data-answer]').length === {len(paths)}")
    rows = json.loads(page.evaluate(
        "JSON.stringify(Array.from(document.querySelectorAll('tr[data-answer]'), (row) => [row.innerText, "
        "JSON.parse(row.dataset.answer)]))"
    ))  # fmt: skip
    assert {one["unknown"] for one in expected} == {True, False}
    assert len({one["classes"][0]["class"] for one in expected}) == 3
    for number, ((text, answer), one, path) in enumerate(zip(rows, expected, paths, strict=True)):
        assert path.name in text
        found = dict(zip(export_folder.CLASSES, answer["probabilities"], strict=True))
        for best in one["classes"]:
            assert found[best["class"]] == pytest.approx(best["probability"], abs=5e-6), path
        assert answer["unknown"] == one["unknown"] == ("unknown" in text)
        assert one["classes"][0]["class"] in text
        assert answer["sets"] == {str(level): counts[number] for level, counts in sets.items()}


REFUSED = ("text.png", "deep.png", "bands.png", "clear.png")


def test_what_the_page_cannot_read_is_refused_and_the_others_are_answered(page, tmp_path):
    (tmp_path / "text.png").write_bytes(b"no image")
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(tmp_path / "deep.png")
    bands = np.random.default_rng(0).integers(0, 256, (20, 20, 4), dtype=np.uint8)
    Image.fromarray(bands).save(tmp_path / "bands.png")
    Image.new("RGBA", (9, 9), (200, 10, 10, 0)).save(tmp_path / "clear.png")
    Image.new("RGB", (9, 9), (200, 10, 10)).save(tmp_path / "<b>good.png")
    page.wait_for("document.body.dataset.state === 'ready'")
    page.choose("#files", [tmp_path / name for name in REFUSED + ("<b>good.png",)])
    said = page.wait_for("document.querySelectorAll('#results tbody tr').length === 5 && "
                         "document.querySelector('#results').innerText")  # fmt: skip
    for word in ("not an image", "16 bits", "no mask", "no pixel holds data", "<b>good.png", export_folder.CLASSES[0]):
        assert word in said
    assert page.evaluate("document.querySelectorAll('tr[data-answer]').length") == 1


def test_a_model_of_another_export_is_not_started(export, page):
    page.wait_for("document.body.dataset.state === 'ready'")
    (export / "student.onnx").write_bytes((export / "student.int8.onnx").read_bytes() + b"\0")
    page("Page.reload")
    said = page.wait_for("/another export/.test(document.body.innerText) && document.body.innerText")
    assert "student.onnx is of another export than this page" in said
    assert page.evaluate("document.querySelector('#files').disabled") is True
