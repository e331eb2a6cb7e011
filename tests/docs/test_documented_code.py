"""Every block of code in README and the pages works: Python runs, commands and YAML are parsed.

Words in capitals, such as DIR, stand for what the reader has. A block that cannot be checked has
the comment ``<!-- not checked: REASON -->`` in the line before it. Results are records of what was
run at a commit, and are not checked.
"""

import ast
import configparser
import contextlib
import io
import itertools
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
import yaml
from PIL import Image

from zoo_lightning import resolve
from zoo_lightning.cli.program import main
from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.finding import find_experiment
from zoo_lightning.experiments.option_names import CommandParser
from zoo_lightning.sources.spec import parse_sources
from zoo_lightning.sweeps import read_sweep

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "examples/README.md")),
        *(ROOT / "docs").rglob("*.md"),
    ]
)

BLOCK = re.compile(
    r"(?ms)^(?P<why><!-- not checked: \S.*? -->\n+)?"
    r"^ *```(?P<language>[\w-]*)\n(?P<code>.*?)^ *```$"
)
INDENTED = re.compile(r"(?m)(?:^    (?:python|pip|zoo-lightning) .*\n)+")

UNCHECKED = {"text", "math", ""}
"""Languages of blocks that are no code; an unmarked block shows output or a formula."""

LANGUAGES = {"bash", "python", "yaml", *UNCHECKED}

FOREIGN = {
    ".ci/audit",
    ".ci/lowest",
    ".ci/run",
    "git",
    "lint-imports",
    "mogrify",
    "mypy",
    "pre-commit",
    "ruff",
    "source",
}
"""Programs of others, and scripts that tests cannot run inside themselves."""

MODULES_OF_OTHERS = {"build", "coverage", "pytest", "venv"}
"""Modules of others that commands start by ``python -m``."""


class Block(SimpleNamespace):
    """Block of code: ``page``, ``line`` of its beginning, ``language``, ``code``, ``checked``."""

    def __str__(self):
        return f"{self.page}:{self.line}"


def blocks_of(path, text):
    """All blocks of a page, and indented commands."""
    page = path.relative_to(ROOT).as_posix()
    for found in BLOCK.finditer(text):
        yield Block(
            page=page,
            line=text[: found.start("code")].count("\n") + 1,
            language=found["language"],
            code=found["code"],
            checked=found["why"] is None,
        )
    prose = BLOCK.sub(lambda found: "\n" * found[0].count("\n"), text)
    for found in INDENTED.finditer(prose):
        line = prose[: found.start()].count("\n") + 1
        code = re.sub(r"(?m)^    ", "", found[0])
        yield Block(page=page, line=line, language="bash", code=code, checked=True)


BLOCKS = [block for path in PAGES for block in blocks_of(path, path.read_text(encoding="utf-8"))]


def commands_of(block):
    """Commands of a block of ``bash`` as lists of words, without settings of the environment."""
    code = block.code.replace("\\\n", " ")
    for line in code.splitlines():
        words = shlex.split(line, comments=True)
        for is_joint, part in itertools.groupby(words, lambda word: word in ("&&", ";", "||")):
            command = list(part)
            while command and re.fullmatch(r"[A-Z_]+=.*", command[0]):
                command = command[1:]
            if command and not is_joint:
                yield command


COMMANDS = list(
    {
        tuple(command): pytest.param(command, id=f"{block}-{'-'.join(command)[:60]}")
        for block in BLOCKS
        if block.language == "bash" and block.checked
        for command in commands_of(block)
    }.values()
)


def python_blocks():
    found = {}
    for block in BLOCKS:
        if block.language == "python" and block.checked:
            found.setdefault(block.code, pytest.param(block, id=str(block)))
    return list(found.values())


# What readers have: runs, images, checkpoints.

