"""The table of :mod:`benchmarks.kinds_of_zoo`: methods beside the best member of each zoo.

    python -m benchmarks.zoo_table --run_dir RUNS --output results/zoo

Writes ``table.md`` and ``runs.json``, each run's summary with its best validation figure.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scipy.stats import t as student

from benchmarks.kinds_of_zoo import KINDS, TARGETS, ZOO_METHODS, Target, cells, members

Runs = dict[tuple[str, str, str], dict[int, dict[str, float]]]
"""By (target, kind, method), by seed: ``test`` and best ``val`` figure, in per cent."""

SCALE = {"test/acc": 100.0, "test/nme": 1.0}


def read_run(run: Path, target: Target) -> dict[str, float] | None:
    """Test figure of the best checkpoint and its validation figure; ``None`` if unfinished."""
    summary = run / "summary.json"
    if not summary.exists():
        return None
    with open(run / "metrics.csv", newline="") as file:
        rows = [float(row[target.monitor]) for row in csv.DictReader(file) if row[target.monitor]]
    best = min(rows) if target.lower_is_better else max(rows)
    scale = SCALE[target.metric]
    test = json.loads(summary.read_text())["test"][target.metric]
    return {"test": scale * test, "val": scale * best}


def read_runs(folder: Path, seeds: Sequence[int]) -> Runs:
    """All finished runs."""
    runs: Runs = {}
    for cell in cells(seeds, list(TARGETS), KINDS):
        found = read_run(folder / cell.path, TARGETS[cell.target])
        if found:
            runs.setdefault((cell.target, cell.kind, cell.method), {})[cell.seed] = found
    return runs


def columns(runs: Runs, target: str, kind: str) -> dict[str, dict[int, float]]:
    """Test figures by method and seed, the best single source by either way of choosing first.

    By hindsight is the source whose mean test figure is best; by validation is, seed by seed, the
    one whose validation figure is best.
    """
    lower = TARGETS[target].lower_is_better
    sign = -1 if lower else 1
    singles = {}
    for name in members(kind, TARGETS[target]):
        if found := runs.get((target, "", f"single {name}")):
            singles[name] = found
    result: dict[str, dict[int, float]] = {}
    if len(singles) == len(members(kind, TARGETS[target])):
        common = set.intersection(*(set(found) for found in singles.values()))
        tests = {n: {s: found[s]["test"] for s in common} for n, found in singles.items()}
        if common:
            best = max(tests, key=lambda name: sign * mean(tests[name].values()))
            result["best single, hindsight"] = tests[best]
            result["best single, validation"] = {
                seed: tests[max(singles, key=lambda n: sign * singles[n][seed]["val"])][seed]
                for seed in common
            }
    for method in ZOO_METHODS:
        found = runs.get((target, kind, method), {})
        result[method] = {seed: each["test"] for seed, each in found.items()}
    return result


def paired(values: Mapping[int, float], others: Mapping[int, float]) -> tuple[float, float, int]:
    """Mean difference over the seeds that both have, half its 95 % t interval, and their number."""
    seeds = sorted(set(values) & set(others))
    differences = [values[seed] - others[seed] for seed in seeds]
    if len(seeds) < 2:
        return (differences[0] if seeds else float("nan")), float("nan"), len(seeds)
    half = student.ppf(0.975, len(seeds) - 1) * stdev(differences) / len(seeds) ** 0.5
    return mean(differences), float(half), len(seeds)


def row(target: str, kind: str, found: Mapping[str, Mapping[int, float]]) -> list[str]:
    """Cells of the table: mean ± standard deviation, and ours minus the best single."""
    result = [f"`{target}`", kind]
    for values in found.values():
        numbers = list(values.values())
        spread = f" ± {stdev(numbers):.2f}" if len(numbers) > 1 else ""
        result.append(f"{mean(numbers):.2f}{spread}" if numbers else "-")
    for method in ("ours lite", "ours full"):
        reference = found.get("best single, hindsight", {})
        difference, half, seeds = paired(found[method], reference)
        result.append(f"{difference:+.2f} ± {half:.2f} ({seeds})" if seeds else "-")
    return result


def table(runs: Runs) -> str:
    """Markdown."""
    names = ["best single, hindsight", "best single, validation", *ZOO_METHODS]
    heads = ["target", "zoo", *names, "lite - best single (seeds)", "full - best single (seeds)"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for target in TARGETS:
        for kind in KINDS:
            found = columns(runs, target, kind)
            if any(found.values()):
                padded = {name: found.get(name, {}) for name in names}
                lines.append(f"| {' | '.join(row(target, kind, padded))} |")
    return "\n".join(lines) + "\n"


def singles(runs: Runs) -> str:
    """Markdown of every single source on every target."""
    lines = ["| target | source | test | seeds |", "|---|---|---|---|"]
    for (target, kind, method), found in runs.items():
        if not kind:
            numbers = [each["test"] for each in found.values()]
            spread = f" ± {stdev(numbers):.2f}" if len(numbers) > 1 else ""
            name = method.removeprefix("single ")
            lines.append(f"| `{target}` | {name} | {mean(numbers):.2f}{spread} | {len(numbers)} |")
    return "\n".join(lines) + "\n"


REFERENCES = ("best single, hindsight", "best single, validation", "average", "released lite")


def gains(runs: Runs) -> str:
    """Markdown: gains in per cent of what a method is held against, over targets and seeds.

    Above 0 is better. Pairs of a kind share runs, so that the 95 % t intervals are a little narrow.
    """
    lines = [f"| gain of | over | {' | '.join(KINDS)} | all |", f"|{'---|' * (len(KINDS) + 3)}"]
    for method in ("ours lite", "ours full", "matched ours lite"):
        for reference in REFERENCES:
            found = {kind: _gains(runs, kind, method, reference) for kind in KINDS}
            cells = [*found.values(), [gain for each in found.values() for gain in each]]
            lines.append(f"| {method} | {reference} | {' | '.join(map(_with_interval, cells))} |")
    return "\n".join(lines) + "\n"


def _gains(runs: Runs, kind: str, method: str, reference: str) -> list[float]:
    result = []
    for target in TARGETS:
        found = columns(runs, target, kind)
        ours, others = found.get(method, {}), found.get(reference, {})
        sign = -1 if TARGETS[target].lower_is_better else 1
        common = sorted(set(ours) & set(others))
        result += [100 * sign * (ours[s] - others[s]) / others[s] for s in common]
    return result


def _with_interval(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "-"
    half = student.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return f"{mean(values):+.1f} ± {half:.1f} ({len(values)})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table and what it was made from."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run_dir", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    options = parser.parse_args(arguments)
    runs = read_runs(options.run_dir, [int(seed) for seed in options.seeds.split(",")])
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "table.md").write_text(f"{table(runs)}\n{singles(runs)}\n{gains(runs)}")
    plain: list[dict[str, Any]] = [
        {"target": target, "zoo": kind, "method": method, "seed": seed, **found}
        for (target, kind, method), by_seed in runs.items()
        for seed, found in sorted(by_seed.items())
    ]
    (options.output / "runs.json").write_text(json.dumps(plain, indent=1) + "\n")
    print((options.output / "table.md").read_text(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
