"""What the network cannot take is found before anything is trained, in one line."""

import shutil
from pathlib import Path

import pytest
import torch

from zoo_lightning.cli.first_image import check_first_image
from zoo_lightning.data import ImageFolders
from zoo_lightning.errors import ConfigError, DataError
from zoo_lightning.methods import PlainBackbone
from zoo_lightning.tasks import ClassificationTask

FIT = ("fit", "--experiment", "tiny", "--run_dir", "run")


@pytest.fixture
def folders(class_root):
    """Images of three classes, set up for training."""
    data = ImageFolders(str(class_root), image_size=32, batch_size=4, num_workers=0)
    data.setup("fit")
    return data


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"in_chans": 1}, "images, 3, got 1; .* --data.bands grey"),
        ({"in_chans": 4}, "images, 3, got 4; .* --data.bands all"),
        ({"architecture": "vit_tiny_patch16_224"}, "the image_size that the network is made for"),
    ],
)
def test_a_network_that_cannot_take_the_images_is_refused(folders, options, said):
    backbone = PlainBackbone(**{"architecture": "test_resnet", **options})
    with pytest.raises(ConfigError, match=said):
        check_first_image(ClassificationTask(backbone, 3), folders)


def test_a_network_that_can_is_left_as_it_was(folders):
    task = ClassificationTask(PlainBackbone("test_resnet"), 3).train()
    before = {key: value.clone() for key, value in task.state_dict().items()}
    state = torch.get_rng_state()
    check_first_image(task, folders)
    assert task.training
    assert all(torch.equal(before[key], value) for key, value in task.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_it_is_refused_before_a_run_begins(tiny, command):
    scratch = {"class_path": "PlainBackbone", "init_args": {"architecture": "test_resnet"}}
    tiny(**{"model.init_args.backbone": scratch})
    words = ("--model.init_args.backbone.init_args.in_chans", "4")
    command(*FIT, *words).refused("in_chans must be the number of channels", "got 4")
    assert not list(Path("run").rglob("*.ckpt"))
    tiny(**{"model.init_args.backbone.init_args.gate_init": "greedy",
            "model.init_args.backbone.init_args.in_chans": 4})  # fmt: skip
    command(*FIT).refused("in_chans must be the number of channels of the data's images, 3, got 4")


def test_one_class_is_nothing_to_tell_apart(class_root):
    for part in ("train", "test"):
        for name in ("ant", "bee"):
            shutil.rmtree(class_root / part / name)
    data = ImageFolders(str(class_root), image_size=32, num_workers=0)
    with pytest.raises(DataError, match="has one class, 'cat'"):
        data.setup("fit")
    turned = ImageFolders(str(class_root), image_size=32, num_workers=0, targets="rotation")
    turned.setup("fit")  # there are four turns to tell apart


@pytest.mark.parametrize(("size", "batch_size", "refused"), [(32, 1, True), (64, 1, False),
                                                             (32, 2, False)])  # fmt: skip
def test_a_batch_of_one_that_norms_cannot_take_is_refused(class_root, size, batch_size, refused):
    data = ImageFolders(str(class_root), image_size=size, batch_size=batch_size, num_workers=0)
    data.setup("fit")
    task = ClassificationTask(PlainBackbone("test_resnet"), 3)
    if refused:
        with pytest.raises(ConfigError, match=r"data\.batch_size: .*layer4.* at least 2"):
            check_first_image(task, data)
    else:
        check_first_image(task, data)
