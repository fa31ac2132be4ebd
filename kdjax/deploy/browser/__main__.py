"""The command: `python -m kdjax.deploy.browser EXPORT [--runtime DIR] [--port N]`."""

import contextlib
import functools
import hashlib
import http.server
from pathlib import Path

from kdjax.deploy.browser import page
from kdjax.errors import InputError, one_line
from kdjax.runtime.command import Parser, run_command

RUNTIME = Path("node_modules") / "onnxruntime-web" / "dist"
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
PAGE_FILES = ("try.html", "student.onnx")
TYPES = {".html": "text/html; charset=utf-8", ".mjs": "text/javascript", ".wasm": "application/wasm"}


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the files that the page needs, and no others."""

    def __init__(self, served: dict[str, Path], *connection: object):
        """Answers one connection with these files, which are given by their path in the address."""
        self.served = served
        super().__init__(*connection)  # type: ignore[arg-type]

    def handle(self) -> None:
        """Answers the requests of a connection, and ends quietly if the tab is closed."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        """Sends the requested file."""
        path = self.served.get(self.path.partition("?")[0])
        try:
            content = None if path is None else path.read_bytes()
        except OSError:
            content = None
        if path is None or content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", TYPES.get(path.suffix, "application/octet-stream"))
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")  # another export may be served at this address next
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Logs no requests."""


def served_files(export: Path, runtime: Path) -> dict[str, Path]:
    """The files to serve, by their path in the address.

    Raises:
        InputError: a file is missing, empty or from another export; the message says how to get it.
    """
    for name in PAGE_FILES:
        if not _is_nonempty(export / name):
            raise InputError(
                f"EXPORT: no {name} in {export}: give the folder that --stages=export wrote, or export again; only "
                "students of red, green and blue have a page"
            )
    for name in RUNTIME_FILES:
        if not _is_nonempty(runtime / name):
            raise InputError(
                f"--runtime: no {name} in {runtime}: `npm install onnxruntime-web` here, or give the folder dist of it"
            )
    _check_pair(*(export / name for name in PAGE_FILES))
    files = {f"/{name}": export / name for name in PAGE_FILES}
    return {"/": export / "try.html", **files, **{f"/ort/{name}": runtime / name for name in RUNTIME_FILES}}


def _is_nonempty(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _check_pair(page_path: Path, model: Path) -> None:
    """Refuses a page that was written for another model; pages of earlier versions are not checked."""
    try:
        expected = page.facts(page_path.read_text(encoding="utf-8")).get("sha256")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{page_path} is not the page of an export ({one_line(error)}): export again") from error
    with model.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if expected not in (None, sha256):
        raise InputError(f"{model} is not the file that {page_path.name} beside it was written for: export again")


def main(argv: list[str]) -> None:
    """Serves the page on this machine until it is interrupted.

    Raises:
        InputError: the user can correct the arguments or the folder.
    """
    parser = Parser(prog="python -m kdjax.deploy.browser", description="Serves the page of an export on this machine.")
    parser.add_argument("export", metavar="EXPORT", type=Path, help="folder that --stages=export wrote")
    parser.add_argument("--runtime", type=Path, default=RUNTIME, help=f"files of onnxruntime-web; default: {RUNTIME}")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000; 0 = any free port")
    options = parser.parse_args(argv)
    files = served_files(options.export.expanduser(), options.runtime.expanduser())
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", options.port), functools.partial(Handler, files))
    except (OSError, OverflowError) as error:
        raise InputError(f"--port {options.port} cannot be served ({error}): give another") from error
    with server:
        print(f"http://127.0.0.1:{server.server_port}/  (Ctrl-C ends it)", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    run_command(main)
