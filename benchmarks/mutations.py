"""Mutation testing of formulas: change single lines, one at a time, and run the tests.

    python -m benchmarks.mutations [--only NAME ...]

``mutations.yaml`` beside this file lists the mutations: plausible mistakes that change results.
Each is made in a temporary copy of the package, never in the tree, and only the test files that
should detect it run, until the first failure. These files have to pass without any mutation.
``results/mutations`` gets ``results.json`` and ``README.md``. The former keeps the newest outcome
of each mutation and the first one, from before tests were added because of it.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_suffix(".yaml")
RESULTS = Path("results") / "mutations"

COPIED = ("zoo_lightning", "experiments", "benchmarks", "tests", "setup.cfg", "pyproject.toml")
"""Parts of the repository that the tests of formulas need."""

PYTEST = (
    *("-p", "no:xdist", "-p", "no:cacheprovider", "-q", "-x", "-m", "not slow"),
    *("-rfE", "--tb=no", "-o", "addopts=--import-mode=importlib", "-o", "timeout=240"),
)
"""Options of pytest: one process, until the first failure or a time limit."""

PASSED, FAILED = 0, 1  # exit statuses of pytest
ELSEWHERE = 99  # exit status of tests that did not import the copy

BY_ITSELF = " fails without any change"
"""Suffix of the name of a test that fails without any mutation."""

SLOW = ("torch._dynamo", "torchvision", "timm", "lightning.pytorch.cli", "hypothesis", "gymnasium")
"""Libraries to import once for all runs."""


class MutationError(Exception):
    """The list does not match the source, or tests fail without a mutation."""


@dataclass(frozen=True)
class Mutation:
    """A changed line of the package.

    Attributes:
        name: unique name.
        file: path in the repository.
        before: line without its indentation, which the file has exactly once.
        after: line in its place; empty removes the line.
        means: mistake that the mutation stands for.
        tests: files in ``tests`` that should detect it.
        survives: reason why no test detects it; empty if one does.
    """

    name: str
    file: str
    before: str
    after: str
    means: str
    tests: tuple[str, ...]
    survives: str = ""

    def applied(self, source: str) -> str:
        """Apply the mutation to the text of the file.

        Raises:
            MutationError: the text does not have the line exactly once, or would not change.
        """
        lines = source.split("\n")
        places = [number for number, line in enumerate(lines) if line.strip() == self.before]
        if len(places) != 1 or self.after == self.before:
            raise MutationError(
                f"mutation {self.name!r}: {self.file} must have the line {self.before!r} exactly "
                f"once and change it, found {len(places)}; bring its entry in {LIST.name} up to "
                "date"
            )
        (place,) = places
        indentation = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
        lines[place : place + 1] = [indentation + self.after] if self.after else []
        return "\n".join(lines)


def read_mutations(path: Path = LIST) -> list[Mutation]:
    """Read the list of mutations.

    Raises:
        MutationError: two mutations have one name.
    """
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    found = [Mutation(**{**each, "tests": tuple(each["tests"])}) for each in entries]
    names = [each.name for each in found]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise MutationError(f"{path.name} has two mutations named {twice!r}; rename one")
    return found


class Copy:
    """A temporary copy of the package with its tests.

    Args:
        root: folder of the repository.
        folder: folder of the copy.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            if (root / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(root / name, folder / name, ignore=ignored)
            elif (root / name).exists():
                shutil.copy(root / name, folder / name)
        self._times = itertools.count(1)

    def write(self, file: str, text: str) -> None:
        """Replace a file of the copy."""
        path = self.folder / file
        path.write_text(text, encoding="utf-8")
        # Python recognises compiled files by seconds and size, which two versions may share.
        moment = next(self._times)
        os.utime(path, (moment, moment))

    def test(self, files: Iterable[str]) -> tuple[str, str]:
        """Run test files until the first failure.

        Returns:
            ``survived``, ``killed`` or ``broken`` (the tests could not run), and the first test
            that failed, or the last printed line.

        Raises:
            MutationError: the tests do not import the copy.
        """
        output = self.folder / "output.txt"
        child = os.fork()
        if not child:
            self._run(output, [f"tests/{file}" for file in files])
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        printed = output.read_text("utf-8", "replace").strip() or "nothing was printed"
        if status == PASSED:
            return "survived", ""
        if status == ELSEWHERE:
            raise MutationError(f"tests do not import the copy: {printed.splitlines()[-1]}")
        failed = re.search(r"^(?:FAILED|ERROR) tests/([^\s\[]+)", printed, re.MULTILINE)
        outcome = "killed" if status == FAILED and failed else "broken"
        return outcome, failed[1] if failed else printed.splitlines()[-1]

    def _run(self, output: Path, files: Sequence[str]) -> NoReturn:
        """Run tests of the copy in a forked process, which then ends."""
        status = -1
        try:
            with output.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            os.chdir(self.folder)
            os.environ["PYTHONPATH"] = str(self.folder)
            sys.path.insert(0, str(self.folder))
            import pytest
            from hypothesis import Phase, settings

            import zoo_lightning

            # The first failing example is enough; it is not shrunk.
            settings.register_profile("first", phases=[Phase.explicit, Phase.generate])
            settings.load_profile("first")

            if Path(zoo_lightning.__file__).parent.parent != self.folder:
                print(zoo_lightning.__file__, flush=True)
                status = ELSEWHERE
            else:
                status = int(pytest.main([*PYTEST, *files]))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)


