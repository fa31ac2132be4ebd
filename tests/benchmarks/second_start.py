"""Time from the start of the process to the first training step, of the first start of a run and of the second.

    python tests/benchmarks/second_start.py --config=configs/uc_merced.py --config.dataset.path=uc_merced.zip

The first start has an empty cache: images are decoded and programs compiled. The second finds both. The process is
ended after its first step. All arguments go to kdjax.main.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def seconds_to_first_step(directory: Path, arguments: list[str]) -> float:
    command = [
        sys.executable, "-m", "kdjax.main", *arguments, f"--workdir={directory / 'run'}",
        f"--config.run.cache_dir={directory / 'cache'}", "--config.run.log_seconds=0",
    ]  # fmt: skip
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if ": step 1/" in line:
            taken = time.monotonic() - began
            process.kill()
            process.wait()
            return taken
    raise SystemExit(f"the run ended before its first step, exit status {process.wait()}")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        first, second = (seconds_to_first_step(Path(name), sys.argv[1:]) for _ in range(2))
    print(json.dumps({"first_seconds": first, "second_seconds": second, "ratio_first_to_second": first / second}))


if __name__ == "__main__":
    main()
