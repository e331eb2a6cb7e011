"""Names of options: alike in every subcommand, in one spelling, while others are accepted."""

import ast
import contextlib
import csv
import re
from pathlib import Path

import pytest

import zoo_lightning
from zoo_lightning.cli import program as cli
from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.option_names import (
    OF_RUNS,
    OF_TRAINED,
    RENAMED,
    CommandParser,
    documented,
)
from zoo_lightning.experiments.parsing import ExperimentParser

COMMANDS = [
    *([name] for name in cli.SUBCOMMANDS if name != "sources"),
    *(["sources", name] for name in cli.SOURCES),
    ["fit", "--method", "lite"],
]

CHECKPOINTS = {"--ckpt_path", "--wandb_checkpoint", "--trainer.enable_checkpointing"}
OUTPUTS = {"--output"}


def described(text: str) -> list[str]:
    """The options that a help describes, as often as it does: each begins a line."""
    lines = [line.strip() for line in text.splitlines() if re.match(r" {1,4}-", line)]
    heads = [re.split(r" {2,}", line)[0] for line in lines]
    return [name for head in heads for name in re.findall(r"(?<![\w-])--?[A-Za-z][\w.-]*\+?", head)]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_documents_each_option_once_and_by_the_rules(command, words):
    with contextlib.suppress(SystemExit):
        shown = command(*words, "--help").out
    names = described(shown)
    assert len(names) == len(set(names)), "an option is listed twice"
    for name in names:
        assert "-" not in name.removeprefix("--").removeprefix("-"), "one spelling: underscores"
        part = name.rpartition(".")[2]
        if re.search("ckpt|checkpoint", part):
            assert name in CHECKPOINTS, "a checkpoint or a run's folder is --ckpt_path"
        if re.match("-*(out|save_dir|dest|target_dir|results)", part):
            assert name in OUTPUTS, "results go to --output"
        assert name not in RENAMED
    # Results go to a folder of results, or to that of a run which goes on there.
    assert len({"--output", "--run_dir"} & {*names}) <= 1


def test_every_parser_of_the_program_is_one_that_accepts_other_spellings():
    package = Path(zoo_lightning.__file__).parent
    made = {
        f"{path.relative_to(package)}: {ast.unparse(node.func)}"
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("ArgumentParser")
    }
    # Of no command line: they build data and callbacks from a configuration.
    assert made == {
        "experiments/parts.py: ArgumentParser",
        "experiments/refused_callbacks.py: LightningArgumentParser",
    }


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_option_of_every_parser_may_have_hyphens(monkeypatch, command, words):
    parsers = []
    for kind in (CommandParser, ExperimentParser):

        def begin(self, *given, start=kind.__init__, **options):
            start(self, *given, **options)
            parsers.append(self)

        monkeypatch.setattr(kind, "__init__", begin)
    with contextlib.suppress(SystemExit):
        command(*words, "--help")
    names = {name for parser in parsers for name in parser._option_string_actions}
    assert names or words[0] == "sources"  # whose help is printed without a parser
    for name in names:
        hyphens = "--" + name.removeprefix("--").replace("_", "-")
        if name.startswith("--") and not hyphens.endswith("+"):
            assert documented([hyphens, f"{hyphens}=a_b-c"]) == [name, f"{name}=a_b-c"]


@pytest.mark.parametrize(
    ("given", "renamed", "meant", "said"),
    [
        ("--ckpt x-y --top-k=2-3", RENAMED, "--ckpt_path x-y --top_k=2-3", "--ckpt_path"),
        ("--run-dir x", OF_TRAINED, "--output x", "--run_dir is now --output"),
        ("--output x", OF_RUNS, "--run_dir x", ""),
        ("--data.subsets.my-own a", RENAMED, "--data.subsets.my-own a", ""),
        ("--a-b -- --c-d", RENAMED, "--a_b -- --c-d", ""),
    ],
)
def test_other_names_are_understood_and_former_ones_reported(capsys, given, renamed, meant, said):
    assert documented(given.split(), renamed) == meant.split()
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == bool(said)


