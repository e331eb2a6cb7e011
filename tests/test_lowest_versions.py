"""The lowest versions that setup.cfg allows: what ``.ci/lowest`` installs and tests with."""

import configparser
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPT = REPOSITORY / ".ci" / "lowest_versions.py"


@pytest.fixture(scope="module")
def lowest_versions():
    """The function of the script."""
    spec = importlib.util.spec_from_file_location("lowest_versions", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.lowest_versions


def test_every_requirement_is_pinned_to_its_lower_bound():
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=True)
    lines = done.stdout.split()
    assert "torch==2.7" in lines
    assert "lightning==2.6" in lines
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg")
    wanted = config["options"]["install_requires"].splitlines()
    wanted = [line.strip() for line in wanted if line.strip() and not line.startswith("#")]
    for line in wanted:
        name, _, bound = line.partition(">=")
        pin = f"{name.partition('[')[0]}=={bound.partition(',')[0]}"
        assert pin in lines, line


def test_a_package_of_several_extras_has_one_bound(lowest_versions, tmp_path):
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg")
    bounds: dict[str, set[str]] = {}
    for extra in config["options.extras_require"].values():
        for line in extra.splitlines():
            name, _, bound = line.partition(">=")
            if bound:
                bounds.setdefault(name.strip(), set()).add(bound)
    assert {name: each for name, each in bounds.items() if len(each) > 1} == {}


@pytest.mark.parametrize(
    ("requirement", "found"),
    [
        ("a>=1.2", {"a": "1.2"}),
        ("a[x,y]>=4.42,<5", {"a": "4.42"}),
        ("a>=0.2,!=0.3.0", {"a": "0.2"}),
        ("# why\n    a>=2.0.10", {"a": "2.0.10"}),
        ("a>=1.9\n    a>=1.10", {"a": "1.10"}),
        ("build", {}),
    ],
)
def test_requirements_are_read_as_pip_reads_them(lowest_versions, tmp_path, requirement, found):
    path = tmp_path / "setup.cfg"
    text = f"[options]\ninstall_requires =\n    {requirement}\n[options.extras_require]\n"
    path.write_text(text)
    assert lowest_versions(path) == found


def test_a_requirement_without_a_bound_is_refused(lowest_versions, tmp_path):
    path = tmp_path / "setup.cfg"
    path.write_text("[options]\ninstall_requires =\n    a<3\n[options.extras_require]\n")
    with pytest.raises(ValueError, match=r"'a<3' .* has no lower bound"):
        lowest_versions(path)
