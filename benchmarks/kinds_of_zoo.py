r"""Trains on three kinds of zoo by every method that a zoo must not lose to.

    python -m benchmarks.kinds_of_zoo sources --data DATA --run_dir RUNS
    python -m benchmarks.kinds_of_zoo run --data DATA --run_dir RUNS [--seeds 0,1,2,3,4]
    python -m benchmarks.zoo_table --run_dir RUNS --output results/zoo

``DATA`` holds ``faces5``, ``faces68``, ``flowers17``, ``cifar10`` and ``tiny_imagenet50`` in the
layouts that the experiments name. Every training is an ordinary run in a folder of its own. A cell
that has a summary is not repeated, and several processes may share ``RUNS``: each takes the next
cell that nobody has locked. A lock outlives a killed process; ``run --unlock`` removes those of
unfinished cells.

All but Zoo-Tuning as released start their heads from a probe, so that what differs is the zoo.

The kinds: *descendants* of one network; *strangers* with initial weights of their own, of which one
is near to each target; *complementary* strangers, each trained on a half: of the animals, or of the
face's landmarks.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import os
import re
import shutil
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from zoo_lightning.cli import main as zoo_lightning

BACKBONE = "--model.init_args.backbone.init_args"
SHIPPED = ("tiny-imagenet50", "segmentation", "counting")
STEPS = 200
LR = "8e-3"
"""Best by validation of 4e-3, 8e-3 and 1.6e-2 for the single near source on three targets, and
within noise of the best for the zoo (``results/zoo``; seed 10, which the table does not have)."""
PROBED = ("--model.head_init", "probe")

QUIET = (
    *("--average_weights", "false"),
    *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
    *("--data.num_workers", "0"),
)


@dataclass(frozen=True)
class Recipe:
    """How a source of this comparison that is not shipped is trained.

    Attributes:
        experiment: of the package.
        seed: of its initial weights, another one for each source.
        data: folder, made by :func:`make_halves` or of the data sets.
        extra: options.
    """

    experiment: str
    seed: int
    data: str
    extra: tuple[str, ...] = ()


SHORTER = (
    *("--trainer.max_steps", "2500", "--trainer.val_check_interval", "500"),
    *("--data.flip_pairs", "[[0,1]]", "--data.normalizations", "[diagonal]"),
    *("--model.normalization", "diagonal"),
)
RECIPES = {
    "rotation1": Recipe("sources/rotation", 1, "tiny_imagenet50"),
    "faces5_2": Recipe("sources/faces5", 2, "faces5"),
    "animals0": Recipe("sources/tiny-imagenet50", 3, "halves/animals0"),
    "animals1": Recipe("sources/tiny-imagenet50", 4, "halves/animals1"),
    "eyes": Recipe("sources/faces5", 5, "halves/eyes", SHORTER),
    "mouth": Recipe("sources/faces5", 6, "halves/mouth", SHORTER),
}


@dataclass(frozen=True)
class Target:
    """A task to train for.

    Attributes:
        data: folder.
        experiment: of the package, as words of the command line.
        extra: options.
        metric: of the test.
        monitor: of the validation.
    """

    data: str
    experiment: tuple[str, ...]
    extra: tuple[str, ...]
    metric: str
    monitor: str

    @property
    def lower_is_better(self) -> bool:
        """Whether the metric is an error."""
        return "nme" in self.metric

    @property
    def faces(self) -> bool:
        """Whether the task is on faces."""
        return self.data.startswith("faces")


_LANDMARKS = ("--experiment", "landmarks-faces68", "--experiment", "heads/coordinates")
_PLAIN_TEST = ("--model.flip_test", "false")
_CLASSES = ("--experiment", "classification-folders", "--experiment", "methods/lite")
_NME = ("test/nme", "val/nme")
_ACCURACY = ("test/acc", "val/acc")
TARGETS = {
    "faces68-230": Target(
        "faces68", _LANDMARKS, (*_PLAIN_TEST, "--data.train_fraction", "0.111"), *_NME
    ),
    "faces68": Target("faces68", _LANDMARKS, _PLAIN_TEST, *_NME),
    "flowers17": Target("flowers17", _CLASSES, (), *_ACCURACY),
    "cifar10-500": Target(
        "cifar10",
        _CLASSES,
        ("--data.val_fraction", "0.02", "--data.train_fraction", "0.0511"),
        *_ACCURACY,
    ),
}
KINDS = ("descendants", "strangers", "complementary")


def members(kind: str, target: Target) -> tuple[str, ...]:
    """Names of a zoo's sources; complementary ones differ by what the target shows."""
    if kind == "descendants":
        return SHIPPED
    if kind == "strangers":
        return ("tiny-imagenet50", "rotation1", "faces5_2")
    return ("eyes", "mouth") if target.faces else ("animals0", "animals1")


