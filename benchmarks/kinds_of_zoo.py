r"""Train on three kinds of zoo by Zoo-Tuning and by the methods it has to be better than.

    python -m benchmarks.kinds_of_zoo sources --data DATA --run_dir RUNS
    python -m benchmarks.kinds_of_zoo run --data DATA --run_dir RUNS [--seeds 0,1,2,3,4]
    python -m benchmarks.zoo_table --run_dir RUNS --output results/zoo

``DATA`` holds ``faces5``, ``faces68``, ``flowers17``, ``cifar10`` and ``tiny_imagenet50`` in the
layouts that the experiments name. Every training is an ordinary run in a folder of its own, in a
process of ``zoo_lightning.runs.pool``. Finished runs are not repeated, and several commands may
share ``RUNS``.

All methods except the released ones start their heads from a probe, so that only the zoo
differs.

The kinds: *descendants* of one network; *strangers* with initial weights of their own, of which one
is near to each target; *complementary* strangers, each trained on a half: of the animals, or of the
face's landmarks.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from zoo_lightning.cli.program import main as zoo_lightning
from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.runs.pool import (
    Job,
    add_pool_options,
    execution_of,
    folder_name,
    resume_words,
    run_jobs,
    work_on,
)
from zoo_lightning.runs.run_folder import BEST, CHECKPOINTS, SUMMARY
from zoo_lightning.runs.stopping import WorkStopped

BACKBONE = "--model.init_args.backbone.init_args"
SHIPPED = ("tiny-imagenet50", "segmentation", "counting")
STEPS = 200
LR = "8e-3"
"""Best learning rate by validation of 4e-3, 8e-3 and 1.6e-2 for the single near source on three
targets, and within noise of the best for the zoo (``results/zoo``; seed 10, which is not in the
table)."""
PROBED = ("--model.head_init", "probe")

QUIET = (
    *("--average_weights", "false"),
    *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
    *("--data.num_workers", "0"),
)


@dataclass(frozen=True)
class SourceTraining:
    """Training of a source that is not shipped.

    Attributes:
        experiment: experiment of the package.
        seed: seed of the initial weights, another one for each source.
        data: folder of a data set, or one that :func:`make_halves` makes.
        extra: further options.
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
SOURCE_TRAININGS = {
    "rotation1": SourceTraining("sources/rotation", 1, "tiny_imagenet50"),
    "faces5_2": SourceTraining("sources/faces5", 2, "faces5"),
    "animals0": SourceTraining("sources/tiny-imagenet50", 3, "halves/animals0"),
    "animals1": SourceTraining("sources/tiny-imagenet50", 4, "halves/animals1"),
    "eyes": SourceTraining("sources/faces5", 5, "halves/eyes", SHORTER),
    "mouth": SourceTraining("sources/faces5", 6, "halves/mouth", SHORTER),
}


@dataclass(frozen=True)
class Target:
    """Target task of the comparison.

    Attributes:
        data: folder of the data.
        experiment: experiments of the package, as words of the command line.
        extra: further options.
        metric: test metric.
        monitor: validation metric.
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
    """Names of a zoo's sources; complementary sources depend on the target."""
    if kind == "descendants":
        return SHIPPED
    if kind == "strangers":
        return ("tiny-imagenet50", "rotation1", "faces5_2")
    return ("eyes", "mouth") if target.faces else ("animals0", "animals1")


_SOUP = ("--experiment", "methods/soup")
_RELEASED = (
    *(f"{BACKBONE}.gate_init", "released", f"{BACKBONE}.norm_weights", "uniform"),
    *(f"{BACKBONE}.align", "spatial"),  # the authors' code aligns fewer layers: "released"
)
# Alignment makes results worse at this learning rate, see results/zoo.
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
"""Prefix of the names of methods that match the channels of the sources first."""


@dataclass(frozen=True)
class ZooCell:
    """One training of the comparison.

    Attributes:
        target: name in ``TARGETS``.
        kind: kind of the zoo in ``KINDS``; empty for a single source, which counts for all zoos.
        method: name in ``ZOO_METHODS``, or ``single SOURCE``.
        seed: seed of the run.
    """

    target: str
    kind: str
    method: str
    seed: int

    @property
    def path(self) -> Path:
        """Path of the run folder below the folder of all runs."""
        parts = [self.target, self.kind, self.method, str(self.seed)]
        return Path(*[folder_name(part) for part in parts if part])


def cells(seeds: Sequence[int], targets: Sequence[str], kinds: Sequence[str]) -> Iterator[ZooCell]:
    """All trainings, seed by seed, so that a stopped comparison has complete seeds."""
    for seed, target in itertools.product(seeds, targets):
        names = dict.fromkeys(n for kind in kinds for n in members(kind, TARGETS[target]))
        for name in names:
            yield ZooCell(target, "", f"single {name}", seed)
        for kind, method in itertools.product(kinds, ZOO_METHODS):
            yield ZooCell(target, kind, method, seed)


def reference(name: str, runs: Path) -> str:
    """Reference of a source on the command line."""
    if name in SHIPPED:
        return f"builtin:{name}"
    return str(runs / "sources" / f"{name}.ckpt")


