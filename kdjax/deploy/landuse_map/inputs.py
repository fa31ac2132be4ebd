"""What is mapped: files, folders of files, what GDAL opens by a URL or a /vsi… path, and assets of STAC items.

GDAL's own readers open all of it. Only the asset of an item is found here: ITEM#ASSET is the `href` of that asset.
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

from kdjax.errors import InputError, reason
from kdjax.results.text import printable

SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt")
"""Of the files that are mapped of a folder."""

_ITEM = re.compile(r"\.(geo)?json$", re.IGNORECASE)
_SECONDS = 60


def is_remote(text: str) -> bool:
    """Whether `text` is for GDAL to resolve, and no path of this machine: a URL, or a path that begins with /vsi."""
    return text.startswith("/vsi") or re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def expand(texts: Iterable[str]) -> list[str]:
    """The inputs, with the rasters in a folder for that folder.

    Raises:
        InputError: a folder that cannot be read or holds none.
    """
    found: list[str] = []
    for text in texts:
        if is_remote(text) or not os.path.isdir(text):
            found.append(text)
            continue
        try:
            names = sorted(os.listdir(text))
        except OSError as error:
            raise InputError(f"INPUT {text}: the folder cannot be read ({reason(error)})") from error
        held = [name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
        if not held:
            raise InputError(f"INPUT {text}: the folder holds no raster ({', '.join(SUFFIXES)})")
        found += [os.path.join(text, name) for name in held]
    return found


def stem(text: str) -> str:
    """The name of an input's map, without its suffix: that of the file, and for an item also that of the asset.

    Raises:
        InputError: it names no file, or is no URL.
    """
    place, asset = _split(text)
    if not asset and not is_remote(place):
        return Path(place).stem
    name = Path(_path(place)).stem
    if not name:
        raise InputError(f"INPUT {text}: it names no file")
    return re.sub(r"[^\w.-]", "_", f"{name}_{asset}" if asset else name)


def place(text: str) -> str:
    """What GDAL opens for an input.

    Raises:
        InputError: what is no URL; a STAC item that cannot be read, or has no such asset.
    """
    item, asset = _split(text)
    if not asset and not _ITEM.search(_path(item) if is_remote(item) else item):
        return text
    document = _read(item)
    assets = document.get("assets") if isinstance(document, dict) else None
    if not isinstance(assets, dict) or document.get("type") != "Feature":
        raise InputError(f"item {item}: it is not a STAC item, which is a GeoJSON Feature with assets")
    if asset not in assets:
        names = ", ".join(printable(name) for name in list(assets)[:10]) + ", …" * (len(assets) > 10)
        what = f"it has no asset {asset!r}" if asset else "it is a STAC item"
        raise InputError(f"item {item}: {what}; name one of its assets, as {os.path.basename(item)}#NAME ({names})")
    href = assets[asset].get("href") if isinstance(assets[asset], dict) else None
    if not isinstance(href, str) or not href:
        raise InputError(f"item {item}: its asset {asset!r} has no href")
    if is_remote(href):
        return href
    try:
        if is_remote(item):
            return urljoin(item, href)
        path = os.path.join(os.path.dirname(item), href)
        # A reference escapes spaces and the like; many write the file's name as it is.
        return path if os.path.exists(path) else os.path.join(os.path.dirname(item), unquote(href))
    except ValueError as error:
        raise InputError(f"item {item}: the href of its asset {asset!r} is not a URL ({reason(error)})") from error


def _path(text: str) -> str:
    """The path of a URL."""
    try:
        return urlsplit(text).path
    except ValueError as error:
        raise InputError(f"INPUT {text}: it is not a URL ({reason(error)})") from error


def _split(text: str) -> tuple[str, str]:
    """Item and asset of ITEM#ASSET; all else is (text, "")."""
    item, _, asset = text.rpartition("#")
    return (item, asset) if _ITEM.search(item) or (is_remote(item) and asset) else (text, "")


def _read(item: str) -> Any:
    try:
        if not is_remote(item):
            return json.loads(Path(item).read_bytes())
        if not item.startswith(("http://", "https://")):
            raise InputError(f"item {item}: an item is read from a file or by http; download it")
        with urllib.request.urlopen(item, timeout=_SECONDS) as answer:
            return json.load(answer)
    except (OSError, http.client.HTTPException) as error:
        raise InputError(f"item {item}: it cannot be read ({reason(error)}): check its name or try again") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"item {item}: it is not JSON ({reason(error)}): give a STAC item") from error
