"""What only a GPU can tell. Skipped where there is none."""

import pytest
import torch

from gpt2tui import preset_files
from gpt2tui.training.update import fresh_update

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def losses(device):
    preset = preset_files.load(
        ["test"], ["model.dropout=0", "training.gradient_accumulation=2", "model.vocab_size=300"]
    ).preset
    update = fresh_update(preset, torch.device(device), "fp32")
    generator = torch.Generator().manual_seed(1)
    shape = (2, 2, preset.training.batch_size, preset.training.sequence_length)
    told = []
    for step in range(5):
        inputs, targets = torch.randint(300, shape, generator=generator)
        told.append(update.run(list(zip(inputs, targets, strict=True)), step).train_loss)
    return told


def test_updates_are_those_of_a_cpu():
    assert losses("cuda") == pytest.approx(losses("cpu"), rel=1e-3)
