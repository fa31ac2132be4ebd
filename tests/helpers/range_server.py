"""A server of files that answers ranges, as object stores do. A process of its own: GDAL waits for it in C."""

import contextlib
import functools
import http.server
import subprocess
import sys


class _Handler(http.server.SimpleHTTPRequestHandler):
    def send_head(self):
        asked = self.headers.get("Range")
        self.left = -1
        if not asked:
            return super().send_head()
        try:
            content = open(self.translate_path(self.path), "rb")
        except OSError:
            return self.send_error(404)
        size = content.seek(0, 2)
        first, _, last = asked.removeprefix("bytes=").partition("-")
        first, last = int(first), min(int(last or size - 1), size - 1)
        if first > last:
            content.close()
            return self.send_error(416)
        self.left = last - first + 1
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(self.left))
        self.end_headers()
        content.seek(first)
        return content

    def copyfile(self, source, target):
        target.write(source.read(self.left))

    def log_request(self, code="-", size="-"):
        print(self.command, self.path, int(code), flush=True)

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def serve(folder, log):
    """The URL of `folder`. The file `log` gets a line "METHOD PATH STATUS" for each answer."""
    with log.open("w") as said, subprocess.Popen([sys.executable, __file__, folder], stdout=said) as server:
        try:
            while not (text := log.read_text()).endswith("\n"):
                assert server.poll() is None
            yield f"http://127.0.0.1:{text.split()[0]}"
        finally:
            server.terminate()


if __name__ == "__main__":
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Handler, directory=sys.argv[1])
    ) as listening:
        print(listening.server_port, flush=True)
        listening.serve_forever()