def test_a_mistyped_option_of_a_subcommand_is_one_line_with_a_suggestion():
    parser = CommandParser("gates")
    parser.add_argument("--layer_samples", type=int)
    with pytest.raises(ConfigError, match=r"'--layer_sample'\. Did you mean '--layer_samples'"):
        parser.parse_args(["--layer-sample", "3"])


@pytest.fixture
def run(tiny, class_root, command):
    """Train on three classes of small images; gives the folder of the test images."""
    data = {"root": str(class_root), "image_size": 16, "batch_size": 4, "num_workers": 0}
    described = {"class_path": "ImageFolders", "init_args": data}
    tiny(**{"trainer.max_steps": 2, "trainer.val_check_interval": 2},
         **{"model.class_path": "ClassificationTask", "data": described})  # fmt: skip
    done = command("fit", "--experiment", "tiny", "--run-dir", "run")
    assert done.status == 0, done.err
    return class_root / "test"


def table(path):
    with Path(path).open(newline="") as stream:
        return list(csv.reader(stream))


def test_predict_is_one_command_for_the_runs_own_images_and_others(run, command):
    of_run = command("predict", "--ckpt_path", "run", "--output", "one", "--batch-size", 3)
    assert of_run.status == 0, of_run.err
    given = command("predict", "--ckpt_path", "run", "--output", "two", "--images", run)
    assert given.status == 0, given.err
    ours, others = table("one/predictions.csv"), table("two/predictions.csv")
    assert ours[0] == others[0] == ["image", *others[0][1:]]
    labels = {row[0].removeprefix("test/"): row[1] for row in ours[1:]}
    assert labels == {row[0]: row[1] for row in others[1:]}
    words = ("predict", "--ckpt_path", "run", "--output", "one")
    command(*words).refused("--output one is not empty", "--overwrite")
    assert command(*words, "--overwrite").status == 0
    command(*words, "--overwrite", "--top", 2).refused("--top needs --images")
    command("predict", "--ckpt_path", "run", "--images", run).refused("--output")
    command(*words[:3], "--images", run, "--output", "x", "--lop", 2).refused("unknown", "--top")


def test_former_names_work_with_one_line_in_every_command(run, command):
    for words in (
        ("predict", "--ckpt", "run", "--output", "a", "--images", run),
        ("predict", "--ckpt", "run", "--output", "b"),
        ("export", "--ckpt", "run", "--output", "c", "--format", "timm"),
        ("test", "--ckpt", "run", "--run_dir", "d"),
        ("predict", "--experiment", "tiny", "--ckpt_path", "run", "--run_dir", "e"),
    ):
        done = command(*words)
        assert done.status == 0, done.err
        said = [line for line in done.err.splitlines() if line.startswith("deprecated: ")]
        assert len(said) == 1
    assert Path("d/summary.json").is_file()
    assert Path("e/predictions.csv").is_file()


def test_the_newest_run_is_tested_into_another_folder(tiny, command):
    tiny()
    assert command("fit", "--experiment", "tiny").status == 0
    words = ("test", "--experiment", "tiny", "--ckpt_path", "last", "--output", "tested")
    done = command(*words)
    assert done.status == 0, done.err
    assert Path("tested/summary.json").is_file()


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["compare", "--run_dir", "out", "--sedes", "1"], "--seeds"),
        (["fit", "--method", "soup", "--inferense", "2"], "--inference"),
        (["sources", "rank", "--sampels", "8"], "--samples"),
        (["sources", "relate", "--outptu", "out"], "--output"),
        (["sources", "match", "--output", "out", "--refrence", "a"], "--reference"),
        (["sweep", "landmarks", "--cuont", "1"], "--count"),
    ],
    ids=lambda words: " ".join(words[:2]) if isinstance(words, list) else "",
)
def test_a_mistyped_option_of_a_command_that_takes_those_of_fit_is_suggested(
    tiny, command, words, meant
):
    tiny()
    experiment = [] if words[0] == "sweep" else ["--experiment", "tiny"]
    command(*words, *experiment).refused("Did you mean", meant)