_SOUP = ("--experiment", "methods/soup")
_RELEASED = (
    *(f"{BACKBONE}.gate_init", "released", f"{BACKBONE}.norm_weights", "uniform"),
    *(f"{BACKBONE}.align", "spatial"),
)
# Alignment costs at this rate, see results/zoo.
_OURS = (
    *(*PROBED, f"{BACKBONE}.gate_init", "greedy", f"{BACKBONE}.norm_weights", "gates"),
    *(f"{BACKBONE}.align", "none"),
)
ZOO_METHODS = {
    "average": (*_SOUP, *PROBED),
    "matched average": (*_SOUP, *PROBED),
    "released lite": (*_RELEASED, f"{BACKBONE}.mode", "lite"),
    "released full": (*_RELEASED, f"{BACKBONE}.mode", "full"),
    "ours lite": (*_OURS, f"{BACKBONE}.mode", "lite"),
    "ours full": (*_OURS, f"{BACKBONE}.mode", "full"),
    "matched ours lite": (*_OURS, f"{BACKBONE}.mode", "lite"),
}
MATCHED = "matched "
"""Beginning of the names of methods whose sources' channels are matched first."""


@dataclass(frozen=True)
class Cell:
    """One training of the comparison.

    Attributes:
        target: name in ``TARGETS``.
        kind: of the zoo, in ``KINDS``; empty for a single source, which counts for all its zoos.
        method: name in ``ZOO_METHODS``, or ``single SOURCE``.
        seed: of the run.
    """

    target: str
    kind: str
    method: str
    seed: int

    @property
    def path(self) -> Path:
        """Of its folder, below the folder of all runs."""
        parts = [self.target, self.kind, self.method, str(self.seed)]
        return Path(*[re.sub(r"\W+", "-", part) for part in parts if part])


def cells(seeds: Sequence[int], targets: Sequence[str], kinds: Sequence[str]) -> Iterator[Cell]:
    """All trainings, seed by seed, so that a comparison that is cut short has whole seeds."""
    for seed, target in itertools.product(seeds, targets):
        names = dict.fromkeys(n for kind in kinds for n in members(kind, TARGETS[target]))
        for name in names:
            yield Cell(target, "", f"single {name}", seed)
        for kind, method in itertools.product(kinds, ZOO_METHODS):
            yield Cell(target, kind, method, seed)


def reference(name: str, runs: Path) -> str:
    """What the command line calls a source."""
    if name in SHIPPED:
        return f"builtin:{name}"
    return str(runs / "sources" / f"{name}.ckpt")


