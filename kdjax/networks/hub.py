"""Finds files of weights on this machine or on the Hugging Face hub."""

import functools
import os
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

from kdjax.errors import InputError, one_line

HUB_ID = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[^\s:@]+))?(?::(?P<file>[^\s:]+))?")
SUFFIX = ".safetensors"
OTHERS = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".npz", ".pkl")
PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
SECONDS = 3.0  # how long to try to reach the hub; its own client would try for half a minute


def locate(source: str | Path) -> Path:
    """Returns the path of the file that `source` names, and downloads it if necessary.

    Args:
        source: path of a .safetensors file, or a hub id 'org/name[@revision][:file]'. The revision is a branch, tag or
            commit, by default 'main'; the file, with or without the suffix, by default 'model'. A file that was
            downloaded before is found without a network connection.

    Raises:
        InputError: there is no such file, or it cannot be downloaded.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    match = HUB_ID.fullmatch(str(source))
    if not match or (match["file"] is None and path.suffix == SUFFIX):
        raise InputError(f"weights {source}: no such file; give a {SUFFIX} file or a hub id org/name[@revision][:file]")
    file = match["file"] or "model"
    if file.endswith(OTHERS):
        raise InputError(f"weights {source}: only {SUFFIX} files are read; name one of them after the colon")
    return _downloaded(str(source), match["repo"], file if file.endswith(SUFFIX) else file + SUFFIX, match["revision"])


def commit(path: Path) -> str | None:
    """Returns the hub commit of a downloaded file, which is part of its path, or None for any other file."""
    for folder in path.parents:
        if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
            return folder.name
    return None


@functools.cache  # a branch may move during a run, but the same file must be checked, loaded and recorded
def _downloaded(source: str, repo: str, file: str, revision: str | None) -> Path:
    from huggingface_hub import constants, hf_hub_download  # slow to import
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    offline = constants.HF_HUB_OFFLINE or not _reachable(constants.ENDPOINT)
    try:
        return Path(hf_hub_download(repo, file, revision=revision, local_files_only=offline))
    except LocalEntryNotFoundError:
        raise InputError(
            f"weights {source}: no such file here, and {constants.ENDPOINT} cannot be reached: download {file} of "
            f"{repo} elsewhere and give its path"
        ) from None
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise InputError(
            f"weights {source}: no such file, and not from the Hugging Face hub: {one_line(error)}"
        ) from None


def _reachable(endpoint: str) -> bool:
    """Whether the hub accepts connections. Assumed behind a proxy, where only the hub's client can tell."""
    if any(os.environ.get(name) for name in PROXIES):
        return True
    url = urlsplit(endpoint)
    try:
        socket.create_connection((url.hostname, url.port or {"http": 80}.get(url.scheme, 443)), SECONDS).close()
    except (OSError, ValueError):  # ValueError: the port of the endpoint is not a number
        return False
    return True
