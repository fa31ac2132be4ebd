"""The inputs of the command: files, folders of files, URLs and /vsi… paths for GDAL, and assets of STAC items.

GDAL opens all of them itself. Only assets are resolved here: ITEM#ASSET stands for the `href` of that asset.
"""

import http.client
import json
import os
import re
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from kdjax.errors import InputError, one_line
from kdjax.results.text import printable

SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt")
"""Suffixes of the files in a folder that are mapped."""

_ITEM = re.compile(r"\.(geo)?json$", re.IGNORECASE)
_SECONDS = 60


def is_remote(text: str) -> bool:
    """Whether GDAL must resolve `text`, which is a URL or begins with /vsi, and not the local file system."""
    return text.startswith("/vsi") or re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def check_name(path: Path | str, argument: str) -> None:
    """Refuses a path that cannot be passed to GDAL.

    Args:
        path: any path.
        argument: its name in the message.

    Raises:
        InputError: the path is not valid UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise InputError(f"{argument}: the name of {ascii(str(path))} is not UTF-8: rename it") from None


def expand(texts: Iterable[str]) -> list[str]:
    """Replaces each folder among the inputs by the rasters in it.

    Raises:
        InputError: a folder cannot be read or holds no rasters.
    """
    expanded: list[str] = []
    for text in texts:
        if is_remote(text) or not os.path.isdir(text):
            expanded.append(text)
            continue
        try:
            names = sorted(os.listdir(text))
        except OSError as error:
            raise InputError(f"INPUT {text}: the folder cannot be read ({one_line(error)})") from error
        rasters = [name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
        if not rasters:
            raise InputError(f"INPUT {text}: the folder holds no raster ({', '.join(SUFFIXES)})")
        expanded += [os.path.join(text, name) for name in rasters]
    return expanded


def stem(text: str) -> str:
    """The name of an input's map, without its suffix: the file's name and, for a STAC item, also the asset's.

    Raises:
        InputError: the input names no file, or is not a valid URL.
    """
    source, asset = _split_asset(text)
    if not asset and not is_remote(source):
        return Path(source).stem
    name = Path(_url_path(source)).stem
    if not name:
        raise InputError(f"INPUT {text}: it names no file")
    return re.sub(r"[^\w.-]", "_", f"{name}_{asset}" if asset else name)


def gdal_path(text: str) -> str:
    """The path or URL that GDAL opens for an input.

    Raises:
        InputError: the input is not a valid URL; or its STAC item cannot be read or has no such asset.
    """
    item, asset = _split_asset(text)
    if not asset and not _ITEM.search(_url_path(item) if is_remote(item) else item):
        return text
    document = _read_item(item)
    assets = document.get("assets") if isinstance(document, dict) else None
    if not isinstance(assets, dict) or document.get("type") != "Feature":
        raise InputError(f"item {item}: it is not a STAC item, which is a GeoJSON Feature with assets")
    if asset not in assets:
        names = ", ".join(printable(name) for name in list(assets)[:10]) + ", …" * (len(assets) > 10)
        problem = f"it has no asset {asset!r}" if asset else "it is a STAC item"
        raise InputError(f"item {item}: {problem}; name one of its assets, as {os.path.basename(item)}#NAME ({names})")
    href = assets[asset].get("href") if isinstance(assets[asset], dict) else None
    if not isinstance(href, str) or not href:
        raise InputError(f"item {item}: its asset {asset!r} has no href")
    if is_remote(href):
        return href
    try:
        if is_remote(item):
            return urljoin(item, href)
        path = os.path.join(os.path.dirname(item), href)
        # An href should escape characters such as spaces, but many items have the plain file name.
        return path if os.path.exists(path) else os.path.join(os.path.dirname(item), unquote(href))
    except ValueError as error:
        raise InputError(f"item {item}: the href of its asset {asset!r} is not a URL ({one_line(error)})") from error


def _url_path(text: str) -> str:
    """The path of a URL."""
    try:
        return urlsplit(text).path
    except ValueError as error:
        raise InputError(f"INPUT {text}: it is not a URL ({one_line(error)})") from error


def _split_asset(text: str) -> tuple[str, str]:
    """Splits ITEM#ASSET into item and asset; any other input gives (text, "")."""
    item, _, asset = text.rpartition("#")
    return (item, asset) if _ITEM.search(item) or (is_remote(item) and asset) else (text, "")


def _read_item(item: str) -> Any:
    try:
        if not is_remote(item):
            return json.loads(Path(item).read_bytes())
        if not item.startswith(("http://", "https://")):
            raise InputError(f"item {item}: an item is read from a file or by http; download it")
        with urllib.request.urlopen(item, timeout=_SECONDS) as response:
            return json.load(response)
    except (OSError, http.client.HTTPException) as error:
        raise InputError(f"item {item}: it cannot be read ({one_line(error)}): check its name or try again") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"item {item}: it is not JSON ({one_line(error)}): give a STAC item") from error
