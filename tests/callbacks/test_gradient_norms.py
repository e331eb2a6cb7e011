"""Norms of gradients: of the whole and of the parts, before clipping, in the loss's own scale."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn

from zoo_lightning.callbacks.gradient_norms import GradientNorms, gradient_norms
from zoo_lightning.nn import ZooConv2d

CLIPPED = 1e-3


class Layered(pl.LightningModule):
    """A module with a backbone and a head, whose gradients are known: 3 and 4 in each place."""

    def __init__(self, manual: bool = False) -> None:
        super().__init__()
        self.backbone = nn.Linear(1, 1, bias=False)
        self.head = nn.Linear(1, 1, bias=False)
        self.automatic_optimization = not manual

    def training_step(self, batch, batch_idx):
        """One step, with the whole optimisation if that is manual."""
        loss = (3 * self.backbone(batch) + 4 * self.head(batch)).mean()
        if self.automatic_optimization:
            return loss
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return None

    def on_before_optimizer_step(self, optimizer):
        """Clip by itself, as PPO does."""
        if not self.automatic_optimization:
            nn.utils.clip_grad_norm_(self.parameters(), CLIPPED)

    def configure_optimizers(self):
        """Plain descent."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


def logged(task, folder, **options):
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=1,
        log_every_n_steps=1,
        logger=pl.loggers.CSVLogger(str(folder)),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(folder),
        callbacks=[GradientNorms()],
        **options,
    )
    trainer.fit(task, torch.utils.data.DataLoader(torch.ones(4, 1), batch_size=2))
    found = trainer.logged_metrics
    return {name: float(found[name]) for name in found if name.startswith("gradients/")}


EXPECTED = {"gradients/total": 5.0, "gradients/backbone": 3.0, "gradients/head": 4.0}


def test_norms_are_taken_before_clipping(tmp_path):
    assert logged(Layered(), tmp_path, gradient_clip_val=CLIPPED) == pytest.approx(EXPECTED)


def test_a_task_that_optimises_by_itself_is_met_before_it_clips(tmp_path):
    assert logged(Layered(manual=True), tmp_path) == pytest.approx(EXPECTED)


@pytest.mark.parametrize("manual", [False, True])
def test_mixed_precision_is_unscaled(tmp_path, manual):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    plugin = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    found = logged(Layered(manual), tmp_path, plugins=[plugin])
    assert found == pytest.approx(EXPECTED, rel=1e-2)


def test_the_parts_of_a_zoo_are_told_apart():
    layer = ZooConv2d(nn.Conv2d(2, 2, 3), torch.randn(2, 2, 2, 3, 3), torch.randn(2, 2))
    model = nn.ModuleDict({"backbone": layer, "head": nn.Linear(2, 1)})
    model["head"](layer(torch.randn(3, 2, 5, 5)).mean((2, 3))).sum().backward()
    norms = gradient_norms(model)
    assert set(norms) == {"total", "backbone", "alignment", "gates", "head"}
    gradients = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(norms["total"], gradients.norm())
    torch.testing.assert_close(norms["alignment"], layer.alignment.grad.norm())


def test_a_model_without_gradients_has_no_norms():
    assert gradient_norms(nn.Linear(1, 1)) == {}