def measure(
    copy: Copy, mutations: Sequence[Mutation], note: Callable[[Mutation, str, str, float], None]
) -> None:
    """Test one mutation after the other.

    Args:
        copy: copy of the repository.
        mutations: mutations to test.
        note: gets each mutation with its outcome, the test that killed it and the seconds; and
            again, as broken, each one whose test fails without any mutation.

    Raises:
        MutationError: an entry does not match the source.
    """
    sources = {each.file: (copy.folder / each.file).read_text("utf-8") for each in mutations}
    changed = [each.applied(sources[each.file]) for each in mutations]
    killed: dict[str, list[Mutation]] = {}
    for mutation, text in zip(mutations, changed, strict=True):
        start = time.monotonic()
        copy.write(mutation.file, text)
        outcome, test = copy.test(mutation.tests)
        copy.write(mutation.file, sources[mutation.file])
        note(mutation, outcome, test, time.monotonic() - start)
        if outcome == "killed":
            killed.setdefault(test, []).append(mutation)
    while killed:
        outcome, test = copy.test(sorted(killed))
        if outcome == "survived":
            break
        if test not in killed:
            raise MutationError(f"tests do not run without any change: {test}")
        for mutation in killed.pop(test):
            note(mutation, "broken", test + BY_ITSELF, 0.0)


def share(results: Sequence[Mapping[str, str]]) -> str:
    """Killed mutations and commits of the measurement: ``**9 of 10 (90.0 %)**, at commit abc``."""
    killed = sum(result["outcome"] == "killed" for result in results)
    commits = ", ".join(dict.fromkeys(result["commit"] for result in results))
    percent = 100 * killed / max(len(results), 1)
    return f"**{killed} of {len(results)} ({percent:.1f} %)**, at commit {commits}"


