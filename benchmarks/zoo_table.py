"""The table of :mod:`benchmarks.kinds_of_zoo`: methods beside the best member of each zoo.

    python -m benchmarks.zoo_table --run_dir RUNS --output results/zoo

Writes ``table.md`` and ``runs.json``, each run's summary with its best validation figure.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.kinds_of_zoo import KINDS, TARGETS, ZOO_METHODS, Target, cells, members
from zoo_lightning.benchmarking.report import markdown
from zoo_lightning.benchmarking.statistics import interval
from zoo_lightning.runs.run_folder import metric_by_step, read_summary

Runs = dict[tuple[str, str, str], dict[int, dict[str, float]]]
"""``test`` and best ``val`` metric in per cent, by (target, kind, method) and by seed."""

SCALE = {"test/acc": 100.0, "test/nme": 1.0}


def read_run(run: Path, target: Target) -> dict[str, float] | None:
    """Test and validation metric of the best checkpoint; ``None`` if the run is not finished."""
    summary = read_summary(run)
    if summary is None:
        return None
    values = metric_by_step(run, target.monitor).values()
    best = min(values) if target.lower_is_better else max(values)
    scale = SCALE[target.metric]
    return {"test": scale * summary["test"][target.metric], "val": scale * best}


def read_runs(folder: Path, seeds: Sequence[int]) -> Runs:
    """Read all finished runs."""
    runs: Runs = {}
    for cell in cells(seeds, list(TARGETS), KINDS):
        found = read_run(folder / cell.path, TARGETS[cell.target])
        if found:
            runs.setdefault((cell.target, cell.kind, cell.method), {})[cell.seed] = found
    return runs


def columns(runs: Runs, target: str, kind: str) -> dict[str, dict[int, float]]:
    """Test metrics by method and seed, after the best single source by both ways of choosing.

    Hindsight chooses the source with the best mean test metric, validation in each seed the source
    with the best validation metric.
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
    """Mean difference over the common seeds, half of its 95 % t interval, and their number."""
    seeds = sorted(set(values) & set(others))
    return interval([values[seed] - others[seed] for seed in seeds])


def row(target: str, kind: str, found: Mapping[str, Mapping[int, float]]) -> list[str]:
    """Texts of a row: mean ± standard deviation by method, and ours minus the best single."""
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
    """Table of all methods on all targets in Markdown."""
    names = ["best single, hindsight", "best single, validation", *ZOO_METHODS]
    heads = ["target", "zoo", *names, "lite - best single (seeds)", "full - best single (seeds)"]
    rows = []
    for target in TARGETS:
        for kind in KINDS:
            found = columns(runs, target, kind)
            if any(found.values()):
                padded = {name: found.get(name, {}) for name in names}
                rows.append(row(target, kind, padded))
    return markdown(heads, rows)


def singles(runs: Runs) -> str:
    """Table of all single sources on all targets in Markdown."""
    rows = []
    for (target, kind, method), found in runs.items():
        if not kind:
            numbers = [each["test"] for each in found.values()]
            spread = f" ± {stdev(numbers):.2f}" if len(numbers) > 1 else ""
            name = method.removeprefix("single ")
            rows.append([f"`{target}`", name, f"{mean(numbers):.2f}{spread}", str(len(numbers))])
    return markdown(["target", "source", "test", "seeds"], rows)


REFERENCES = ("best single, hindsight", "best single, validation", "average", "released lite")


def gains(runs: Runs) -> str:
    """Table in Markdown of gains over other methods, in per cent, over targets and seeds.

    Above 0 is better. Pairs of a kind share runs, so that the 95 % t intervals are a little narrow.
    """
    rows = []
    for method in ("ours lite", "ours full", "matched ours lite"):
        for reference in REFERENCES:
            found = {kind: _gains(runs, kind, method, reference) for kind in KINDS}
            cells = [*found.values(), [gain for each in found.values() for gain in each]]
            rows.append([method, reference, *map(_with_interval, cells)])
    return markdown(["gain of", "over", *KINDS, "all"], rows)


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
    average, half, count = interval(values)
    return f"{average:+.1f} ± {half:.1f} ({count})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table and the figures in it."""
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
