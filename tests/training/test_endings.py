"""Every way in which a run ends early waits for the pending checkpoint and emits one ending."""

import threading

import pytest
import torch

from gpt2tui.errors import DataError, ResourceError
from gpt2tui.evaluation import validation as evaluation
from gpt2tui.launch import drive, new_run, resumed_run
from gpt2tui.preset.files import LoadedPreset
from gpt2tui.run import checkpoint
from gpt2tui.run import folder as runs
from gpt2tui.run.events import CheckpointSaved, Evaluated, Event, RunFailed, RunFinished, Sampled, Step, Warned
from gpt2tui.run.events_file import read_events
from gpt2tui.run.summary import summarize
from gpt2tui.training import preparation, trainer
from gpt2tui.training.controls import Controls
from gpt2tui.training.saving import Saver
from gpt2tui.training.update import Update
from tests import tiny_runs

OUT_OF_MEMORY = [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("can't allocate memory")]


def opening(folder, *overrides):
    return new_run(LoadedPreset("tiny", tiny_runs.preset(folder, *overrides), ()))


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def endings(events):
    return [event for event in events if isinstance(event, RunFinished | RunFailed)]


def fails_at(monkeypatch, step, error):
    begin = Update.begin

    def failing(self, micro_batches, iteration, *rest):
        if iteration == step:
            raise error
        return begin(self, micro_batches, iteration, *rest)

    monkeypatch.setattr(Update, "begin", failing)


@pytest.fixture
def slow_disk(monkeypatch):
    """Writing a checkpoint begins only when `wait` is called."""
    awaited, write, wait = threading.Event(), checkpoint.write, Saver.wait

    def slow(*arguments, **named):
        assert awaited.wait(60)
        return write(*arguments, **named)

    def waiting(self):
        if self._thread is not None:
            awaited.set()
        return wait(self)

    monkeypatch.setattr(checkpoint, "write", slow)
    monkeypatch.setattr(Saver, "wait", waiting)


@pytest.mark.parametrize(
    "error", [RuntimeError("odd"), MemoryError(), OSError(5, "Input/output error"), KeyError("x"), KeyboardInterrupt()]
)
@pytest.mark.parametrize("place", ["load_model", "choose_compilation", "write_resumed_run"])
def test_an_error_while_resuming_leaves_a_finished_run_as_it_was(tmp_path, monkeypatch, place, error):
    list(drive(opening(tmp_path), Controls()))
    (run,) = runs.all_runs()
    before, summary = files(run.folder), summarize(run)
    assert summary.state == "finished"

    def failing(*arguments, **named):
        raise error

    monkeypatch.setattr(trainer if place == "write_resumed_run" else preparation, place, failing)
    emitted = []
    with pytest.raises((type(error), ResourceError)):
        emitted.extend(drive(resumed_run(run, (), ["training.num_iterations=20", "optimizer.lr=0.02"]), Controls()))
    assert not [item for item in emitted if isinstance(item, Event)]
    assert files(run.folder) == before
    assert summarize(run) == summary


@pytest.mark.parametrize(
    ("owner", "name", "error"),
    [(runs, "update_info", ResourceError("the disk is full")), (preparation, "replace_text", OSError(28, "No space"))],
)
def test_a_file_that_cannot_be_written_leaves_a_resumed_run_as_it_was(tmp_path, monkeypatch, owner, name, error):
    list(drive(opening(tmp_path), Controls()))
    (run,) = runs.all_runs()
    before = files(run.folder)

    def failing(*arguments, **named):
        raise error

    monkeypatch.setattr(owner, name, failing)
    with pytest.raises(ResourceError):
        list(drive(resumed_run(run, (), ["training.num_iterations=20"]), Controls()))
    assert files(run.folder) == before


def test_a_preset_of_the_run_that_is_no_text_is_not_needed_to_resume_it(tmp_path):
    list(drive(opening(tmp_path), Controls()))
    (run,) = runs.all_runs()
    run.preset_file.write_bytes(b"\xe9" + run.preset_file.read_bytes())
    emitted = list(drive(resumed_run(run, (), ["training.num_iterations=13"]), Controls()))
    assert isinstance(emitted[-1], RunFinished)
    assert b"\xe9" not in run.preset_file.read_bytes()


