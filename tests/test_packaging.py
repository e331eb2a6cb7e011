"""What an installation contains: the lists in setup.cfg agree with the tree."""

import configparser
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "zoo_lightning"


@pytest.fixture(scope="module")
def setup():
    """The content of setup.cfg."""
    parser = configparser.ConfigParser()
    parser.read(REPOSITORY / "setup.cfg")
    return parser


def patterns(setup, package: str) -> list[str]:
    """Data files of a package, as globs."""
    return [each.strip() for each in setup["options.package_data"][package].split(",")]


def test_every_package_of_the_tree_is_listed(setup):
    listed = set(setup["options"]["packages"].split())
    found = {
        ".".join(folder.parent.relative_to(REPOSITORY).parts)
        for folder in PACKAGE.rglob("__init__.py")
    }
    assert listed == found | {"zoo_lightning._experiments"}


def test_every_folder_with_code_is_a_package():
    folders = {file.parent for file in PACKAGE.rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_every_experiment_is_installed(setup):
    root = REPOSITORY / "experiments"
    globs = patterns(setup, "zoo_lightning._experiments")
    for file in root.rglob("*.yaml"):
        name = file.relative_to(root).as_posix()
        assert any(fnmatch(name, g) and name.count("/") == g.count("/") for g in globs), name


def test_every_shipped_source_is_installed(setup):
    globs = patterns(setup, "zoo_lightning.sources")
    for file in (PACKAGE / "sources").rglob("*"):
        if file.is_file() and file.suffix not in (".py", ".pyi", ".pyc"):
            name = file.relative_to(PACKAGE / "sources").as_posix()
            assert any(fnmatch(name, glob) for glob in globs), name


def test_everything_bundled_with_the_data_modules_is_installed(setup):
    globs = patterns(setup, "zoo_lightning.data")
    for file in (PACKAGE / "data").rglob("*"):
        if file.is_file() and file.suffix not in (".py", ".pyi", ".pyc"):
            name = file.relative_to(PACKAGE / "data").as_posix()
            assert any(fnmatch(name, glob) for glob in globs), name


def test_the_wheel_holds_code_experiments_and_sources(tmp_path):
    # A copy, because setuptools leaves a build folder behind.
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "LICENSE", "README.md"):
        if (REPOSITORY / name).is_file():
            (copy / name).write_bytes((REPOSITORY / name).read_bytes())
    for name in ("zoo_lightning", "experiments"):
        (copy / name).symlink_to(REPOSITORY / name)
    if not (copy / "README.md").is_file():
        (copy / "README.md").write_text("not written yet\n")
    code = (
        "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"
    )
    built = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    code = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyi")]
    expected = {f"zoo_lightning/{file.relative_to(PACKAGE)}" for file in code}
    for file in (REPOSITORY / "experiments").rglob("*.yaml"):
        expected.add(f"zoo_lightning/_experiments/{file.relative_to(REPOSITORY / 'experiments')}")
    for file in (PACKAGE / "sources" / "shipped").glob("*.*"):
        expected.add(f"zoo_lightning/sources/shipped/{file.name}")
    for file in (PACKAGE / "data" / "bundled").iterdir():
        expected.add(f"zoo_lightning/data/bundled/{file.name}")
    expected.add("zoo_lightning/py.typed")
    assert expected <= names
    assert not [name for name in names if name.startswith("tests")]
    entry = next(name for name in names if name.endswith("entry_points.txt"))
    assert b"zoo-lightning = zoo_lightning.cli.program:main" in zipfile.ZipFile(wheel).read(entry)
    assert wheel.stat().st_size < 24e6
