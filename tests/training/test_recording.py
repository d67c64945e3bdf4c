"""A micro-batch's passes as one recorded piece of work: the same updates, and a way back. What records is replaced."""

import pytest
import torch

from gpt2tui.data.batches import open_batches
from gpt2tui.training import recording
from gpt2tui.training.recording import record_if_faster
from gpt2tui.training.update import Update
from tests import tiny_runs, traced

CPU = torch.device("cpu")
TWO = ("training.gradient_accumulation=2", "model.dropout=0.2")


@pytest.fixture
def times(monkeypatch):
    """Recorded passes are said to take half the time."""
    said(monkeypatch, recorded=0.5, launched=1.0)


def said(monkeypatch, *, recorded, launched):
    tried = recording._tried

    def timed(passes, *arguments):
        seconds = recorded if isinstance(passes, recording.RecordedPasses) else launched
        return *tried(passes, *arguments)[:2], seconds

    monkeypatch.setattr(recording, "_tried", timed)


def updates(tmp_path, record, *settings, steps=4):
    """The results and the last weights of a few updates; `record` None launches every kernel by itself."""
    trainer = tiny_runs.trainer(tmp_path, *settings)
    update = Update(trainer.preset, CPU, "fp32")
    note = recording._record_if_faster(update, record) if record else None
    batches = open_batches(trainer.corpus, trainer.preset.training)
    results = [update.run(batches.micro_batches(step), step) for step in range(steps)]
    return note, results, update


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_updates_are_the_same_bit_for_bit(tmp_path, times, optimizer):
    settings = (*TWO, f"optimizer.name={optimizer}")
    note, results, update = updates(tmp_path, traced.record, *settings)
    _, expected, plain = updates(tmp_path, None, *settings)
    assert note is None
    assert isinstance(update.passes, recording.RecordedPasses)
    assert results == expected
    for ours, theirs in zip(update.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_gradients_stay_where_they_are(tmp_path, times):
    _, _, update = updates(tmp_path, traced.record, steps=1)
    places = [parameter.grad.data_ptr() for parameter in update.model.parameters()]
    assert all(not parameter.grad.any() for parameter in update.model.parameters())
    tokens = torch.zeros(2, 16, dtype=torch.int64)
    update.run([(tokens, tokens)], 1)
    assert [parameter.grad.data_ptr() for parameter in update.model.parameters()] == places


def test_what_cannot_be_recorded_trains_as_before(tmp_path):
    note, results, update = updates(tmp_path, traced.refuse, *TWO)
    assert note == (
        "no CUDA graphs (operation not permitted when stream is capturing); every kernel is launched by itself"
    )
    assert results == updates(tmp_path, None, *TWO)[1]
    assert all(parameter.grad is None for parameter in update.model.parameters())


def test_what_is_no_faster_is_not_used_and_that_is_said(tmp_path, monkeypatch):
    said(monkeypatch, recorded=0.002, launched=0.002)
    note, results, _ = updates(tmp_path, traced.record, *TWO)
    assert note == "no CUDA graphs: single launches are as fast here (2.0 ms, as one 2.0)"
    assert results == updates(tmp_path, None, *TWO)[1]


def test_a_recording_of_nothing_is_never_used_however_fast(tmp_path, times):
    note, results, _ = updates(tmp_path, lambda work, device: traced.record(work, device) and (lambda: None), *TWO)
    assert "not what was to be" in note
    assert results == updates(tmp_path, None, *TWO)[1]


def test_only_small_networks_on_cuda_are_recorded(tmp_path, monkeypatch):
    def never(work, device):
        raise AssertionError

    trainer = tiny_runs.trainer(tmp_path, "training.compile=auto")
    update = Update(trainer.preset, CPU, "fp32")
    assert record_if_faster(update, 1000, never) is None
    update.device = torch.device("cuda")  # from here on it would be recorded ...
    update.scaler = torch.amp.GradScaler("cpu")  # ... but for the scale, which changes
    assert record_if_faster(update, 1000, never) is None
    update.scaler = None
    assert record_if_faster(update, 99, never) is None  # too few steps
    preset = update.preset
    for changes in ({"batch_size": 10**9}, {"compile": "off"}):
        update.preset = preset.with_training(**changes)
        assert record_if_faster(update, 1000, never) is None
    update.preset = preset
    monkeypatch.setattr(recording, "_record_if_faster", lambda update, record: "tried")
    assert record_if_faster(update, 1000, never) == "tried"