CLASSES = re.compile(r"flowers|classification|runs/[ab]\b|runs/other|runs/both")
"""Names of runs that classify; all others are of landmarks."""


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory, tiny_in):
    """Folders of a finished run of landmarks and of one of classes, by their kinds."""
    folder = tmp_path_factory.mktemp("readers")
    tiny_in(folder)
    classes = [
        "--model.class_path=ClassificationTask",
        "--data.class_path=FashionMNISTSubset",
        "--data.train_fraction=0.01",
        "--data.image_size=32",
        "--data.batch_size=8",
        "--data.num_workers=0",
        "--trainer.limit_test_batches=1",
        "--trainer.limit_val_batches=1",
        "--run_test=false",
    ]
    short = ["--trainer.max_steps=2", "--trainer.val_check_interval=2"]
    with pytest.MonkeyPatch.context() as changed:
        changed.chdir(folder)
        assert not main(["fit", "--experiment", "tiny", "--run_dir", "landmarks", *short])
        Path("experiments", "tiny_classes.yaml").write_text(
            yaml.safe_dump(without_parts(yaml.safe_load(Path("experiments/tiny.yaml").read_text())))
        )
        words = ["fit", "--experiment", "tiny_classes", "--run_dir", "classes", *classes, *short]
        assert not main(words)
    return {"landmarks": folder / "landmarks", "classes": folder / "classes"}


def without_parts(config):
    """The experiment ``tiny`` without its data, and with the backbone of its task only."""
    del config["data"]
    config["model"]["init_args"].pop("lr")
    return config


@pytest.fixture
def at_reader(tmp_path, monkeypatch, finished_runs):
    """Go to a folder with all runs, images and checkpoints that a text names; called with it."""

    def prepare(text, outputs=()):
        monkeypatch.chdir(tmp_path)
        for name in set(re.findall(r"\bruns/[\w./-]*\w|\bRUN_DIR\w*", text)) - set(outputs):
            kind = "classes" if CLASSES.search(name) else "landmarks"
            if not Path(name).exists():
                shutil.copytree(finished_runs[kind], name)
        for name in ("a.jpg", "b.jpg"):
            Image.new("RGB", (40, 30), "teal").save(name)

    return prepare


# The pages


def test_pages_have_code_of_all_kinds_and_no_unknown_languages():
    assert [str(block) for block in BLOCKS if block.language not in LANGUAGES] == []
    assert len(COMMANDS) > 60
    assert len(python_blocks()) >= 5


@pytest.mark.parametrize("block", python_blocks())
def test_python_in_pages_runs(block, at_reader, capsys):
    tree = ast.parse(block.code)
    outputs = {
        each.args[-1].value
        for each in ast.walk(tree)
        if isinstance(each, ast.Call)
        and getattr(each.func, "id", "") in ("export", "save_ensemble")
        and isinstance(each.args[-1], ast.Constant)
    }
    at_reader(block.code, outputs)
    names = {"images": torch.rand(2, 3, 32, 32)}
    code = re.sub(r"onnx", "timm", block.code)  # ONNX takes ten seconds; the slow test has it
    exec(compile(code, str(block), "exec"), names)


@pytest.mark.slow
@pytest.mark.parametrize(
    "block", [each for each in python_blocks() if "onnx" in each.values[0].code]
)
def test_python_that_exports_to_onnx_runs(block, at_reader):
    pytest.importorskip("onnx")
    at_reader(block.code, {"flowers", "exported", "runs/both"})
    exec(compile(block.code, str(block), "exec"), {})


@pytest.mark.parametrize(
    "block", [pytest.param(each, id=str(each)) for each in BLOCKS if each.language == "yaml"]
)
def test_yaml_in_pages_is_an_experiment_or_a_sweep(block, tmp_path):
    code = block.code.replace("#sha256=...", "")
    content = yaml.safe_load(code)
    file = tmp_path / "documented.yaml"
    file.write_text(code)
    if "parameters" in content:
        assert read_sweep(file)
        return
    task = content.get("model", {}).get("class_path")
    data = [] if "data" in content else ["--data", "DrawnFaces"]
    model = [] if task else ["--model", "LandmarkTask", "--model.backbone", "PlainBackbone",
                             "--model.backbone.architecture", "test_resnet"]  # fmt: skip
    found = resolve(overrides=[*data, *model, "--config", str(file)]).options
    zoo = content.get("model", {}).get("init_args", {}).get("backbone", {}).get("init_args", {})
    assert parse_sources(zoo.get("sources", [])) is not None
    for key, value in content.get("trainer", {}).items():
        assert is_in(value, found.trainer[key])