@pytest.mark.parametrize(
    ("error", "raised", "words"),
    [
        (OSError(5, "Input/output error"), ResourceError, "Input/output error"),
        (RuntimeError("odd"), RuntimeError, "RuntimeError: odd"),
        (MemoryError(), ResourceError, "out of memory"),
        (IndexError("odd"), IndexError, "IndexError: odd"),
        (KeyboardInterrupt(), KeyboardInterrupt, "KeyboardInterrupt"),
    ],
)
def test_an_error_waits_for_the_checkpoint_and_gives_one_ending(tmp_path, monkeypatch, slow_disk, error, raised, words):
    fails_at(monkeypatch, 5, error)
    with pytest.raises(raised):
        list(drive(opening(tmp_path), Controls()))
    (run,) = runs.all_runs()
    events = list(read_events(run.events_file))
    assert [type(event) for event in events[-2:]] == [CheckpointSaved, RunFailed]
    assert (events[-2].step, events[-1].step) == (4, 5)
    assert words in events[-1].message
    assert len(endings(events)) == 1
    assert summarize(run).state == "failed"


def test_a_stream_that_is_closed_waits_for_the_checkpoint_and_writes_the_ending(tmp_path, slow_disk):
    stream = drive(opening(tmp_path), Controls())
    for emitted in stream:
        if isinstance(emitted, Step) and emitted.step == 5:
            break
    stream.close()
    (run,) = runs.all_runs()
    events = list(read_events(run.events_file))
    assert [(type(e), e.step) for e in events[-3:]] == [(Step, 5), (CheckpointSaved, 4), (RunFailed, 5)]


def test_a_stream_that_is_closed_after_its_end_has_one_ending(tmp_path):
    stream = drive(opening(tmp_path), Controls())
    assert any(isinstance(emitted, RunFinished) for emitted in stream)
    stream.close()
    (run,) = runs.all_runs()
    assert [type(event) for event in endings(read_events(run.events_file))] == [RunFinished]


def test_a_bug_of_the_writing_thread_does_not_hide_why_the_run_ended(tmp_path, monkeypatch):
    def broken(*arguments, **named):
        raise KeyError("a bug")

    monkeypatch.setattr(checkpoint, "write", broken)
    fails_at(monkeypatch, 4, ZeroDivisionError("why"))
    emitted, run = [], tiny_runs.trainer(tmp_path)
    monkeypatch.setattr(run.saver, "finished", lambda: None)
    with pytest.raises(ZeroDivisionError):
        for event in run.train():
            emitted.append(event)
    assert [type(event) for event in emitted[-2:]] == [Warned, RunFailed]
    assert "a bug" in emitted[-2].message
    assert "why" in emitted[-1].message


def test_damaged_tokens_are_named_as_what_they_are(tmp_path):
    run = tiny_runs.trainer(tmp_path)
    run.corpus.__dict__["train"] = run.corpus.train.copy()
    run.corpus.train[::3] |= 0x4000
    emitted = []
    with pytest.raises(DataError, match=r"prepared tokens of .* are damaged"):
        for event in run.train():
            emitted.append(event)
    assert [type(event) for event in endings(emitted)] == [RunFailed]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_out_of_memory_while_sampling_is_a_warning(tmp_path, monkeypatch, error):
    def failing(*arguments, **named):
        raise error

    monkeypatch.setattr(trainer.TextModel, "stream", failing)
    emitted = list(tiny_runs.trainer(tmp_path).train())
    assert isinstance(emitted[-1], RunFinished)
    assert [e.step for e in emitted if isinstance(e, Step)] == list(range(1, 13))
    assert not any(isinstance(e, Sampled) for e in emitted)
    warnings = [e.message for e in emitted if isinstance(e, Warned)]
    assert [w.partition(";")[0] for w in warnings] == [f"out of memory while sampling at step {n}" for n in (4, 8, 12)]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_out_of_memory_while_evaluating_is_a_warning_and_no_number(tmp_path, monkeypatch, error):
    def failing(*arguments, **named):
        raise error

    monkeypatch.setattr(evaluation, "validation_loss", failing)
    emitted = list(tiny_runs.trainer(tmp_path).train())
    assert isinstance(emitted[-1], RunFinished)
    assert not any(isinstance(e, Evaluated) for e in emitted)
    assert emitted[-1].best_val_loss is None
    assert sum("while evaluating" in e.message for e in emitted if isinstance(e, Warned)) == 4