def command(cell: ZooCell, data: Path, runs: Path) -> list[str]:
    """Command line of a cell, without the run folder."""
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


def matched_folder(cell: ZooCell, runs: Path) -> Path:
    """Folder of a cell's sources after matching by their activations on the target."""
    return runs / "matched" / cell.target / cell.kind


def match(cell: ZooCell, data: Path, runs: Path) -> list[str]:
    """Command line that matches the sources of a cell's zoo."""
    target = TARGETS[cell.target]
    sources = [reference(name, runs) for name in members(cell.kind, target)]
    return [
        *("sources", "match", *target.experiment, "--sources", ",".join(sources)),
        *("--how", "activations", "--data.root", str(data / target.data), *target.extra),
        *("--output", str(matched_folder(cell, runs)), "--overwrite"),
    ]


def make_halves(data: Path, runs: Path) -> None:
    """Make the data of complementary sources from half of the classes or of the landmarks."""
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


@dataclass
class ProgramJob(Job):
    """A command line of the program as a job of the pool.

    Attributes:
        name: path of the folder below the folder of all runs.
        folder: folder of the run, or of matched sources.
        words: command line.
        results: files that exist when the job is finished.
    """

    name: str
    folder: Path
    words: list[str]
    results: list[Path]
    module: str = "benchmarks.kinds_of_zoo"

    def arguments(self) -> list[str]:
        """The job as JSON, after the word ``job``."""
        return ["job", json.dumps(asdict(self), default=str)]

    def is_finished(self) -> bool:
        """Whether all results exist."""
        return all(path.is_file() for path in self.results)

    def work(self) -> int:
        """Run the command line in this process, and return its exit status.

        A run keeps no checkpoints, except a source, whose best one is its result.
        """
        if self.words[0] != "fit":
            return zoo_lightning(self.words)
        status = zoo_lightning([*self.words, *resume_words(self.folder)])
        if status == 0:
            for path in self.results:
                if path.suffix == ".ckpt":
                    with atomic_file(path) as part:
                        shutil.copyfile(self.folder / BEST, part)
            shutil.rmtree(self.folder / CHECKPOINTS)
        return status


def source_jobs(data: Path, runs: Path) -> list[ProgramJob]:
    """Trainings of the sources that are not shipped."""
    jobs = []
    for name, training in SOURCE_TRAININGS.items():
        folder = runs / "sources" / name
        root = runs if training.data.startswith("halves") else data
        words = [
            *("fit", "--experiment", training.experiment),
            *("--data.root", str(root / training.data), "--seed_everything", str(training.seed)),
            *(*training.extra, *QUIET, "--run_dir", str(folder)),
        ]
        jobs.append(ProgramJob(f"sources/{name}", folder, words, [folder.with_suffix(".ckpt")]))
    return jobs


def match_jobs(wanted: Sequence[ZooCell], data: Path, runs: Path) -> list[ProgramJob]:
    """Matchings of the zoos of some cells, each zoo once."""
    jobs = {}
    for cell in wanted:
        if cell.method.startswith(MATCHED):
            folder = matched_folder(cell, runs)
            names = members(cell.kind, TARGETS[cell.target])
            results = [folder / f"{name}.safetensors" for name in names]
            name = str(folder.relative_to(runs))
            jobs[folder] = ProgramJob(name, folder, match(cell, data, runs), results)
    return list(jobs.values())


def cell_jobs(wanted: Sequence[ZooCell], data: Path, runs: Path) -> list[ProgramJob]:
    """Trainings of some cells."""
    jobs = []
    for cell in wanted:
        folder = runs / cell.path
        words = [*command(cell, data, runs), "--run_dir", str(folder)]
        jobs.append(ProgramJob(str(cell.path), folder, words, [folder / SUMMARY]))
    return jobs


def parser() -> argparse.ArgumentParser:
    """Parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("sources", "run"))
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--run_dir", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--kinds", default=",".join(KINDS))
    add_pool_options(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all jobs that are not finished, or one job in a process of the pool.

    Returns:
        Exit status: 0, or 1 if a job failed.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["job"]:
        content = json.loads(words[1])
        content |= {
            "folder": Path(content["folder"]),
            "results": [Path(path) for path in content["results"]],
        }
        job = ProgramJob(**content)
        return work_on(job.folder, job.is_finished, job.work)
    options = parser().parse_args(words)
    data, runs = options.data, options.run_dir
    waves: list[list[ProgramJob]]
    if options.what == "sources":
        make_halves(data, runs)
        waves = [source_jobs(data, runs)]
    else:
        seeds = [int(seed) for seed in options.seeds.split(",")]
        wanted = list(cells(seeds, options.targets.split(","), options.kinds.split(",")))
        waves = [match_jobs(wanted, data, runs), cell_jobs(wanted, data, runs)]
    try:
        failed = run_jobs(waves, execution_of(options))
    except WorkStopped as stop:
        print(f"{stop}; give the same command to resume", file=sys.stderr)
        return 128 + stop.signal_number
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
