"""Every file under ``experiments`` runs, on a few images that are made here."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from zoo_lightning.experiments.finding import known_experiments

REPOSITORY = Path(__file__).resolve().parents[1]
EXPERIMENTS = sorted(
    path for path in (REPOSITORY / "experiments").rglob("*.yaml") if path.parent.name != "sweeps"
)
BACKBONE = "model.init_args.backbone.init_args"


LARGE = [
    path
    for path in EXPERIMENTS
    if path.parent.name == "paper"
    or path.parent.name == "zoos"
    or "architecture: hrnet" in path.read_text()
]
"""Several ResNets or HRNet-W18 each; most of them run with ``-m slow`` only."""

QUICK = ("cifar100",)
"""Those of them that always run."""

WRITERS = {
    "CIFAR100": "write_cifar100",
    "FGVCAircraft": "write_aircraft",
    "StanfordCars": "write_cars",
    "EuroSAT": "write_eurosat",
}
"""What writes small files in the layout of a data set of torchvision."""


def data_options(data: dict, write_csv, class_files, folder: Path) -> list[str]:
    """Options by which an experiment runs on a few images that are made here."""
    kind, options = data["class_path"], data["init_args"]
    small = ["--data.batch_size=4", "--data.num_workers=0"]
    rng = np.random.default_rng(0)
    if kind == "AtariData":
        short = {"num_envs": 2, "num_steps": 8, "total_steps": 64, "val_games": 1}
        return [f"--data.{name}={value}" for name, value in (short | {"max_frames": 80}).items()]
    if kind == "DrawnFaces":
        return [*small, *(f"--data.{part}_size=8" for part in ("train", "val", "test"))]
    if kind == "LandmarkCSV":
        write_faces(folder, write_csv, 5 if "faces5" in options["root"] else 68, rng)
    elif kind == "ImageNumbers":
        write_numbers(folder, rng)
    elif kind == "HRNetCSV":
        write_hrnet_files(options, folder, rng)
        small.append("--data.image_size=64")
    elif kind == "COFW":
        write_cofw_files(options, folder, rng)
        small.append("--data.image_size=64")
    elif kind == "MultiLabelImages":
        write_labels(folder, rng)
    elif kind == "ImageMasks":
        write_scenes(folder, rng)
        small.append("--data.image_size=32")
    elif kind == "FashionMNISTSubset":
        return small
    else:
        small += write_class_files(data, class_files, folder, rng)
        if kind == "CountedFaces":
            small.append(f"--data.faces={write_faces(folder / 'faces', write_csv, 5, rng)}")
    return [*small, f"--data.root={folder}"]


def write_faces(folder: Path, write_csv, points: int, rng: np.random.Generator) -> Path:
    """Ten faces to train on and ten to test in the layout of LandmarkCSV; returns the folder."""
    (folder / "images").mkdir(parents=True)
    for part in ("train", "test"):
        names = [f"{part}{chr(97 + i)}.png" for i in range(10)]
        for name in names:
            pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name)
        write_csv(folder / f"{part}.csv", names, rng.uniform(5, 35, (10, points, 2)))
    return folder


def write_numbers(folder: Path, rng: np.random.Generator) -> None:
    """Ten images to train on and ten to test in the layout of ImageNumbers."""
    (folder / "images").mkdir(parents=True)
    for part in ("train", "test"):
        lines = ["image,age,weight"]
        for index in range(10):
            name = f"{part}{index}.png"
            pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name)
            lines.append(f"{name},{20 + index},{rng.uniform(50, 90):.1f}")
        (folder / f"{part}.csv").write_text("\n".join(lines) + "\n")


def write_labels(folder: Path, rng: np.random.Generator) -> None:
    """Ten images with two labels to train on and ten to test in the layout of MultiLabelImages."""
    (folder / "images").mkdir(parents=True)
    for part in ("train", "test"):
        lines = ["image,cat,dog"]
        for i in range(10):
            pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / f"{part}{i}.png")
            lines.append(f"{part}{i}.png,{i % 2},{int(i < 6)}")
        (folder / f"{part}.csv").write_text("\n".join(lines) + "\n")


def write_scenes(folder: Path, rng: np.random.Generator) -> None:
    """Ten images with masks of three classes to train on, and ten to test."""
    for path in (
        folder / part / kind for part in ("train", "test") for kind in ("images", "masks")
    ):
        path.mkdir(parents=True)
        for index in range(10):
            shape, values = ((40, 40), 3) if path.name == "masks" else ((40, 40, 3), 255)
            pixels = rng.integers(0, values, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(path / f"{index}.png")


def write_class_files(data: dict, class_files, folder: Path, rng: np.random.Generator) -> list[str]:
    """Images of a few classes; returns the options that such small data need."""
    kind, options = data["class_path"], data["init_args"]
    if kind == "TorchvisionData":
        if options["name"] == "StanfordCars":
            pytest.importorskip("scipy")
        getattr(class_files, WRITERS[options["name"]])(folder, rng)
    elif kind == "ListFiles":
        class_files.write_lists(folder, rng, options)
    else:
        for name in ("train/a", "train/b", "test/a", "test/b"):
            (folder / name).mkdir(parents=True)
            for index in range(6):
                pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / name / f"{index}.png")
    if "resize" not in options:
        return ["--data.image_size=64"]
    return ["--data.image_size=32", "--data.resize=40", "--data.val_fraction=0.4"]


def write_hrnet_files(options: dict, folder: Path, rng: np.random.Generator) -> None:
    """All CSV files that the options name, of the data set's number of points, and images."""
    (folder / "images").mkdir()
    sized = "aflw" in options["root"]
    count = {"data/300w": 68, "data/wflw": 98, "data/aflw": 19}[options["root"]]
    axes = [f"original_{k}_{axis}" for k in range(count) for axis in "xy"]
    columns = ["image_name", "scale", *["box_size"] * sized, "center_w", "center_h", *axes]
    files = [options["train_csv"], options["test_csv"], *options["subsets"].values()]
    for file in files:
        names = [f"{'train' if file == files[0] else 'test'}{chr(97 + i)}.png" for i in range(10)]
        rows = [",".join(columns)]
        for name in names:
            pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name)
            values = [0.2, *[30.0] * sized, 20.0, 20.0, *rng.uniform(5, 35, 2 * count)]
            rows.append(",".join([name, *(f"{value:.2f}" for value in values)]))
        (folder / file).write_text("\n".join(rows) + "\n")