def test_a_bug_while_evaluating_is_not_taken_for_missing_memory(tmp_path, monkeypatch):
    def failing(*arguments, **named):
        raise RuntimeError("odd")

    monkeypatch.setattr(evaluation, "validation_loss", failing)
    with pytest.raises(RuntimeError, match="odd"):
        list(tiny_runs.trainer(tmp_path).train())


def test_out_of_memory_for_the_copy_of_a_checkpoint_writes_it_before_the_next_step(tmp_path, monkeypatch):
    run = tiny_runs.trainer(tmp_path)

    def failing(tensors):
        raise MemoryError

    monkeypatch.setattr(run.saver.buffers, "_copy", failing)
    emitted = [e for e in run.train() if isinstance(e, Step | CheckpointSaved | RunFinished)]
    assert [e.step for e in emitted if isinstance(e, CheckpointSaved)] == [4, 8, 12]
    assert isinstance(emitted[-1], RunFinished)


def test_a_stop_ends_an_evaluation_within_a_batch_without_an_event(tmp_path, monkeypatch):
    run = tiny_runs.trainer(tmp_path, "training.eval_tokens=1000000", "data.validation_fraction=0.5")
    read, batches = [], evaluation.evaluation_batches

    def counted(*arguments):
        for batch in batches(*arguments):
            read.append(batch)
            if len(read) == 3:
                run.controls.stop()
            yield batch

    monkeypatch.setattr(evaluation, "evaluation_batches", counted)
    emitted = list(run.train())
    assert len(read) == 3
    assert not any(isinstance(e, Evaluated) for e in emitted)
    assert [(type(e), e.step) for e in emitted[-2:]] == [(CheckpointSaved, 4), (RunFinished, 4)]
    assert emitted[-1].reason == "stopped"
    assert checkpoint.newest(run.run.checkpoints).val_loss is None


def test_a_stop_ends_a_sample_within_a_token(tmp_path, monkeypatch):
    run = tiny_runs.trainer(tmp_path, "sampling.max_length=100000", "sampling.temperature=0.0")
    written, stream = [], trainer.TextModel.stream

    def counted(*arguments):
        for piece in stream(*arguments):
            written.append(piece)
            if len(written) == 5:
                run.controls.stop()
            yield piece

    monkeypatch.setattr(trainer.TextModel, "stream", counted)
    emitted = list(run.train())
    assert len(written) == 5
    assert emitted[-1].reason == "stopped"
    assert not any(isinstance(e, Sampled) for e in emitted)


# ---- which evaluation is the best


def losses(monkeypatch, *values):
    """The losses that evaluations of the fixed sample find, in turn."""
    found = iter(values)

    def invented(model, batches, *arguments, **options):
        return evaluation.ValidationLoss(next(found), 1, 1)

    monkeypatch.setattr(evaluation, "validation_loss", invented)


def bests(events):
    return [(e.step, e.best, e.best_val_loss) for e in events if isinstance(e, Evaluated) and not e.whole]


def test_an_evaluation_that_is_not_a_number_is_not_the_best_and_hides_none(tmp_path, monkeypatch):
    losses(monkeypatch, float("nan"), 3.0, float("nan"), 9.0)
    emitted = list(tiny_runs.trainer(tmp_path).train())
    assert bests(emitted) == [(4, False, None), (8, True, 3.0), (12, False, 3.0)]
    assert emitted[-1].best_val_loss == 3.0


def test_a_resumed_run_knows_the_best_loss_of_before(tmp_path, monkeypatch):
    losses(monkeypatch, 2.0, 3.0, 4.0, 9.0)
    first = tiny_runs.trainer(tmp_path)
    list(first.train())
    saved = checkpoint.verify(first.run.checkpoints / checkpoint.folder_name(4))
    losses(monkeypatch, 2.5, 1.0, 0.5)
    emitted = list(tiny_runs.trainer(tmp_path, run=first.run, resume_from=saved).train())
    assert emitted[0].best_val_loss == 2.0
    assert bests(emitted) == [(8, False, 2.0), (12, True, 1.0)]
    assert emitted[-1].best_val_loss == 1.0
