"""Prepares the official tfds builder `eurosat/rgb`, unmodified and offline, from a zip of EuroSAT's class folders.

    python tests/tools/prepare_eurosat_tfds.py EUROSAT.zip DATA_DIR

Needs the `tensorflow` extra; reading the result does not. The builder downloads an archive with the folder `2750`. This
script lays such an archive into tfds's own download cache under the name the builder will look for. tfds trusts its
cache by name, so the archive need not be the original file byte for byte; the images in it are the original JPEGs if
those in EUROSAT.zip are.
"""

import json
import pathlib
import sys
import zipfile

import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums, resource


def main(source: str, data_dir: str) -> None:
    tfds.disable_progress_bar()
    builder = tfds.builder("eurosat/rgb", data_dir=data_dir, file_format="array_record")
    url = builder.builder_config.download_url
    info = checksums.get_all_url_infos()[url]
    cached = pathlib.Path(data_dir, "downloads", builder.name, resource.get_dl_fname(url, info.checksum))
    cached.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(source) as given, zipfile.ZipFile(cached, "w") as archive:
        for name in given.namelist():
            if name.endswith(".jpg"):
                archive.writestr("/".join([builder.builder_config.subdir, *name.split("/")[-2:]]), given.read(name))
    pathlib.Path(f"{cached}.INFO").write_text(
        json.dumps({"urls": [url], "original_fname": "EuroSAT.zip", "url_info": info.asdict()}), encoding="utf-8"
    )
    # The default statistics come from a server; nothing is asked of it here.
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    print(builder.info.splits)


if __name__ == "__main__":
    main(*sys.argv[1:])
