import json
import math

import pytest
import torch

from gpt2tui.errors import CheckpointError, DivergedError, ResourceError
from gpt2tui.preset import files as preset_files
from gpt2tui.run import checkpoint
from gpt2tui.run.events import (  # fmt: skip
    CheckpointSaved,
    Evaluated,
    Paused,
    Resumed,
    RunFailed,
    RunFinished,
    RunStarted,
    Sampled,
    Step,
    Warned,
)
from gpt2tui.training.update import fresh_update
from tests import tiny_runs


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def test_the_events_of_a_run_come_in_order(tmp_path):
    trainer = tiny_runs.trainer(tmp_path)
    events = list(trainer.train())
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunFinished)
    assert [e.step for e in of(Step, events)] == list(range(1, 13))
    assert [(e.step, e.whole) for e in of(Evaluated, events)] == [(4, False), (8, False), (12, False), (12, True)]
    assert [e.step for e in of(Sampled, events)] == [4, 8, 12]
    assert [e.step for e in of(CheckpointSaved, events)] == [4, 8, 12]
    assert events[0].parameters == trainer.preset.model.parameter_count()
    assert events[-1].best_val_loss == min(e.val_loss for e in of(Evaluated, events) if not e.whole)


def test_why_precision_and_compilation_are_as_they_are_is_recorded(tmp_path):
    trainer = tiny_runs.trainer(tmp_path)
    started = next(trainer.train())
    reasons = {"precision_reason": "training.precision = fp32", "compile_reason": "training.compile = off"}
    assert reasons.items() <= started.as_dict().items()
    assert reasons.items() <= trainer.run.info().items()


def test_the_last_step_is_saved_before_the_whole_validation_text_is_evaluated_and_a_stop_ends_that_early(
    tmp_path, monkeypatch
):
    trainer = tiny_runs.trainer(tmp_path)
    begun, begin = [], trainer.saver.begin

    def watched(snapshot, started):
        begun.append(snapshot.step)
        begin(snapshot, started)

    monkeypatch.setattr(trainer.saver, "begin", watched)
    events = []
    for event in trainer.train():
        events.append(event)
        if isinstance(event, Evaluated) and event.step == 12:
            assert begun == [4, 8]  # it knows the loss of the fixed sample
            trainer.controls.stop()
    assert begun == [4, 8, 12]
    assert [(e.step, e.whole) for e in of(Evaluated, events)] == [(4, False), (8, False), (12, False)]
    assert [type(e) for e in events[-2:]] == [CheckpointSaved, RunFinished]
    assert events[-1].reason == "stopped"


def test_a_run_that_has_all_its_steps_says_so_when_it_is_resumed(tmp_path):
    trainer = tiny_runs.trainer(tmp_path)
    list(trainer.train())
    saved = checkpoint.newest(trainer.run.checkpoints)
    events = list(tiny_runs.trainer(tmp_path, run=trainer.run, resume_from=saved).train())
    assert "all 12 steps were taken already" in of(Warned, events)[0].message
    assert of(Step, events) == []


@pytest.mark.slow
def test_the_loss_starts_at_the_uniform_guess_and_falls(tmp_path):
    steps = of(Step, tiny_runs.trainer(tmp_path, "training.num_iterations=60").train())
    assert steps[0].train_loss == pytest.approx(math.log(257), rel=0.02)
    assert steps[-1].train_loss < 0.7 * steps[0].train_loss


def test_train_loss_is_the_mean_over_all_micro_batches(tmp_path):
    together = tiny_runs.trainer(tmp_path, "training.batch_size=4", "training.gradient_accumulation=1")
    apart = tiny_runs.trainer(tmp_path, "training.batch_size=1", "training.gradient_accumulation=4")
    losses = [[e.train_loss for e in of(Step, t.train())] for t in (together, apart)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path):
    def losses(seed):
        return [e.train_loss for e in of(Step, tiny_runs.trainer(tmp_path, f"training.seed={seed}").train())]

    assert losses(1) == losses(1) != losses(2)


def test_tokens_seen_and_speed_count_all_micro_batches(tmp_path):
    steps = of(Step, tiny_runs.trainer(tmp_path, "training.gradient_accumulation=2").train())
    assert [e.tokens_seen for e in steps[:2]] == [64, 128]
    assert steps[3].tokens_per_second == pytest.approx(64 / steps[3].step_seconds)
    assert steps[0].mfu is None  # the peak of a CPU is unknown
    assert steps[0].device_memory_bytes is None
    assert steps[0].host_memory_bytes > 10**7