def is_in(given, resolved):
    """Whether a resolved option has a given value, or with its defaults the given keys."""
    if isinstance(given, dict):
        return all(is_in(value, resolved[key]) for key, value in given.items())
    return given == resolved


class Parsed(Exception):
    """A command's own options were understood; ``rest`` are options of ``fit``."""

    def __init__(self, options, rest):
        self.options, self.rest = options, rest


def parse_own(command):
    """Parse a command that has a parser of its own; raises ConfigError for what it refuses."""
    parse = CommandParser.parse_known_args

    def parse_only(parser, args=None, namespace=None):
        options, rest = parse(parser, args, namespace)
        if not parser.add_help:
            return options, rest  # only looks for experiments
        raise Parsed(options, rest)

    with patch.object(CommandParser, "parse_known_args", parse_only):
        try:
            main_raising(command)
        except Parsed as parsed:
            return parsed
    raise AssertionError(f"{command} parsed nothing")


def main_raising(words):
    """Run a command line as ``main`` does; its errors are raised instead of printed."""
    from zoo_lightning.cli.program import _carry_out

    return _carry_out(words)


def check_fit(words):
    """Options of ``fit`` are known and have values that they can have."""
    with contextlib.redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as end:
        main_raising([*words, "--print_config"])
    assert not end.value.code


def check_ours(words):
    """A command line of this package, without ``python -m zoo_lightning``."""
    if words == ["--version"] or words == ["sources", "list"]:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert main_raising(words) == 0
        assert out.getvalue()
        return
    if words[0] in ("fit", "validate", "test") and "--method" not in words:
        check_fit(words)
        return
    parsed = parse_own(words)
    sweep = getattr(parsed.options, "file", None) or getattr(parsed.options, "sweep", None)
    for name in experiments_in(parsed):
        find_experiment(name)
    rest = [each for each in parsed.rest if each != "--print_config"]
    known = words_of_experiments(parsed)
    if not known and getattr(parsed.options, "ckpt_path", None):
        known = ["--experiment", "landmarks-faces68"]  # in place of the run's own configuration
    if rest and not sweep:
        resolve(overrides=[*known, *rest])


def experiments_in(parsed):
    """Names of experiments that a command's own parser took."""
    found = getattr(parsed.options, "experiment", None) or []
    return [found] if isinstance(found, str) else found


def words_of_experiments(parsed):
    return [word for name in experiments_in(parsed) for word in ("--experiment", name)]


def extras():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return set(parser["options.extras_require"])


def check_pip(words):
    """``pip install`` of this package names extras that there are."""
    for found in re.findall(r"\.\[([\w,-]+)\]", " ".join(words)):
        assert set(found.split(",")) <= extras(), words


def options_in_code(file):
    """Options that a module's text has, with their dashes."""
    return set(re.findall(r"[\"'](--?[\w-]+)[\"']", file.read_text(encoding="utf-8")))


def check_script(words, file):
    """A script or module of the repository exists and knows the options that a command gives it."""
    assert file.is_file(), words
    given = {word.partition("=")[0] for word in words if word.startswith("-")}
    assert given <= options_in_code(file), words


def check_pytest(words):
    for word in words:
        if word.startswith("tests"):
            assert (ROOT / word.partition("::")[0]).exists(), word


def check(command):
    """Check a command by its first words.

    Raises:
        AssertionError: there is no such command, file, extra or option.
        ZooError: the package refuses the command.
    """
    if command[:3] == ["python", "-m", "zoo_lightning"]:
        return check_ours(command[3:])
    if command[0] == "zoo-lightning":
        return check_ours(command[1:])
    if command[0] == "pip":
        return check_pip(command[1:])
    if command[:3] == ["python", "-m", "pytest"]:
        return check_pytest(command[3:])
    if command[:2] == ["python", "-m"]:
        module = command[2]
        if module in MODULES_OF_OTHERS:
            return None
        path = ROOT / Path(*module.split("."))
        file = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
        return check_script(command[3:], file)
    if command[0] == "python":
        return check_script(command[2:], ROOT / command[1])
    assert command[0] in FOREIGN, f"no test knows {command[0]!r}"
    return None


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_in_pages_are_understood(command, at_reader):
    at_reader(" ".join(command))
    check(command)


