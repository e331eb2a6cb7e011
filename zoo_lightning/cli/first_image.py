"""Check before training that the network accepts the data's images."""

from __future__ import annotations

from functools import partial

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zoo_lightning.errors import ConfigError
from zoo_lightning.tasks import BaseTask, PPOTask
from zoo_lightning.transfer.starts import check_channels


def example_images(task: BaseTask, datamodule: LightningDataModule) -> Tensor:
    """Load a preprocessed training image for Lightning's model summary.

    Args:
        task: task whose network is summarised.
        datamodule: data module; it is set up for ``fit``.

    Returns:
        Image ``(1, C, H, W)``, normalised; for a policy, an example input of its architecture.
    """
    if isinstance(task, PPOTask):
        return task.backbone.architecture.example_input(task.backbone.net)
    datamodule.prepare_data()
    datamodule.setup("fit")
    batch = {"image": getattr(datamodule, "train_set")[(0, 0)]["image"][None]}  # noqa: B009
    return datamodule.on_after_batch_transfer(batch, 0)["image"]


@torch.no_grad()
def check_first_image(task: BaseTask, datamodule: LightningDataModule) -> None:
    """Check the data and the network by a forward pass of one training image.

    Args:
        task: task to be trained; it is in evaluation mode during the check, so that nothing
            changes.
        datamodule: data, set up for ``fit``; data without images are not checked.

    Raises:
        ConfigError: the network cannot process the image because of its channels or size, or with a
            batch size of 1 a batch norm layer gets one value for each channel.
    """
    images = getattr(datamodule, "train_set", None)
    if images is None or isinstance(task, PPOTask):
        return
    image = images[(0, 0)]["image"][None]
    training = task.training
    alone: list[str] = []
    hooks = [
        module.register_forward_pre_hook(partial(_note_single_values, alone, name))
        for name, module in task.named_modules()
        if isinstance(module, _BatchNorm)
    ]
    try:
        batch = datamodule.on_after_batch_transfer({"image": image.to(task.device)}, 0)
        task.eval()(batch["image"])
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        said = str(error).strip().partition("\n")[0]
        wanted = task.backbone.architecture.in_chans
        check_channels(image.shape[1], wanted)
        raise ConfigError(
            f"{task.backbone.architecture.label} cannot take the data's images, {image.shape[1]} "
            f"channels of {image.shape[-2]}x{image.shape[-1]} pixels, with in_chans {wanted}: "
            f"{said}; give the image_size that the network is made for, or build a transformer for "
            "the data's: model.backbone.image_size"
        ) from error
    finally:
        task.train(training)
        for hook in hooks:
            hook.remove()
    if alone and datamodule.train_dataloader().batch_size == 1:
        raise ConfigError(
            f"data.batch_size: a batch of one image of {image.shape[-2]}x{image.shape[-1]} pixels "
            f"leaves the norm layer {alone[0]} with one value for each channel, which has no "
            "deviation; give a batch_size of at least 2 and as many training images for each "
            "process, or a larger image_size"
        )


def _note_single_values(
    names: list[str], name: str, module: nn.Module, inputs: tuple[Tensor, ...]
) -> None:
    """Note a norm layer whose input, for one image, has one value for each channel."""
    if inputs[0].numel() == inputs[0].shape[1]:
        names.append(name)