def test_grad_norm_is_measured_before_clipping(tmp_path):
    free = of(Step, tiny_runs.trainer(tmp_path, "optimizer.grad_clip=0").train())
    clipped = of(Step, tiny_runs.trainer(tmp_path, "optimizer.grad_clip=0.01").train())
    assert free[0].grad_norm == pytest.approx(clipped[0].grad_norm)
    assert free[0].grad_norm > 0.01
    assert free[-1].train_loss != clipped[-1].train_loss


def test_the_last_evaluation_covers_every_validation_token(tmp_path):
    trainer = tiny_runs.trainer(tmp_path)
    last = of(Evaluated, trainer.train())[-1]
    validation = trainer.corpus.validation
    model = trainer.model.eval()
    nats, T = 0.0, 16
    for start in range(0, len(validation) - 1, T):
        window = torch.tensor(validation[start : start + T + 1].astype("int64"))
        logits = model(window[None, :-1])[0]
        nats += torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum").item()
    assert last.val_loss == pytest.approx(nats / (len(validation) - 1), rel=1e-5)
    text_bytes = int(trainer.corpus.tokenizer.token_bytes()[validation[1:]].sum())
    assert last.bits_per_byte == pytest.approx(nats / math.log(2) / text_bytes, rel=1e-5)


def test_requests_are_handled_between_steps_also_while_paused(tmp_path):
    trainer = tiny_runs.trainer(tmp_path, "training.eval_frequency=0", "training.checkpoint_frequency=0")
    controls, story = trainer.controls, []
    for event in trainer.train():
        if isinstance(event, Step) and event.step == 5:
            controls.pause()
        if isinstance(event, Paused):
            for request in ("evaluate", "sample", "checkpoint"):
                controls.request(request)
        if isinstance(event, CheckpointSaved):
            controls.resume()
        if not isinstance(event, Step | RunStarted):
            story.append((type(event), getattr(event, "step", None)))
    assert story[:5] == [(Paused, 5), (Evaluated, 5), (Sampled, 5), (CheckpointSaved, 5), (Resumed, 5)]


def test_stop_while_paused_saves_and_ends(tmp_path):
    trainer = tiny_runs.trainer(tmp_path)
    events = []
    for event in trainer.train():
        events.append(event)
        if isinstance(event, Step) and event.step == 2:
            trainer.controls.pause()
        if isinstance(event, Paused):
            trainer.controls.stop()
    assert [type(e) for e in events[-3:]] == [Paused, CheckpointSaved, RunFinished]
    assert checkpoint.newest(trainer.run.checkpoints).step == 2