# The checks themselves


def block(code, language="bash"):
    return Block(page="page", line=1, language=language, code=code, checked=True)


@pytest.mark.parametrize(
    "line",
    [
        "python -m zoo_lightning fit --experiment landmarks --trainer.max_stepps 3",
        "python -m zoo_lightning fit --experiment landmark",
        "python -m zoo_lightning compare --experiment landmarks --sedes 3 --run_dir x",
        "python -m zoo_lightning compare --experiment landmarks --run_dir x --model.lrr 3",
        "python -m zoo_lightning sources relate --experiment nothing",
        "python -m zoo_lightning gatess --ckpt_path x",
    ],
)
def test_a_wrong_command_of_ours_is_found(line, at_reader):
    at_reader("")
    [command] = commands_of(block(line))
    with pytest.raises(ConfigError):
        check(command)


@pytest.mark.parametrize(
    "line",
    [
        "pip install -e '.[everything]'",
        "python -m benchmarks.nothing",
        "python benchmarks/train_step.py --nothing 3",
        "python -m pytest tests/nothing.py",
        "zoo fit",
    ],
)
def test_another_wrong_command_is_found(line):
    [command] = commands_of(block(line))
    with pytest.raises(AssertionError):
        check(command)


def test_commands_are_read_as_a_shell_does():
    code = "A=1 pip install -e . && python -m zoo_lightning \\\n    fit --a 'b c'   # why\n"
    assert list(commands_of(block(code))) == [
        ["pip", "install", "-e", "."],
        ["python", "-m", "zoo_lightning", "fit", "--a", "b c"],
    ]


def test_a_block_is_left_out_only_with_a_reason():
    text = (
        "<!-- not checked: needs a cluster -->\n```bash\nx\n```\n\n```bash\ny\n```\n\n    pip z\n"
    )
    found = list(blocks_of(ROOT / "page.md", text))
    assert [each.checked for each in found] == [False, True, True]
    assert [each.code for each in found] == ["x\n", "y\n", "pip z\n"]


# Trainings, as they stand but short.

NETWORK = re.compile(r"timm:|hf-hub:|torchvision:|https:|zoos/|paper/|landmarks-(wflw|300w|cofw)")
SHORT = ["--trainer.max_steps=2", "--trainer.val_check_interval=2", "--trainer.limit_val_batches=1",
         "--trainer.limit_test_batches=1", "--data.num_workers=0"]  # fmt: skip


def trainings():
    """Commands of ``fit`` that need nothing but what is shipped."""
    for parameter in COMMANDS:
        command = parameter.values[0]
        text = " ".join(command)
        if command[:4] == ["python", "-m", "zoo_lightning", "fit"]:
            needs = NETWORK.search(text) or re.search(
                r"\b(DIR|FACES_DIR)\b|--print_config|--method|runs/mine|a\.ckpt|--devices|rl|efficientnet",
                text,
            )
            if not needs:
                yield parameter


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(
            *each.values,
            id=each.id,
            marks=[] if "runs/first" in each.values[0] else pytest.mark.slow,
        )
        for each in trainings()
    ],
)
def test_trainings_in_pages_run_when_they_are_shortened(command, at_reader, tmp_path):
    at_reader("")
    faces = ["--data.train_size=64", "--data.val_size=8", "--data.test_size=8"]
    fewer = faces if "landmarks" in command else []
    words = shlex.split(
        re.sub(r" --length \w+", "", shlex.join(command[3:]))
    )  # it is a length, too
    assert main([*words, *SHORT, *fewer, f"--run_dir={tmp_path / 'run'}"]) == 0
    assert (tmp_path / "run" / "summary.json").is_file()
