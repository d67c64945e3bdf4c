"""What only a GPU can tell: that work recorded there is the work that was to be. Skipped where there is none."""

import pytest
import torch

from gpt2tui import preset_files
from gpt2tui.training import recording
from gpt2tui.training.update import Update
from model.config import GPT2Config
from model.cuda_graphs import record
from model.decoding import RecordedDecoder
from model.gpt2 import GPT2
from model.sampling import generate

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@pytest.fixture
def network():
    torch.manual_seed(0)
    model = GPT2(GPT2Config(vocab_size=97, n_positions=32, n_embd=64, n_layer=2, n_head=4)).cuda().eval()
    return model.requires_grad_(False)


def written(model, decoder, batch):
    prompts = torch.arange(3 * batch).view(batch, 3)
    generator = torch.Generator().manual_seed(1)
    told = generate(model, prompts, max_length=60, temperature=0.8, generator=generator, decoder=decoder)
    return [t.token.tolist() for t in told]


@pytest.mark.parametrize("batch", [1, 5])
def test_recorded_tokens_are_the_models(network, batch):
    decoder = RecordedDecoder(network, torch.float32)
    for _ in range(2):  # recorded, and with that recording
        assert written(network, decoder, batch) == written(network, None, batch)


def updates(dropout, recorded):
    settings = [f"model.dropout={dropout}", "training.gradient_accumulation=2", "model.vocab_size=300"]
    preset = preset_files.load(["test"], settings).preset
    update = Update(preset, torch.device("cuda"), "fp32")
    if recorded:
        update.passes = recording.RecordedPasses(update, record)
        update.optimizers.keeps_gradients = True
        update.optimizers.zero_grad()
        torch.cuda.manual_seed(7)
    generator = torch.Generator().manual_seed(1)
    shape = (2, 2, preset.training.batch_size, preset.training.sequence_length)
    losses = []
    for step in range(5):
        inputs, targets = torch.randint(300, shape, generator=generator)
        losses.append(update.run(list(zip(inputs, targets, strict=True)), step).train_loss)
    return losses


def test_recorded_updates_are_those_of_single_launches():
    assert updates(0.0, recorded=True) == pytest.approx(updates(0.0, recorded=False), rel=1e-4)


def test_dropout_differs_from_replay_to_replay():
    place = torch.zeros(1000, device="cuda")
    replay = record(lambda: place.copy_(torch.nn.functional.dropout(torch.ones_like(place), 0.5)), place.device)
    replay()
    first = place.clone()
    replay()
    assert not torch.equal(first, place)


def test_a_capture_that_fails_leaves_the_stream_as_it_was():
    before = torch.cuda.current_stream()
    numbers = torch.ones(3, device="cuda")
    with pytest.raises(RuntimeError):
        record(lambda: numbers.sum().item() and None, numbers.device)
    assert torch.cuda.current_stream() == before
    assert float(numbers.sum()) == 3.0
