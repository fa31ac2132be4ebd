"""A headless Chromium, asked over the pipe of its DevTools protocol: no driver and no package are needed."""

import contextlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
SECONDS = 60


def found():
    """The program, None where none is installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """A tab of a browser of its own."""

    def __init__(self, asked, answers):
        """Speaks through two files of a browser that has started."""
        self._asked, self._answers, self._count, self._session = asked, answers, 0, None
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def __call__(self, method, **parameters):
        """The result of a method of the protocol."""
        self._count += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._count, "method": method, "params": parameters, **session}
        self._asked.write(json.dumps(message).encode() + b"\0")
        self._asked.flush()
        while True:
            said = bytearray()
            while (byte := self._answers.read(1)) != b"\0":
                assert byte, "the browser has ended"
                said += byte
            answer = json.loads(said)
            if answer.get("id") == self._count:
                assert "result" in answer, answer
                return answer["result"]

    def evaluate(self, expression):
        """The value of an expression of JavaScript in the page."""
        return self("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait_for(self, expression):
        """Waits until an expression is true, and returns its value."""
        until = time.monotonic() + SECONDS
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < until, f"{expression}: {self.evaluate('document.body.innerText')}"
            time.sleep(0.05)
        return value

    def choose(self, selector, paths):
        """Puts files into an input."""
        root = self("DOM.getDocument")["root"]["nodeId"]
        node = self("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self("DOM.setFileInputFiles", files=[str(path) for path in paths], nodeId=node)


@contextlib.contextmanager
def tab(folder: Path):
    """A `Tab`; the browser keeps its files in `folder`, and ends with the block."""
    (their_in, asked), (answers, their_out) = os.pipe(), os.pipe()
    command = [
        found(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
        "--no-first-run", f"--user-data-dir={folder}",
    ]  # fmt: skip
    # It reads from 3 and writes to 4.
    shell = ["bash", "-c", f'exec "$0" "$@" 3<&{their_in} 4>&{their_out}']
    browser = subprocess.Popen([*shell, *command], pass_fds=(their_in, their_out), stderr=subprocess.DEVNULL)
    os.close(their_in)
    os.close(their_out)
    try:
        with open(asked, "wb") as writing, open(answers, "rb") as reading:
            yield Tab(writing, reading)
    finally:
        browser.kill()
        browser.wait()