def write_cofw_files(options: dict, folder: Path, rng: np.random.Generator) -> None:
    """Both MATLAB files, version 5."""
    scipy_io = pytest.importorskip("scipy.io")
    for option, letters in (("train_mat", "Tr"), ("test_mat", "T")):
        cells = np.empty((10, 1), object)
        for i in range(10):
            cells[i, 0] = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
        points = np.concatenate([rng.uniform(5, 35, (10, 58)), np.zeros((10, 29))], axis=1)
        arrays = {f"Is{letters}": cells, f"phis{letters}": points}
        scipy_io.savemat(folder / options[option], arrays | {f"bboxes{letters}": np.ones((10, 4))})


def is_delta(path: Path) -> bool:
    """Whether a file changes another experiment in place of being one."""
    return path.parent.name in ("methods", "heads")


def marked(path: Path) -> object:
    """An experiment as a test's parameter."""
    slow = path in LARGE and path.stem not in QUICK
    name = path.relative_to(path.parents[1]).as_posix()
    return pytest.param(path, id=name, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize("path", [marked(path) for path in EXPERIMENTS])
def test_every_experiment_runs(path, tmp_path, monkeypatch, command, write_csv, class_files):
    monkeypatch.chdir(tmp_path)
    # torchvision knows the published files of CIFAR by their checksums
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)
    name = path.relative_to(REPOSITORY / "experiments").with_suffix("").as_posix()
    first_line = path.read_text().partition("\n")[0]
    assert first_line.startswith("# python -m zoo_lightning fit")
    assert f"--experiment {name}" in first_line
    names = ["landmarks", name] if is_delta(path) else [name]
    monkeypatch.setattr("zoo_lightning.experiments.finding.SHIPPED", (REPOSITORY / "experiments",))
    base, config = (
        yaml.safe_load((REPOSITORY / "experiments" / f"{each}.yaml").read_text())
        for each in (names[0], names[-1])
    )
    folder = tmp_path / "data"
    folder.mkdir()
    options = data_options(base["data"], write_csv, class_files, folder)
    sources = config["model"]["init_args"]["backbone"]["init_args"].get("sources") or []
    if sources:  # they need not be shipped to prove the file
        random = ", ".join(f"random:{number}" for number, _ in enumerate(sources))
        options.append(f"--{BACKBONE}.sources=[{random}]")
    words = [word for each in names for word in ("--experiment", each)]
    done = command("fit", *words, *options, "--trainer.fast_dev_run=1", "--trainer.accelerator=cpu")
    assert done.status == 0, done.err


def test_every_file_of_experiments_is_known_by_its_name():
    names = {p.relative_to(REPOSITORY / "experiments").with_suffix("").as_posix()
             for p in EXPERIMENTS}  # fmt: skip
    assert names <= set(known_experiments())