def test_a_loss_that_is_not_a_number_ends_the_run_and_spares_the_checkpoints(tmp_path):
    trainer = tiny_runs.trainer(tmp_path)
    events = []
    with pytest.raises(DivergedError, match="diverged at step 7"):
        for event in trainer.train():
            events.append(event)
            if isinstance(event, Step) and event.step == 6:
                with torch.no_grad():
                    trainer.model.wpe.weight.fill_(math.nan)
    assert isinstance(events[-1], RunFailed)
    assert events[-1].step == 6
    tensors = checkpoint.load_tensors(checkpoint.newest(trainer.run.checkpoints).folder / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_a_checkpoint_that_cannot_be_saved_is_a_warning_and_the_run_continues(tmp_path, monkeypatch):
    write, failures = checkpoint.write, iter([True])

    def fails_once(*arguments, **named):
        if next(failures, False):
            raise ResourceError("the disk is full")
        return write(*arguments, **named)

    monkeypatch.setattr(checkpoint, "write", fails_once)
    events = list(tiny_runs.trainer(tmp_path).train())
    assert "training continues" in of(Warned, events)[0].message
    assert [e.step for e in of(CheckpointSaved, events)] == [8, 12]


def test_a_last_checkpoint_that_cannot_be_saved_ends_the_run_with_the_reason(tmp_path, monkeypatch):
    def fails(*arguments, **named):
        raise ResourceError("the disk is full")

    monkeypatch.setattr(checkpoint, "write", fails)
    events = []
    with pytest.raises(ResourceError, match="the disk is full"):
        events.extend(tiny_runs.trainer(tmp_path).train())


def test_sample_frequency_is_its_own_and_zero_means_never(tmp_path):
    def sampled(value):
        events = tiny_runs.trainer(tmp_path, f"training.sample_frequency={value}").train()
        return [e.step for e in of(Sampled, events)]

    assert sampled(5) == [5, 10, 12]
    assert sampled(0) == []


def test_streaming_trains_and_ends(tmp_path):
    events = list(tiny_runs.trainer(tmp_path, "data.streaming=true").train())
    assert [e.step for e in of(Step, events)] == list(range(1, 13))
    assert of(Evaluated, events)[-1].whole


def test_a_streaming_run_resumes_bit_for_bit(tmp_path):
    whole = tiny_runs.trainer(tmp_path, "data.streaming=true")
    expected = [e.train_loss for e in of(Step, whole.train())]
    saved = checkpoint.verify(whole.run.checkpoints / checkpoint.folder_name(8))
    again = tiny_runs.trainer(tmp_path, "data.streaming=true", run=whole.run, resume_from=saved)
    assert [e.train_loss for e in of(Step, again.train())] == expected[8:]


def test_a_checkpoint_loads_in_transformers_as_it_is(tmp_path):
    transformers = pytest.importorskip("transformers")
    trainer = tiny_runs.trainer(tmp_path)
    list(trainer.train())
    folder = checkpoint.newest(trainer.run.checkpoints).folder
    theirs, report = transformers.GPT2LMHeadModel.from_pretrained(folder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokens = torch.randint(0, 257, (2, 16))
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(tokens).logits, trainer.model.eval()(tokens), atol=1e-4, rtol=1e-4)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer("the fox").input_ids == [int(i) for i in trainer.corpus.tokenizer.encode("the fox")]


def test_the_best_checkpoint_is_found_among_losses_over_the_same_text(tmp_path):
    trainer = tiny_runs.trainer(tmp_path)
    measured = {e.step: e.val_loss for e in of(Evaluated, trainer.train()) if not e.whole}
    saved = {c.step: c.val_loss for c in checkpoint.saved_in(trainer.run.checkpoints)}
    assert saved == measured
    assert checkpoint.best(trainer.run.checkpoints).step == min(measured, key=measured.get)


def test_a_run_stopped_before_its_first_step_can_be_resumed(tmp_path):
    trainer = tiny_runs.trainer(tmp_path)
    trainer.controls.stop()
    assert isinstance(list(trainer.train())[-1], RunFinished)
    saved = checkpoint.newest(trainer.run.checkpoints)
    again = tiny_runs.trainer(tmp_path, run=trainer.run, resume_from=saved)
    assert [e.step for e in of(Step, again.train())] == list(range(1, 13))


def test_a_checkpoint_has_no_random_state_and_those_of_older_ones_are_left_out(tmp_path, monkeypatch):
    trainer = tiny_runs.trainer(tmp_path)
    list(trainer.train())
    saved = checkpoint.newest(trainer.run.checkpoints)
    tensors = checkpoint.load_tensors(saved.folder / "training_state.safetensors")
    assert all(name.startswith("optimizer.") for name in tensors)
    load, older = (
        checkpoint.load_tensors,
        {"rng.cpu": torch.zeros(5056, dtype=torch.uint8), "rng.cuda": torch.zeros(16)},
    )
    monkeypatch.setattr(
        checkpoint, "load_tensors", lambda path: load(path) | (older if path.stem == "training_state" else {})
    )
    again = tiny_runs.trainer(tmp_path, "training.num_iterations=13", run=trainer.run, resume_from=saved)
    events = list(again.train())
    assert [e.step for e in of(Step, events)] == [13]
    assert not of(Warned, events)


@pytest.mark.parametrize("change", [{"seconds": "x"}, {"data_fingerprint": None}, {"step": 3}, {"stream": 4}])
def test_a_trainer_json_from_elsewhere_is_a_checkpoint_error(tmp_path, change):
    trainer = tiny_runs.trainer(tmp_path)
    list(trainer.train())
    saved = checkpoint.newest(trainer.run.checkpoints)
    path = saved.folder / "trainer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    again = tiny_runs.trainer(tmp_path, run=trainer.run, resume_from=saved)
    with pytest.raises(CheckpointError, match="does not hold the numbers of a run"):
        list(again.train())


@pytest.mark.parametrize("limit", [0.0, 0.01, 1e6])
@pytest.mark.parametrize("late", [False, True])
def test_gradients_are_clipped_as_torch_does_it(limit, late):
    preset = preset_files.load(["test"], [f"optimizer.grad_clip={limit}", "model.vocab_size=300"]).preset
    update = fresh_update(preset, torch.device("cpu"), "fp32")
    update.async_metrics = late
    tokens = torch.randint(0, 300, (2, preset.training.sequence_length))
    update.model(tokens, tokens).backward()
    before = [parameter.grad.clone() for parameter in update.model.parameters()]
    norm = update._gradient_norm()
    update._clip(norm)
    after = [parameter.grad.clone() for parameter in update.model.parameters()]
    for parameter, gradient in zip(update.model.parameters(), before, strict=True):
        parameter.grad = gradient
    expected = torch.nn.utils.clip_grad_norm_(update.model.parameters(), limit or math.inf)
    assert norm == expected
    assert 0.01 < norm < 1e6  # one of the limits is above it, one below
    for ours, parameter in zip(after, update.model.parameters(), strict=True):
        assert torch.equal(ours, parameter.grad)