def command(cell: Cell, data: Path, runs: Path) -> list[str]:
    """Words of the command line of a cell, without the folder to run in."""
    target = TARGETS[cell.target]
    if cell.method.startswith("single "):
        method = (*_SOUP, *PROBED)
        sources = [reference(cell.method.removeprefix("single "), runs)]
    else:
        method = ZOO_METHODS[cell.method]
        names = members(cell.kind, target)
        if cell.method.startswith(MATCHED):
            folder = matched_folder(cell, runs)
            sources = [str(folder / f"{name}.safetensors") for name in names]
        else:
            sources = [reference(name, runs) for name in names]
    return [
        *("fit", *target.experiment, *method, "--sources", ",".join(sources)),
        *("--data.root", str(data / target.data), "--seed_everything", str(cell.seed)),
        *("--trainer.max_steps", str(STEPS), "--trainer.val_check_interval", str(STEPS // 4)),
        *("--model.lr", LR, *target.extra, *QUIET),
    ]


def matched_folder(cell: Cell, runs: Path) -> Path:
    """Where the sources of a cell's zoo are, matched by their activations on the target."""
    return runs / "matched" / cell.target / cell.kind


def match(cell: Cell, data: Path, runs: Path) -> list[str]:
    """Words of the command line that matches the sources of a cell's zoo."""
    target = TARGETS[cell.target]
    sources = [reference(name, runs) for name in members(cell.kind, target)]
    return [
        *("sources", "match", *target.experiment, "--sources", ",".join(sources)),
        *("--how", "activations", "--data.root", str(data / target.data), *target.extra),
        *("--output", str(matched_folder(cell, runs)), "--overwrite"),
    ]


def make_halves(data: Path, runs: Path) -> None:
    """Make the data of the complementary sources: links to half the classes, half the columns."""
    for part, half in itertools.product(("train", "test"), (0, 1)):
        classes = sorted(path for path in (data / "tiny_imagenet50" / part).iterdir())
        folder = runs / "halves" / f"animals{half}" / part
        folder.mkdir(parents=True, exist_ok=True)
        for path in classes[half::2]:
            with contextlib.suppress(FileExistsError):
                (folder / path.name).symlink_to(path.resolve())
    for name, points in (("eyes", (0, 1)), ("mouth", (3, 4))):
        folder = runs / "halves" / name
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (folder / "images").symlink_to((data / "faces5" / "images").resolve())
        for part in ("train", "test"):
            with open(data / "faces5" / f"{part}.csv", newline="") as file:
                rows = list(csv.reader(file))[1:]
            with open(folder / f"{part}.csv", "w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["image", "x0", "y0", "x1", "y1"])
                for row in rows:
                    writer.writerow(
                        [row[0], *(row[1 + 2 * p + xy] for p in points for xy in (0, 1))]
                    )


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether this process may work in a folder: no other process has claimed it."""
    lock = folder.with_name(folder.name + ".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.mkdir()
    except FileExistsError:
        yield False
        return
    try:
        yield True
    finally:
        lock.rmdir()


def attempt(words: list[str], log: Path) -> bool:
    """Run a command line with its output in a file; whether it succeeded."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        print(" ".join(["python -m zoo_lightning", *words]), flush=True)
        try:
            return zoo_lightning(words) == 0
        except (Exception, SystemExit):
            traceback.print_exc()
            return False


def train_sources(data: Path, runs: Path) -> None:
    """Train the sources that are not shipped, each unless it is there already."""
    make_halves(data, runs)
    for name, recipe in RECIPES.items():
        result = runs / "sources" / f"{name}.ckpt"
        run = runs / "sources" / name
        with claimed(run) as free:
            if not free or result.exists():
                continue
            root = runs if recipe.data.startswith("halves") else data
            words = [
                *("fit", "--experiment", recipe.experiment, "--data.root", str(root / recipe.data)),
                *("--seed_everything", str(recipe.seed), *recipe.extra, *QUIET),
                *("--run_dir", str(run)),
            ]
            if attempt(words, run.with_suffix(".log")):
                part = result.with_suffix(f".{os.getpid()}.part")
                shutil.copy(run / "checkpoints" / "best.ckpt", part)
                os.replace(part, result)
            print(name, "trained" if result.exists() else f"failed, see {run}.log", flush=True)


def run_cell(cell: Cell, data: Path, runs: Path) -> bool:
    """Train a cell; its checkpoints are not kept."""
    run = runs / cell.path
    if cell.method.startswith(MATCHED):
        folder = matched_folder(cell, runs)
        names = members(cell.kind, TARGETS[cell.target])
        if not all((folder / f"{name}.safetensors").exists() for name in names):
            matched = attempt(match(cell, data, runs), folder.with_suffix(".log"))
            if not matched:
                return False
    words = [*command(cell, data, runs), "--run_dir", str(run)]
    done = attempt(words, run.with_name(f"{run.name}.log"))
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    return done


def parser() -> argparse.ArgumentParser:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("sources", "run"))
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--run_dir", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--unlock", action="store_true", help="free cells of killed processes")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is still missing; exit status 1 if a cell failed."""
    options = parser().parse_args(arguments)
    runs = options.run_dir
    if options.what == "sources":
        train_sources(options.data, runs)
        return 0
    seeds = [int(seed) for seed in options.seeds.split(",")]
    wanted = list(cells(seeds, options.targets.split(","), options.kinds.split(",")))
    if options.unlock:
        for cell in wanted:
            with contextlib.suppress(FileNotFoundError):
                (runs / cell.path).with_name(f"{cell.seed}.lock").rmdir()
    failed = 0
    for cell in wanted:
        run = runs / cell.path
        with claimed(run) as free:
            if not free or (run / "summary.json").exists():
                continue
            # A run folder that a killed process left is begun anew.
            shutil.rmtree(run, ignore_errors=True)
            done = run_cell(cell, options.data, runs)
            failed += not done
            print(cell.path, "done" if done else f"failed, see {run}.log", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