def report(mutations: Sequence[Mutation], results: Mapping[str, Any]) -> str:
    """Write the table in Markdown.

    Args:
        mutations: mutations of the list.
        results: results by name: ``first`` and ``now``, each with ``outcome``, ``test`` and
            ``commit``.
    """
    known = [each for each in mutations if each.name in results]
    first, now = ([results[each.name][key] for each in known] for key in ("first", "now"))
    lines = [
        "# Do the tests see wrong formulas?",
        "",
        "Single lines of formulas are changed one at a time in a copy of the package, and the test",
        "files that should see it run: a mutation is killed if one of their tests fails. The list",
        "is `benchmarks/mutations.yaml`. This page is written by",
        "",
        "    python -m benchmarks.mutations",
        "",
        "and `--only NAME` measures single mutations again. Broken, which counts as not killed, is",
        "what stopped the tests from running, or was seen only by a test that fails by itself.",
        "",
        f"- Killed when each was first tried, before tests were added: {share(first)}.",
        f"- Killed now: {share(now)}.",
        "",
        *_survivors(known, results),
        "| mutation | what it stands for | line before | line after | first | now | seen by |",
        "|---|---|---|---|---|---|---|",
        *(_row(each, results[each.name]) for each in known),
    ]
    return "\n".join(lines) + "\n"


def _survivors(known: Sequence[Mutation], results: Mapping[str, Any]) -> list[str]:
    alive = [each for each in known if results[each.name]["now"]["outcome"] != "killed"]
    if not alive:
        return ["None of the list survives.", ""]
    reasons = [f"- `{each.name}`: {each.survives or 'not yet looked at'}" for each in alive]
    return ["What survives, and why:", "", *reasons, ""]


def _row(mutation: Mutation, result: Mapping[str, Any]) -> str:
    first, now = result["first"]["outcome"], result["now"]["outcome"]
    after = _code(mutation.after) if mutation.after else "(left out)"
    test = _code(result["now"]["test"]) if now == "killed" else ""
    place = f"{mutation.file.removeprefix('zoo_lightning/')}: {_code(mutation.before)}"
    cells = (mutation.name, mutation.means, place, after, first, now, test)
    return "| " + " | ".join(cells) + " |"


def _code(text: str) -> str:
    escaped = text.replace("|", "\\|")
    return f"`` {escaped} ``" if "`" in text else f"`{escaped}`"


def commit_of(root: Path) -> str:
    """The current commit, with ``+`` if package or tests have uncommitted changes."""
    git = ["git", "-C", str(root)]
    known = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    if known.returncode:
        return "unknown"
    status = [*git, "status", "--porcelain", "--", "zoo_lightning", "experiments", "tests"]
    changed = subprocess.run(status, capture_output=True, text=True, check=True).stdout
    return known.stdout.strip() + ("+" if changed else "")


def main(
    arguments: Sequence[str] | None = None,
    root: Path = ROOT,
    listed: Path = LIST,
    libraries: Sequence[str] = SLOW,
) -> None:
    """Test all mutations of the list, or the named ones, and write the results.

    Args:
        arguments: arguments of the command line.
        root: folder of the repository, which gets the results.
        listed: file of the list of mutations.
        libraries: modules to import once for all test runs.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of mutations to test")
    options = parser.parse_args(arguments)
    folder = root / RESULTS
    try:
        mutations = read_mutations(listed)
        by_name = {each.name: each for each in mutations}
        if unknown := [name for name in options.only or () if name not in by_name]:
            raise MutationError(f"{listed.name} has no mutation named {unknown[0]!r}")
        chosen = [by_name[name] for name in options.only or by_name]
        path = folder / "results.json"
        results = json.loads(path.read_text("utf-8")) if path.exists() else {}
        results = {name: found for name, found in results.items() if name in by_name}
        commit = commit_of(root)

        def note(mutation: Mutation, outcome: str, test: str, seconds: float) -> None:
            found = {"outcome": outcome, "test": test, "commit": commit}
            first = results.get(mutation.name, {}).get("first", found)
            if first["test"] and test == first["test"] + BY_ITSELF:
                first = found
            results[mutation.name] = {"first": first, "now": found}
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            (folder / "README.md").write_text(report(mutations, results), encoding="utf-8")
            print(f"{mutation.name:36} {outcome:9} {seconds:5.1f} s  {test}", flush=True)

        os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads do not survive a fork
        for name in libraries:
            importlib.import_module(name)
        with tempfile.TemporaryDirectory() as place:
            measure(Copy(root, Path(place).resolve()), chosen, note)
    except MutationError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
