"""jsonargparse's and Lightning's sides of the parser: what breaks here when they change.

``zoo_lightning.experiments.parser_errors`` reads sentences of jsonargparse. Each of them is caused
here by the installed version, not quoted.
"""

import pytest
from lightning.pytorch.cli import LightningCLI

from zoo_lightning.cli.trainer import ZooCLI
from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.parsing import ExperimentCLI
from zoo_lightning.experiments.resolving import _Resolver, resolve


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["--trainer.max_stepss", "1"], ("unknown option", "--trainer.max_steps")),
        ({"trainer.max_stepss": 1}, ("unknown option", "trainer.max_steps")),
        ({"budgett": 1}, ("unknown option", "budget")),
        ({"model.init_args.lrr": 1}, ("LandmarkTask", "unknown option", "'lr'")),
        ({"data": "DrawnFace"}, ("data", "unknown class", "DrawnFaces")),
        ({"model.init_args.lr": "high"}, ("model", "lr", "expected float", "high")),
        ({"length": "lonng"}, ("length", "expected one of", "'long'")),
        (
            {"trainer.limit_val_batches": [1]},
            ("limit_val_batches", "expected int or float", "found '[1]'"),
        ),
        ({"budget": 0}, ("budget", "must be > 0, got 0")),
        ({"data": {"class_path": "ImageFolders"}}, ("data", "root missing", "--data.root")),
    ],
)
def test_a_sentence_of_jsonargparse_is_still_understood(tiny, overrides, words):
    tiny()
    with pytest.raises(ConfigError) as refused:
        resolve("tiny", overrides=overrides)
    message = str(refused.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == []


def test_without_an_experiment_the_known_ones_are_named():
    with pytest.raises(ConfigError, match="landmarks-faces68"):
        resolve()


@pytest.mark.parametrize("kind", [ExperimentCLI, ZooCLI, _Resolver])
def test_no_private_method_of_lightning_is_overridden(kind):
    ours = [cls for cls in kind.__mro__ if cls.__module__.startswith("zoo_lightning.")]
    names = {name for cls in ours for name in vars(cls) if not name.startswith("__")}
    assert [name for name in names if name.startswith("_") and hasattr(LightningCLI, name)] == []
