"""What a teacher may be given as."""

import pytest

from zoo_lightning.errors import ConfigError, SourceError
from zoo_lightning.sources.teachers import is_own_run, parse_teachers


def test_a_teacher_is_a_source_with_an_architecture_of_its_own():
    first, second = parse_teachers(
        [
            "timm:vit_tiny_patch16_224",
            {"weights": "a.pth", "name": "a", "architecture": "resnet18", "mean": [1], "std": None},
        ]
    )
    assert first.source.weights == "timm:vit_tiny_patch16_224"
    assert first.architecture is None
    assert (second.source.name, second.architecture) == ("a", "resnet18")
    assert (first.preprocessing, second.preprocessing) == ({}, {"mean": [1]})


def test_only_runs_of_this_package_teach_outputs_unless_it_is_said(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"no checkpoint")
    assert is_own_run(run)
    assert not is_own_run(weights)
    given = [str(run), {"weights": str(run), "teach": "features"}, str(weights), "builtin:faces5"]
    assert [each.teaches_outputs() for each in parse_teachers(given)] == [True, *[False] * 3]


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("builtin:faces5", ConfigError, "teachers must be a list"),
        ([{"weights": "a.pth", "architektur": "resnet18"}], SourceError, "Did you mean"),
        ([{"weights": "a.pth", "teach": "logits"}], ConfigError, "outputs, features"),
        ([{"weights": "a.pth", "image_size": 0}], ConfigError, r"image_size .* got 0"),
        ([{"architecture": "resnet18"}], SourceError, "no weights"),
        (["tim:resnet18"], SourceError, "Did you mean 'timm'"),
    ],
)
def test_what_is_no_teacher_is_refused(given, error, words):
    with pytest.raises(error, match=words):
        parse_teachers(given)
