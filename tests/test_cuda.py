"""What only a GPU can tell. Skipped where there is none."""

import pytest
import torch

from gpt2tui.preset import files as preset_files
from gpt2tui.training.update import fresh_update

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

SETTINGS = ("model.dropout=0", "training.gradient_accumulation=2", "model.vocab_size=300", "optimizer.name=muon")


def new_update(device, precision="fp32"):
    return fresh_update(preset_files.load(["test"], SETTINGS).preset, torch.device(device), precision)


def micro_batches(update, seed):
    shape = (2, 2, 2, update.model.config.n_positions)
    inputs, targets = torch.randint(300, shape, generator=torch.Generator().manual_seed(seed))
    return list(zip(inputs, targets, strict=True))


def losses(update):
    return [update.run(micro_batches(update, step), step, 1 - step / 10).train_loss for step in range(5)]


def test_updates_are_those_of_a_cpu():
    assert losses(new_update("cuda")) == pytest.approx(losses(new_update("cpu")), rel=1e-3)


@pytest.mark.parametrize("name", ["wte.weight", "h.0.attn.c_attn.weight"])
def test_an_overflow_in_fp16_moves_nothing_and_halves_the_scale(name):
    update = new_update("cuda", "fp16")
    update.run(micro_batches(update, 0), 0)
    scale = update.scaler.get_scale()

    def everything():
        weights = {f"weight {name}": p.detach().clone() for name, p in update.model.named_parameters()}
        return weights | {key: tensor.clone() for key, tensor in update.optimizers.state_tensors().items()}

    before = everything()
    dict(update.model.named_parameters())[name].register_hook(lambda gradient: gradient / 0.0)
    update.run(micro_batches(update, 1), 1)
    after = everything()
    assert [key for key in before if not torch.equal(before[key], after[key])] == []
    assert update.scaler.get_scale() == scale / 2
