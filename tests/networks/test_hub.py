"""The Hugging Face hub: what an id names, one file to a process, and what is said where it cannot be reached."""

import hashlib
import itertools
import socket
import types

import huggingface_hub
import huggingface_hub.constants
import numpy as np
import pytest
from helpers.variables import drawn
from safetensors.numpy import save_file

from kdjax.errors import InputError
from kdjax.networks import hub
from kdjax.networks.pretrained import check, load_imagenet, named_tensors


@pytest.mark.parametrize(
    ("source", "repo", "file", "revision"),
    [
        ("timm/vgg16.tv_in1k", "timm/vgg16.tv_in1k", "model.safetensors", None),
        ("timm/vgg16.tv_in1k:other.safetensors", "timm/vgg16.tv_in1k", "other.safetensors", None),
        ("org/name:file", "org/name", "file.safetensors", None),
        ("Org-1/na_me-2.0@v1.0:sub/fp16.v2", "Org-1/na_me-2.0", "sub/fp16.v2.safetensors", "v1.0"),
        ("org/name@refs/pr/1", "org/name", "model.safetensors", "refs/pr/1"),
    ],
)
def test_a_hub_id_is_fetched_by_its_file_and_revision(tmp_path, monkeypatch, source, repo, file, revision):
    path = tmp_path / "model.safetensors"
    path.touch()
    asked = []

    def fetched(repo, file, revision, local_files_only):
        asked.append((repo, file, revision))
        return str(path)

    monkeypatch.setattr(hub, "_reachable", lambda endpoint: True)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetched)
    hub._downloaded.cache_clear()
    assert hub.locate(source) == path and asked == [(repo, file, revision)]


def test_a_branch_of_the_hub_that_moves_is_one_file_to_a_process(tmp_path, monkeypatch):
    """What is checked, loaded and recorded."""
    revisions = itertools.count()

    def fetched(*names, **options):
        path = tmp_path / f"{next(revisions)}.safetensors"
        save_file(named_tensors("mobilenet_v2", drawn("mobilenet_v2", int(path.stem))), path)
        return str(path)

    monkeypatch.setattr(hub, "_reachable", lambda endpoint: True)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetched)
    hub._downloaded.cache_clear()
    check("org/name", "mobilenet_v2", drawn("mobilenet_v2", 9))
    loaded = load_imagenet("org/name", "mobilenet_v2", drawn("mobilenet_v2", 9))
    assert loaded.record["sha256"] == hashlib.sha256((tmp_path / "0.safetensors").read_bytes()).hexdigest()
    stem = drawn("mobilenet_v2", 0)["params"]["stem"]["kernel"]
    np.testing.assert_array_equal(loaded.variables["params"]["stem"]["kernel"], stem)
    assert next(revisions) == 1


@pytest.mark.parametrize("message", ["", "Repository Not Found for url.\n\nPlease log in."])
def test_what_the_hub_says_is_one_line(monkeypatch, message):
    def refuse(*names, **options):
        raise OSError(message)

    monkeypatch.setattr(hub, "_reachable", lambda endpoint: True)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(InputError, match="not from the Hugging Face hub: (OSError|Repository Not Found)") as error:
        hub.locate("org/none")
    assert "\n" not in str(error.value)


def test_an_endpoint_whose_port_is_no_number_is_one_line(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "https://hub.example:port")
    for name in hub.PROXIES:
        monkeypatch.delenv(name, raising=False)
    hub._downloaded.cache_clear()
    with pytest.raises(InputError, match="https://hub.example:port cannot be reached"):
        hub.locate("org/none")


def test_a_hub_that_cannot_be_reached_is_said_within_seconds(tmp_path, monkeypatch):
    download, waited, alone = huggingface_hub.hf_hub_download, [], []

    def connected(address, timeout):
        waited.append(timeout)
        return socket.create_connection(address, timeout)

    def downloaded(*names, local_files_only, **options):
        alone.append(local_files_only)
        return download(*names, local_files_only=local_files_only, **options)

    monkeypatch.setattr(hub, "socket", types.SimpleNamespace(create_connection=connected))  # not of its client
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", downloaded)
    closed = socket.socket()
    closed.bind(("localhost", 0))  # bound, not listening: refuses every connection
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://localhost:{closed.getsockname()[1]}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for name in hub.PROXIES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="org/name:weights.*cannot be reached.*weights.safetensors") as error:
        hub.locate("org/name:weights")
    closed.close()
    # One try of seconds, and then no other: the hub's own client would go on for half a minute.
    assert waited == [hub.SECONDS] and hub.SECONDS < 10 and alone == [True]
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "source", ["nowhere.safetensors", "folder/nowhere.safetensors", "a/b/c", "org/name:model.bin", "org/name:", "../x"]
)
def test_what_is_neither_a_file_nor_a_hub_id_is_refused(source):
    with pytest.raises(InputError, match="weights") as error:
        hub.locate(source)
    assert "\n" not in str(error.value)
