"""The callback anneals under Lightning's trainer as the plain loop does."""

import logging
import math
import sys

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

import ana_fx
from ana_fx.graph import quantizers
from ana_fx.lightning import AnnealingCallback
from tests.citizenship.training import WithNorm, WithoutNorm, batch_of, different, prepared, train

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's: about workers, loggers, and its own imports

NUM_EPOCHS, NUM_BATCHES = 4, 5
TOTAL = NUM_EPOCHS * NUM_BATCHES


@pytest.fixture(autouse=True)
def one_thread(same_start):
    torch.set_num_threads(1)


class Classifier(LightningModule):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Recorder(Callback):
    """The progress after each batch; saves and stops after an epoch if told so."""

    def __init__(self, annealing, stop_after=None, path=None):
        self.annealing, self.stop_after, self.path = annealing, stop_after, path
        self.progress = []

    def on_train_batch_end(self, *_):
        self.progress.append(self.annealing.annealer.progress)

    def on_train_epoch_end(self, trainer, module):
        if trainer.current_epoch + 1 == self.stop_after:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def loader():
    return DataLoader([batch_of(step) for step in range(NUM_BATCHES)], batch_size=None)


def trainer(tmp_path, callbacks, max_epochs=NUM_EPOCHS, **options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        callbacks=callbacks,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **quiet,
        **options,
    )


def fit(qat, tmp_path, ckpt_path=None, stop_after=None, **options):
    """Train, and return the progress after each batch."""
    annealing = AnnealingCallback()
    recorder = Recorder(annealing, stop_after, tmp_path / "checkpoint.pt")
    trainer(tmp_path, [annealing, recorder], **options).fit(Classifier(qat), loader(), ckpt_path=ckpt_path)
    return recorder.progress


def test_training_equals_the_plain_loop(tmp_path):
    qat, other = prepared(), prepared()
    other.load_state_dict(qat.state_dict())
    assert fit(qat, tmp_path) == [step / TOTAL for step in range(1, TOTAL + 1)]

    optimizer, annealer = torch.optim.SGD(other.parameters(), lr=0.1), ana_fx.Annealer(other, TOTAL)
    for _ in range(NUM_EPOCHS):
        train(other, optimizer, annealer, range(NUM_BATCHES))
    assert different(qat, other) == []
    assert torch.isfinite(ana_fx.convert(qat)(batch_of(-2)[0])).all()


class Validated(Classifier):
    """Validates too, and keeps what each validation gave."""

    def __init__(self, net):
        super().__init__(net)
        self.losses = []

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.losses.append((self.trainer.sanity_checking, float(nn.functional.cross_entropy(self.net(x), y))))


def test_a_validation_before_the_first_training_batch_runs_and_leaves_nothing(tmp_path, caplog):
    whole = prepared(WithoutNorm, is_calibrated=False)
    unknown = [q for _, q in quantizers(whole) if not q.is_calibrated]
    assert unknown  # else the test shows nothing
    other = prepared(WithoutNorm, is_calibrated=False)
    other.load_state_dict(whole.state_dict())
    annealing, module = AnnealingCallback(), Validated(whole)
    with caplog.at_level(logging.INFO, "ana_fx"):
        trainer(tmp_path, [annealing]).fit(module, loader(), loader())
    assert "The sanity check before training validates the network as it trains" in caplog.text
    sanity = [loss for is_sanity, loss in module.losses if is_sanity]
    assert len(sanity) == 2
    assert all(math.isfinite(loss) for _, loss in module.losses)
    trainer(tmp_path, [AnnealingCallback()], num_sanity_val_steps=0).fit(Validated(other), loader(), loader())
    assert different(whole, other) == []


def test_a_validation_before_training_is_that_of_eval_mode_where_scales_are_known(tmp_path, caplog):
    qat = prepared()
    qat.train()(batch_of(0)[0])
    wanted = float(nn.functional.cross_entropy(qat.eval()(batch_of(0)[0]), batch_of(0)[1]))
    module = Validated(qat.train())
    with caplog.at_level(logging.INFO, "ana_fx"):
        trainer(tmp_path, [AnnealingCallback()]).fit(module, loader(), loader())
    assert module.losses[0] == (True, wanted)
    assert "sanity check" not in caplog.text


def test_accumulated_gradients_count_as_one_step(tmp_path):
    # the fifth batch of an epoch is a step of its own
    expected = [step / 12 for epoch in range(NUM_EPOCHS) for step in (3 * epoch + k for k in (0, 1, 1, 2, 3))]
    assert fit(prepared(), tmp_path, accumulate_grad_batches=2) == expected


def test_training_that_is_resumed_ends_as_training_that_is_not(tmp_path):
    whole, first, second = prepared(), prepared(), prepared()
    first.load_state_dict(whole.state_dict())
    fit(whole, tmp_path)
    assert fit(first, tmp_path, stop_after=2)[-1] == 0.5
    progress = fit(second, tmp_path, ckpt_path=tmp_path / "checkpoint.pt")
    assert progress[0] == (2 * NUM_BATCHES + 1) / TOTAL
    assert different(second, whole) == []


def test_the_total_can_be_given(tmp_path):
    annealing = AnnealingCallback(total_steps=100)
    trainer(tmp_path, [annealing], max_epochs=1).fit(Classifier(prepared()), loader())
    assert annealing.state_dict() == {"step": NUM_BATCHES, "total_steps": 100}


def test_a_trainer_without_an_end_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"max_epochs or max_steps, or AnnealingCallback\(total_steps\)"):
        trainer(tmp_path, [AnnealingCallback()], max_epochs=-1).fit(Classifier(prepared()), loader())


def test_a_module_without_a_prepared_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"Classifier holds 0 models from ana_fx\.prepare, needed one"):
        trainer(tmp_path, [AnnealingCallback()]).fit(Classifier(WithNorm()), loader())


def test_without_lightning_the_extra_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "ana_fx.lightning")
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    with pytest.raises(ImportError, match=r"pip install 'ana_fx\[lightning\]'"):
        import ana_fx.lightning  # noqa: F401
