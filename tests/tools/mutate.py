"""Puts one mistake after the other into a copy of the tree, and looks whether the tests notice.

    python tests/tools/mutate.py [--only 3,17] [--cheap] [--sample K --seed S] [--programs DIR]

`mutants.py` lists them, with those of the other files `mutants_*.py`. The tree itself is never changed. Ends with the
count; exit status 1 where a mutant survives, or where tests fail without one.
"""

import argparse
import dataclasses
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from mutants import MUTANTS
from mutants_wiring import Mutant

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("kdjax", "tests", "configs", "pyproject.toml")
NOTHING_RAN = (4, 5)
"""Exit statuses of pytest where a name or a choice of tests fits none."""


@dataclasses.dataclass
class Copy:
    """A copy of the tree, and what its tests said so far.

    Attributes:
        place: its root.
        programs: where compiled programs are kept for all mutants.
        whole: by their arguments, whether tests pass without a mutant.
    """

    place: Path
    programs: Path
    whole: dict[str, bool] = dataclasses.field(default_factory=dict)

    def passes(self, tests: str) -> bool:
        """Whether tests pass in the copy as it is now.

        Raises:
            SystemExit: there are no such tests.
        """
        files, _, chosen = tests.partition(" -k ")
        arguments = [*files.split(), *(["-k", chosen] if chosen else [])]
        given = ["-m", "slow or not slow", "-p", "no:cacheprovider", f"--basetemp={self.place / 'tmp'}", *arguments]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", *given],
            cwd=self.place,
            env={**os.environ, "KDJAX_TEST_PROGRAMS": str(self.programs)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode in NOTHING_RAN:
            raise SystemExit(f"no tests ran for {tests}:\n{done.stdout[-2000:]}")
        return done.returncode == 0

    def check(self, mutants: list[Mutant]) -> None:
        """Runs the tests of all these mutants without any, those of one file together."""
        files: dict[str, set[str]] = {}
        for mutant in mutants:
            files.setdefault(mutant.tests.partition(" -k ")[0], set()).add(mutant.tests.partition(" -k ")[2])
        for file, names in files.items():
            together = file if "" in names else f"{file} -k {' or '.join(f'({name})' for name in sorted(names))}"
            if self.passes(together):  # else each is asked for itself
                self.whole |= {f"{file} -k {name}".removesuffix(" -k "): True for name in names}

    def killed(self, mutant: Mutant) -> bool | None:
        """Whether the tests of a mutant notice it; None where they fail without it."""
        if mutant.tests not in self.whole:
            self.whole[mutant.tests] = self.passes(mutant.tests)
        if not self.whole[mutant.tests]:
            return None
        path = self.place / mutant.file
        before = path.read_text(encoding="utf-8")
        path.write_text(applied(mutant, before), encoding="utf-8")
        try:
            return not self.passes(mutant.tests)
        finally:
            path.write_text(before, encoding="utf-8")


def applied(mutant: Mutant, text: str) -> str:
    """The file with the mistake in it.

    Raises:
        SystemExit: the line is not there, or several times.
    """
    if text.count(mutant.old) != 1:
        raise SystemExit(f"{mutant.file} holds {mutant.old!r} {text.count(mutant.old)} times: it must be there once")
    return text.replace(mutant.old, mutant.new)


def copied(parent: Path) -> Path:
    """A copy of what tests need."""
    place = parent / "tree"
    place.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, place / name)
    return place


def chosen(options: argparse.Namespace) -> list[int]:
    """Numbers of the mutants to try."""
    numbers = [number for number, mutant in enumerate(MUTANTS) if not (options.cheap and mutant.slow)]
    if options.only:
        numbers = [int(one) for one in options.only.split(",")]
    if options.sample:
        numbers = random.Random(options.seed).sample(numbers, min(options.sample, len(numbers)))
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="numbers, as 3,17")
    parser.add_argument("--cheap", action="store_true", help="leave out those whose tests take minutes")
    parser.add_argument("--sample", type=int, help="so many, drawn by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--programs", type=Path, help="where compiled programs are kept; default: for this time only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        programs = options.programs or Path(temporary) / "programs"
        programs.mkdir(parents=True, exist_ok=True)
        copy = Copy(copied(Path(temporary)), programs.resolve())
        numbers, verdicts = chosen(options), []
        copy.check([MUTANTS[number] for number in numbers])
        for number in numbers:
            mutant, began = MUTANTS[number], time.monotonic()
            killed = copy.killed(mutant)
            verdicts.append(killed)
            said = {True: "killed", False: "SURVIVED", None: "TESTS FAIL WITHOUT IT"}[killed]
            line = (mutant.new.strip().splitlines() or ["(deleted) " + mutant.old.strip()])[0]
            print(f"{number:3}  {said:8}  {time.monotonic() - began:5.0f} s  {mutant.file}: {line[:90]}", flush=True)
    print(f"{verdicts.count(True)} of {len(verdicts)} mutants killed")
    raise SystemExit(verdicts.count(True) < len(verdicts))


if __name__ == "__main__":
    main()
