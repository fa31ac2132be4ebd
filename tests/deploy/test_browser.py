"""The page of an export: its arithmetic against `decode` and `trust` in Node.js, its facts, and its server."""

import dataclasses
import hashlib
import http.client
import io
import json
import re
import shutil
import socket
import struct
import subprocess
import threading
from functools import partial
from http.server import HTTPServer, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from helpers.exported import pixels
from PIL import Image
from refusal import refused

from kdjax.data import decode
from kdjax.data.meaning import Meaning
from kdjax.data.pixels import Decoded, DecodeError, is_mask
from kdjax.deploy import trust
from kdjax.deploy.browser import __main__ as browser
from kdjax.deploy.browser import page
from kdjax.deploy.input_warnings import InputCheck
from kdjax.errors import InputError

FITTED = trust.Trust(0.7, {0.9: 0.6, 0.95: 0.9, 0.99: 1.0}, 0.5, -1.0)
in_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")


def run_node(code, folder):
    """What a script says that has all of answer.mjs; its answer is its last line, JSON."""
    script = folder / "script.mjs"
    names = "lanczos, resized, isMask, unfit, refusal, unlike, isOwn, answered"
    script.write_text(
        f'import {{ {names} }} from "{page.PARTS_DIR / "answer.mjs"}";\nimport fs from "node:fs";\n{code}'
    )
    done = subprocess.run(["node", script], capture_output=True, text=True, timeout=60, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@in_node
def test_the_page_resizes_as_predict_does_to_the_last_bit(tmp_path):
    cases = [(256, 256, 72), (31, 20, 36), (50, 77, 50), (600, 412, 64), (9, 9, 9), (1, 5, 12), (56, 3, 50)]
    # About where the rows are taken before the columns.
    cases += [(5, 25, 8), (11, 37, 8), (40, 70, 20), (40, 60, 20), (40, 61, 20), (20, 36, 20), (12, 88, 31)]
    sides = []
    for number, (width, height, size) in enumerate(cases):
        image = np.random.default_rng(number).integers(0, 256, (height, width, 4), dtype=np.uint8)
        image[: height // 2, :, 0] = 255 * (np.arange(width) % 5 < 2)  # edges, beyond which the filter swings
        (tmp_path / f"{number}.bin").write_bytes(image.tobytes())
        sides.append(decode.resize(image[..., :3], size).tolist())
    found = run_node(
        f"const cases = {json.dumps(cases)};\n"
        "const of = ([w, h, s], k) => Array.from(resized(fs.readFileSync(k + '.bin'), w, h, s));\n"
        "console.log(JSON.stringify(cases.map(of)))",
        tmp_path,
    )
    for flat, expected in zip(found, sides, strict=True):
        np.testing.assert_array_equal(np.reshape(flat, np.shape(expected)), expected)


@in_node
def test_the_page_answers_as_predict_does(tmp_path):
    rng = np.random.default_rng(0)
    logits = (rng.normal(0, 1, (400, 21)) * np.geomspace(0.1, 30, 400)[:, None]).astype(np.float32)
    logits[3] = 1.5  # ties
    limits = {str(level): limit for level, limit in FITTED.limits.items()}
    facts = {"temperature": 0.7, "limits": limits, "least_confidence": 0.5, "most_energy": -1.0}
    found = run_node(
        f"console.log(JSON.stringify({json.dumps(logits.astype(float).tolist())}.map((row) => "
        f"answered(Float32Array.from(row), {json.dumps(facts)}))))",
        tmp_path,
    )
    expected = FITTED.probabilities(logits)
    np.testing.assert_allclose([one["probabilities"] for one in found], expected, rtol=1e-9)
    unknown = FITTED.doubtful(expected) | FITTED.unlike(logits)
    assert [one["unknown"] for one in found] == unknown.tolist() and 0 < unknown.sum() < 400
    assert FITTED.sets(expected, 0.99).all()
    for level in FITTED.limits:
        members = FITTED.sets(expected, level)
        assert [one["sets"][str(level)] for one in found] == members.sum(1).tolist()
        for one, held in zip(found, members, strict=True):
            assert set(one["ranked"][: held.sum()]) == set(np.flatnonzero(held))


@in_node
def test_the_page_says_nothing_of_logits_that_are_not_finite(tmp_path):
    facts = {"temperature": 1, "limits": {}, "least_confidence": 0, "most_energy": 0}
    code = f"let said; try {{ answered([0, NaN], {json.dumps(facts)}) }} catch (error) {{ said = error.message }}"
    assert "not finite" in run_node(code + "console.log(JSON.stringify(said))", tmp_path)


@in_node
def test_deep_images_are_refused_and_not_cut_to_bytes(tmp_path):
    for name, image in (("deep", np.full((4, 4), 40000, np.uint16)), ("bytes", pixels(1, 4)[0])):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    found = run_node(
        "const of = (name, deep) => refusal(fs.readFileSync(name + '.png'), { deep });\n"
        "console.log(JSON.stringify([of('deep', false), of('bytes', false), of('bytes', true)]))",
        tmp_path,
    )
    assert "16 bits" in found[0] and found[1] is None and "no 8-bit images" in found[2]


@in_node
def test_the_page_warns_of_the_images_that_predict_warns_of(tmp_path):
    sizes = [(64, 64), (16, 16), (15, 16), (256, 256), (257, 256), (1000, 64), (1100, 64), (4, 250)]
    said = []
    for width, height in sizes:
        seen = InputCheck.for_model(Meaning(tile_px=64.0))
        seen.inspect("tile.png", Decoded(np.zeros((height, width, 3), np.uint8), ()))
        said.append(bool(seen.warnings()))
    assert set(said) == {True, False}
    found = run_node(
        f"const of = ([width, height]) => [{{ tile_px: 64 }}, {{ tile_px: null }}].map((facts) => "
        f"unlike(width, height, facts));\nconsole.log(JSON.stringify({json.dumps(sizes)}.map(of)))",
        tmp_path,
    )
    assert [one is not None for one, _ in found] == said
    assert all(nothing is None for _, nothing in found)
    assert found[-2][0].startswith("265.3 px for 64 of a training tile")


@in_node
def test_a_fourth_band_is_no_mask_where_it_is_none_in_training(tmp_path):
    rng = np.random.default_rng(0)
    alphas = [np.full(60, 255), rng.choice([0, 255], 60), np.repeat([9, 0, 255], [15, 20, 25]), np.arange(60)]
    alphas.append(np.repeat([9, 0, 255], [16, 19, 25]))
    code = f"const all = {json.dumps([alpha.tolist() for alpha in alphas])};\n"
    code += "console.log(JSON.stringify(all.map((a) => isMask(a.flatMap((one) => [1, 2, 3, one])))));"
    expected = [is_mask(alpha.astype(np.uint8)) for alpha in alphas]
    assert run_node(code, tmp_path) == expected == [True, True, True, False, False]


@in_node
def test_an_image_of_no_pixel_is_refused_as_predict_does(tmp_path):
    """The page's own function, with pixels in place of a canvas."""
    alphas, said = ([0] * 36, [0] * 35 + [255], list(range(0, 252, 7))), []
    for alpha in alphas[:2]:
        image = np.full((6, 6, 4), 90, np.uint8)
        image[..., 3] = np.reshape(alpha, (6, 6))
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        try:
            decode.decode(file.getvalue())
            said.append(None)
        except DecodeError as error:
            said.append(str(error))
    trusted = {"temperature": 1, "limits": {}, "least_confidence": 0, "most_energy": 9}
    code = (
        f"const facts = {json.dumps({'size': 4, 'tile_px': None, 'deep': False, 'trust': trusted})};\n"
        "let alpha; const logits = async () => [1, 2];\n"
        "const pixels = async () => ({ data: alpha.flatMap((one) => [1, 2, 3, one]), width: 6, height: 6 });\n"
        f"const text = fs.readFileSync({json.dumps(str(page.PARTS_DIR / 'page.mjs'))}, 'utf8');\n"
        "const classified = eval('(' + text.match(/async function classified[^]*?\\n}\\n/)[0] + ')');\n"
        f"const all = {json.dumps(alphas)}, found = [];\n"
        "for (alpha of all) found.push(await classified(new Blob([])).then(() => null, (error) => error.message));\n"
        "console.log(JSON.stringify(found));"
    )
    *found, bands = run_node(code, tmp_path)
    assert found == said == ["no pixel holds data", None] and "no mask" in bands


def held(text):
    """The facts in a page."""
    found = json.loads(re.search(r'<script id="facts" type="application/json">(.*?)</script>', text)[1])
    assert page.facts(text) == found
    return found


def test_the_facts_of_a_page_are_those_of_the_file():
    classes = ("field", "</script><b>{title}", "wüste")
    text = page.document("a <run> {facts}", classes, 72, Meaning((0.0, 4095.0), ("16-bit",)), FITTED, "f00d")
    facts = held(text)
    assert facts["classes"] == list(classes) and facts["size"] == 72 and facts["deep"] is True
    assert facts["sha256"] == "f00d"
    assert trust.Trust.from_metadata({"trust": json.dumps(facts["trust"])}) == FITTED
    assert "<h1>a &lt;run&gt; {facts}</h1>" in text and text.count("</script>") == 2
    assert '<option value="0.9">90 %</option>' in text
    assert held(page.document("a", classes, 72, Meaning((), ("8-bit",)), FITTED, ""))["deep"] is False
    assert held(page.document("a", classes, 72, Meaning((0.0, 9.0), ("16-bit", "8-bit")), FITTED, ""))["deep"] is False


@pytest.mark.parametrize(("images", "warned"), [(None, 0), (trust.FEW, 0), (12, 1)])
def test_a_page_warns_of_few_validation_images(images, warned):
    text = page.document("a", "ab", 8, Meaning(), dataclasses.replace(FITTED, images=images), "")
    assert text.count("Warning: with 12 validation images, probabilities") == text.count("Warning") == warned


@pytest.fixture
def folders(tmp_path):
    """An export and a runtime, as far as the server looks at them."""
    for folder, names in (("export", browser.PAGE_FILES), ("dist", browser.RUNTIME_FILES)):
        (tmp_path / folder).mkdir()
        for name in (*names, "secret.txt"):
            (tmp_path / folder / name).write_text(name)
    digest = hashlib.sha256(b"student.onnx").hexdigest()
    (tmp_path / "export" / "try.html").write_text(page.document("", "ab", 8, Meaning(), FITTED, digest))
    return tmp_path


def test_what_is_served_is_what_the_page_needs(folders):
    files = browser.served_files(folders / "export", folders / "dist")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(browser.Handler, files)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def get(path):
            connection = http.client.HTTPConnection(*server.server_address, timeout=20)
            connection.request("GET", path)
            answer = connection.getresponse()
            result = answer.status, answer.headers.get_content_type(), answer.read()
            connection.close()
            return result

        written = (folders / "export" / "try.html").read_bytes()
        assert get("/") == get("/try.html?again") == (200, "text/html", written)
        assert get("/student.onnx") == (200, "application/octet-stream", b"student.onnx")
        assert get("/ort/ort.wasm.min.mjs")[:2] == (200, "text/javascript")
        assert get("/ort/ort-wasm-simd-threaded.wasm")[:2] == (200, "application/wasm")
        for path in ("/secret.txt", "/ort/secret.txt", "/../export/secret.txt", "/ort/../secret.txt", "//etc/passwd"):
            assert get(path)[0] == 404
        (folders / "export" / "student.onnx").unlink()
        assert get("/student.onnx")[0] == 404
        server.shutdown()


def test_a_model_of_another_export_is_not_served(folders):
    (folders / "export" / "student.onnx").write_bytes(b"of another run")
    with pytest.raises(InputError, match="student.onnx is not the file that try.html beside it was written for"):
        browser.served_files(folders / "export", folders / "dist")
    old = (folders / "export" / "try.html").read_text().replace('"sha256"', '"unsaid"')
    (folders / "export" / "try.html").write_text(old)  # pages of earlier versions do not know
    assert browser.served_files(folders / "export", folders / "dist")


@in_node
def test_the_page_knows_its_model(tmp_path):
    (tmp_path / "model").write_bytes(b"model")
    facts = [{"sha256": hashlib.sha256(content).hexdigest()} for content in (b"model", b"another")]
    code = f"const all = {json.dumps(facts)}.map((one) => isOwn(fs.readFileSync('model'), one));\n"
    assert run_node(code + "console.log(JSON.stringify(await Promise.all(all)))", tmp_path) == [True, False]


@pytest.mark.parametrize("asked", [b"GET /student.onnx HTTP/1.1\r\n\r\n", b"GET /none HTTP/1.1\r\n\r\n", b"GET"])
def test_a_closed_tab_is_not_worth_a_word(folders, capfd, asked):
    files = browser.served_files(folders / "export", folders / "dist")
    (folders / "export" / "student.onnx").write_bytes(bytes(10**7))
    with HTTPServer(("127.0.0.1", 0), partial(browser.Handler, files)) as server:
        with socket.create_connection(server.server_address) as tab:
            tab.sendall(asked)
            tab.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed without a goodbye
        server.handle_request()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["no export", "no page", "no runtime", "half a runtime", "port", "taken", "nothing"])
def test_bad_input_ends_in_one_line(folders, capfd, kind):
    export, dist, port = folders / "export", folders / "dist", "0"
    if kind in ("no page", "half a runtime"):
        Path(export / "try.html" if kind == "no page" else dist / browser.RUNTIME_FILES[2]).unlink()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = {"port": "99999", "taken": str(other.getsockname()[1])}.get(kind, port)
        places = {"nothing": [], "no export": [folders / "nowhere"]}.get(kind, [export])
        runtime = folders / "nowhere" if kind == "no runtime" else dist
        line = refused(capfd, browser.main, *places, f"--runtime={runtime}", f"--port={port}")
    said = {"no export": "no try.html", "no page": "no try.html", "nothing": "EXPORT", "port": "--port 99999"}
    assert said.get(kind, "--port" if kind == "taken" else "npm install onnxruntime-web") in line
