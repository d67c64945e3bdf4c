"""The training loop: a generator of events that handles its controls between two steps.

    for event in trainer.train():
        ...

It runs in the caller's thread and does not print, draw or handle signals.
"""

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import NoReturn

import torch

from gpt2tui.data import tokenizers
from gpt2tui.data.token_store import StageProgress, TokenizedCorpus
from gpt2tui.device import Mark, is_out_of_memory, time_mark
from gpt2tui.errors import DivergedError, Gpt2TuiError, ResourceError, first_line
from gpt2tui.evaluation.completions import continuation_scores
from gpt2tui.evaluation.validation import ValidationLoss, corpus_validation_loss
from gpt2tui.evaluation.worst_windows import WorstWindows
from gpt2tui.generation import TextModel
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.preset.schema import Preset
from gpt2tui.run import folder as runs
from gpt2tui.run.checkpoint import Checkpoint
from gpt2tui.run.events import (
    CheckpointSaved,
    Evaluated,
    Event,
    LearningRateChanged,
    Paused,
    Resumed,
    RunFailed,
    RunFinished,
    Sampled,
    SettingsChanged,
    Step,
    Warned,
)
from gpt2tui.run.worst_passages import WorstPassages, write_worst_passages
from gpt2tui.training.controls import Controls, Decision
from gpt2tui.training.distributed import Ranks, signal_name
from gpt2tui.training.failures import expected_failure
from gpt2tui.training.live_copy import copy_weights
from gpt2tui.training.parallel import divided_validation_loss, whole_copy
from gpt2tui.training.preparation import (
    change_num_iterations,
    prepare,
    run_started,
    write_new_run,
    write_resumed_run,
)
from gpt2tui.training.resuming import SettingChange, refuse_to_set_tagged_aside, set_later_checkpoints_aside
from gpt2tui.training.saving import Saved, Saver
from gpt2tui.training.starting import StartingWeights
from gpt2tui.training.state import TrainingState, snapshot, tensors_to_save
from gpt2tui.training.step_meter import StepMeter
from gpt2tui.training.update import AsyncStepMetrics

MOST_FAILED_SAVES = 3


class Trainer:
    """Trains one run, new or resumed, to its end.

    `preset` must have its vocab_size filled in; the caller holds the run's lock. With `resume_from` in another run's
    folder it is a branch. `learning_rate_factor`, unless it is None, replaces the factor stored in the checkpoint,
    which multiplies the schedule. `changes` and `notices` are what to record of a resume. A new run begins with random
    weights or with those of `start_from`. A time budget counts from `prepared_since`, by time.monotonic(). With several
    `ranks` this is rank 0, and the others do what it tells them (`launch.follow`).
    """

    def __init__(
        self,
        run: runs.Run,
        preset: Preset,
        corpus: TokenizedCorpus,
        *,
        preset_name: str,
        controls: Controls | None = None,
        command: Sequence[str] = (),
        resume_from: Checkpoint | None = None,
        learning_rate_factor: float | None = None,
        changes: Sequence[SettingChange] = (),
        notices: Sequence[str] = (),
        prepared_since: float | None = None,
        start_from: StartingWeights | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.run = run
        self.corpus = corpus
        self.preset_name = preset_name
        self.controls = controls or Controls()
        self.command = command
        self.resume_from = resume_from
        self.learning_rate_factor = learning_rate_factor
        self.changes = changes
        self.notices = notices
        self._prepared_since = time.monotonic() if prepared_since is None else prepared_since
        self.start_from = start_from
        self.ranks = ranks or Ranks()
        self.saver = Saver(
            run.checkpoints,
            keep=preset.training.keep_checkpoints,
            save_tokenizer=lambda folder: tokenizers.save(corpus.tokenizer, folder, corpus.template),
        )
        self.saver.protected = set() if resume_from is None else {resume_from.step}
        self._requested_preset = preset
        self._prepared: TrainingState | None = None
        self._state: TrainingState | None = None
        self._meter: StepMeter
        self._open = False  # between RunStarted and RunFinished or RunFailed
        self._pending: tuple[int, AsyncStepMetrics, Mark] | None = None  # the step without an event yet, and its end
        self._worst: WorstWindows | None = None  # of the last evaluation, until they are kept
        self._failed_saves = 0  # in a row
        self._session_start = 0.0  # time.monotonic(), less the seconds of earlier sessions

    @property
    def state(self) -> TrainingState:
        """The state of the training; available from the first event on."""
        assert self._state is not None, "train() has not begun"
        return self._state

    @property
    def preset(self) -> Preset:
        """The run's preset; before the first event, the requested one."""
        return self._requested_preset if self._state is None else self._state.preset

    @property
    def step(self) -> int:
        """Updates so far."""
        return self.state.step

    @property
    def model(self) -> GPT2:
        """The network."""
        return self.state.model

    def prepare(self) -> Generator[StageProgress, None, None]:
        """Makes the state for the first step, yielding its progress; the run folder stays as it is.

        `train` calls it if the caller has not. Raises the errors of `train`.
        """
        try:
            self._prepared = yield from prepare(
                self.run, self._requested_preset, self.corpus, self.resume_from, self.start_from, self.ranks
            )
        except Exception as error:
            failure = expected_failure(error, self.run, self._requested_preset, self.corpus, None)
            if failure is None or failure is error:
                raise
            raise failure from error

    def train(self) -> Generator[Event, None, None]:
        """Trains, yielding each event as it happens; the last one is RunFinished or RunFailed.

        Errors that end the run early (DivergedError, ResourceError, CheckpointError, DataError) are raised after
        RunFailed. An error before RunStarted leaves the run folder unchanged and yields no event.
        """
        try:
            yield from self._start()
            yield from self._make_up_for_an_evaluation()
            while not self.state.done:
                if not (yield from self._handle_controls()):
                    break
                yield from self._take_step()
                self._count_seconds()
                yield from self._after_step()
            yield from self._finish()
        except GeneratorExit:  # no event can be yielded any more: see `abandon`
            raise
        except BaseException as error:
            yield from self._fail(error)
        finally:
            self.controls.end()

    def abandon(self) -> list[Event]:
        """Ends a run whose `train` was closed early: waits for the pending checkpoint and returns the last events."""
        return list(self._end_early("the training was abandoned"))

    # ---- start and end

    def _start(self) -> Iterator[Event]:
        if self._prepared is None:
            deque(self.prepare(), maxlen=0)
        state = self._prepared
        assert state is not None
        branches = self._is_branch()
        aside: list[str] = []
        if self.resume_from is None or branches:
            write_new_run(self.run, state, self.corpus, preset_name=self.preset_name, command=self.command)
        else:
            refuse_to_set_tagged_aside(self.run, state.step)
            write_resumed_run(self.run, state, self.command)
            aside = set_later_checkpoints_aside(self.run, state.step)
        self._state = state
        self._meter = StepMeter(state.preset, state.device, state.precision, self.ranks)
        self._session_start = time.monotonic() - state.seconds
        if state.time_budget is not None:
            state.time_budget.add_preparation(time.monotonic() - self._prepared_since - state.trial_seconds)
        self._open = True
        yield run_started(self.run, state, self.corpus, self.preset_name)
        if self.start_from is not None and self.preset.training.eval_frequency:
            with self._counted():  # what the model can do before it learns anything here
                yield from self._evaluation()
        if branches or self.start_from is not None:
            state.saved_step = None
            yield from self._save(must=True)  # it can be resumed from now on, without what it began with
        if self.changes:
            yield SettingsChanged(step=state.step, changes=[change.as_dict() for change in self.changes])
        for notice in (*aside, *self.notices, *state.notices):
            yield Warned(message=notice)
        yield from self._change_learning_rate(self.learning_rate_factor)

    def _make_up_for_an_evaluation(self) -> Iterator[Event]:
        """The evaluation that a stop cut short, where a stop rule depends on it."""
        training = self.preset.training
        has_rule = training.target_loss is not None or training.patience is not None
        if has_rule and self.step > 0 and self.state.val_loss is None and _due(self.step, training.eval_frequency):
            yield from self._evaluation()

    def _is_branch(self) -> bool:
        """Whether the run begins with a checkpoint of another run."""
        if self.resume_from is None:
            return False
        return self.resume_from.folder.resolve().parent != self.run.checkpoints.resolve()

    def _finish(self) -> Iterator[Event]:
        yield from self._emit_pending_step()
        yield from self._change_learning_rate(self.controls.decide().learning_rate_factor)
        if self.state.done:
            if self.state.stop_rule is None:  # which has been decided by an evaluation of this step
                yield from self._evaluation()
            yield from self._save(must=False)  # before the whole validation text, which takes long and may be stopped
            yield from self._evaluation(whole=True)
            if self.preset.training.sample_frequency != 0:
                yield from self._emit_if_memory_allows("sampling", self._sample)
        done = self.state.done and not self.controls.stopping
        yield from self._save(must=True)
        self._count_seconds()
        self._open = False
        yield RunFinished(
            step=self.step,
            best_val_loss=self.state.best_val_loss,
            seconds=self.state.seconds,
            reason=(self.state.stop_rule or "done") if done else "stopped",
        )

    def _fail(self, error: BaseException) -> Generator[Event, None, NoReturn]:
        """Yields the last events, then raises the error, as an expected failure with advice if it is one."""
        error = self.ranks.explained(error)
        if isinstance(error, DivergedError):
            yield from self._wait_for_checkpoint()  # which the advice may name
        failure = expected_failure(error, self.run, self._requested_preset, self.corpus, self._state)
        if failure is None:
            yield from self._end_early(f"{type(error).__name__}: {first_line(error)}")
            raise error
        yield from self._end_early(str(failure))
        raise failure from (None if failure is error else error)

    def _end_early(self, message: str) -> Iterator[Event]:
        """The event of the checkpoint that is being written, then RunFailed; nothing before RunStarted or twice."""
        if not self._open:
            return
        yield from self._wait_for_checkpoint()
        self._open = False
        yield RunFailed(message=message, step=self.step)

    def _wait_for_checkpoint(self) -> Iterator[Event]:
        """The event of the checkpoint that is being written, or a warning in place of an error."""
        try:
            events: list[Event] = list(self._saved_events(self.saver.wait()))
        except BaseException as bug:  # must not hide why the run ends; a second Ctrl-C does not wait
            events = [Warned(message=f"the last checkpoint was not saved: {type(bug).__name__}: {first_line(bug)}")]
        yield from events

    def _count_seconds(self) -> None:
        self.state.seconds = time.monotonic() - self._session_start

    # ---- one step

    def _take_step(self) -> Iterator[Step | Warned]:
        """Updates the weights; yields the Step whose metrics have arrived: on CUDA the previous one."""
        state = self.state
        state.val_loss = None
        if self._pending is None:
            self._meter.start()
        factor = state.next_learning_rate_factor
        self.ranks.tell("step", factor)
        result = state.update.begin(state.batches.micro_batches(self.step), self.step, factor)
        state.step += 1
        yield from self._exchange()
        previous, self._pending = self._pending, (self.step, result, time_mark(state.device))
        if previous is not None:
            yield self._step_event(*previous)
        if not state.update.async_metrics:
            yield from self._emit_pending_step()

    def _exchange(self) -> Iterator[Warned]:
        """Learns the memory of all ranks, and stops where one of them has got a signal to."""
        before = self.ranks.stopped_by
        self._meter.exchange(self.controls.stop_signal)
        if before is None and self.ranks.stopped_by is not None:
            rank, number = self.ranks.stopped_by
            self.controls.stop()
            yield Warned(message=f"rank {rank} got {signal_name(number)}: the run stops and saves a checkpoint")

    def _emit_pending_step(self) -> Iterator[Step]:
        """The Step that has no event yet, if there is one. Raises DivergedError."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            yield self._step_event(*pending)

    def _step_event(self, step: int, pending: AsyncStepMetrics, ended: Mark) -> Step:
        event = self._meter.measure(step, pending.read(), ended)
        if self.state.time_budget is not None:
            self.state.time_budget.add_step(event.step_seconds)
        return event

    # ---- between two steps

    def _after_step(self) -> Iterator[Event]:
        """What is due after a step: evaluation first, so that the checkpoint contains its loss."""
        training = self.preset.training
        if self.state.done:
            return  # `_finish` evaluates, samples and saves
        yield from self._apply_time_budget()
        evaluating = _due(self.step, training.eval_frequency)
        sampling = evaluating if training.sample_frequency is None else _due(self.step, training.sample_frequency)
        saving = _due(self.step, training.checkpoint_frequency)
        if training.checkpoint_frequency and not self.saver.buffers.reserved and not self.state.update.is_sharded:
            self.saver.buffers.reserve(tensors_to_save(self.state))
        if not (evaluating or sampling or saving):
            return
        yield from self._emit_pending_step()
        with self._counted():
            if evaluating:
                yield from self._evaluation()
                if self.state.stop_rule is not None:
                    return
            if sampling:
                yield from self._emit_if_memory_allows("sampling", self._sample)
            if saving:
                yield from self._save(must=False)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """Counts the time of this context in the time budget."""
        started = time.perf_counter()
        yield
        if self.state.time_budget is not None:
            self.state.time_budget.add_between_steps(time.perf_counter() - started)

    def _handle_controls(self) -> Generator[Event, None, bool]:
        """Handles what was requested and waits while paused; returns whether training continues."""
        paused = False
        while True:
            yield from self._saved_events(self.saver.finished())
            decision = self.controls.decide()
            yield from self._change_learning_rate(decision.learning_rate_factor)
            if decision.stop:
                return False
            if decision.has_work:
                yield from self._emit_pending_step()  # a step that diverged is neither saved nor copied
                with self._counted():
                    yield from self._handle_requests(decision)
                continue  # there may be new requests by now
            if not decision.pause:
                break
            if not paused:
                paused = True
                yield from self._emit_pending_step()
                yield Paused(step=self.step)
            self.controls.wait(0.5)
            self.ranks.tell("wait")
            yield from self._exchange()
        if paused:
            yield from self._saved_events(self.saver.wait())
            yield Resumed(step=self.step)
        return not self.state.done  # an evaluation that was asked for may have reached the target

    def _handle_requests(self, decision: Decision) -> Iterator[Event]:
        for request in decision.requests:
            match request:
                case "checkpoint":
                    yield from self._save(must=False)
                case "evaluate":
                    yield from self._evaluation(scheduled=False)
                case "sample":
                    yield from self._emit_if_memory_allows("sampling", self._sample)
        while decision.copy_weights and (reply := self.controls.next_copy()) is not None:
            copy_weights(reply, self.state, self.corpus.tokenizer, self.run.name)

    def _emit_if_memory_allows(self, doing: str, work: Callable[[], Event | None]) -> Iterator[Event]:
        """Yields the event that `work` returns, if any; a warning instead when it runs out of memory.

        For evaluating and sampling, without which training can continue.
        """
        try:
            event = work()
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = first_line(error)[:200]
            event = Warned(message=f"out of memory while {doing} at step {self.step}; training continues ({reason})")
        if event is not None:
            yield event

    def _change_learning_rate(self, factor: float | None) -> Iterator[Event]:
        if factor is None or factor == self.state.learning_rate_factor:
            return
        yield from self._emit_pending_step()
        self.state.learning_rate_factor = factor
        self.state.saved_step = None  # a checkpoint of this step does not contain the change
        yield LearningRateChanged(step=self.step, factor=factor)
        try:
            runs.update_info(self.run, learning_rate_change={"step": self.step, "factor": float(factor)})
        except Gpt2TuiError as error:
            yield Warned(message=f"{error}; until the next checkpoint, a resumed run will not have the change")

    def _apply_time_budget(self) -> Iterator[Event]:
        """Changes num_iterations to what fits the time budget."""
        if self.state.time_budget is None:
            return
        num_iterations = self.state.time_budget.num_iterations(self.preset, self.step)
        if num_iterations != self.preset.training.num_iterations:
            yield from self._emit_pending_step()
            yield from change_num_iterations(self.run, self.state, num_iterations)

    def _evaluation(self, whole: bool = False, scheduled: bool = True) -> Iterator[Event]:
        """An evaluation, after which its worst passages are kept in the run folder."""
        yield from self._emit_if_memory_allows("evaluating", lambda: self._evaluate(whole, scheduled))
        yield from self._emit_if_memory_allows("describing the worst passages", lambda: self._keep_worst(whole))

    def _keep_worst(self, whole: bool) -> Warned | None:
        """Replaces the run's worst passages by those of the last evaluation; None, or why that has failed."""
        windows, self._worst = self._worst, None
        if windows is None:  # the evaluation was stopped
            return None
        passages = windows.passages(self._network(), self.corpus.tokenizer, self.state.precision)
        try:
            write_worst_passages(self.run, WorstPassages(self.step, whole, passages))
        except OSError as error:
            return Warned(message=f"the worst passages are not kept: {error.strerror or error}")
        return None

    def _evaluate(self, whole: bool = False, scheduled: bool = True) -> Evaluated | None:
        """The loss over the fixed validation sample, or over the whole validation text; None after a stop."""
        started = time.perf_counter()
        windows = WorstWindows()
        wanted = set() if self.preset.evaluation is None else set(self.preset.evaluation.metrics)
        loss = self._validation_loss(whole, "accuracy" in wanted, windows)
        if loss is None:
            return None
        self._worst = windows
        metrics = {} if loss.accuracy is None else {"accuracy": loss.accuracy}
        if of_text := wanted - {"accuracy"}:
            metrics |= continuation_scores(
                self._text_model(),
                self.corpus.validation,
                self.state.precision,
                of_text,
                lambda: self.controls.stopping,
            )
        if self.state.time_budget is not None and not whole:
            share = max(1.0, len(self.corpus.validation) / max(loss.tokens, 1))
            self.state.time_budget.ending_seconds = (time.perf_counter() - started) * (1 + share)
        # Losses over different texts do not compare: only those over the fixed sample can be the best.
        best = not whole and self.state.record_validation(loss.val_loss, loss.bits_per_byte, scheduled)
        if not whole:
            self.state.other_metrics = metrics
        return Evaluated(
            step=self.step,
            val_loss=loss.val_loss,
            perplexity=loss.perplexity,
            bits_per_byte=loss.bits_per_byte,
            whole=whole,
            best=best,
            best_val_loss=self.state.best_val_loss,
            metrics=metrics,
        )

    def _network(self) -> GPT2:
        """The network for what this rank does alone: whole, where each rank has a share of it."""
        if not self.state.update.is_sharded:
            return self.model
        self.ranks.tell("gather", False)
        return whole_copy(self.model)

    def _text_model(self) -> TextModel:
        length = self.preset.training.sequence_length
        return TextModel(self._network(), self.corpus.tokenizer, self.run.name, length, template=self.corpus.template)

    def _validation_loss(self, whole: bool, with_accuracy: bool, windows: WorstWindows) -> ValidationLoss | None:
        state, preset = self.state, self.preset
        if self.ranks.world_size > 1:
            self.ranks.tell("evaluate", whole)
            return divided_validation_loss(
                state.update, self.corpus, preset, self.ranks, lambda: self.controls.stopping, whole, windows
            )
        return corpus_validation_loss(
            self.model,
            self.corpus,
            preset.training,
            state.precision,
            lambda: self.controls.stopping,
            whole,
            with_accuracy=with_accuracy,
            observer=windows,
        )

    def _sample(self) -> Sampled | None:
        """A text after the preset's prompt; None after a stop."""
        sampling, model = self.preset.sampling, self._text_model()
        pieces = model.stream(model.prompt_tokens(sampling.prompt), sampling)
        text = "".join(p.text for p in itertools.takewhile(lambda _: not self.controls.stopping, pieces))
        return None if self.controls.stopping else Sampled(step=self.step, prompt=sampling.prompt, text=text)

    def _save(self, must: bool) -> Iterator[Event]:
        """Saves a checkpoint in the background; with `must`, waits for it and raises ResourceError when it fails."""
        yield from self._saved_events(self.saver.wait())
        if self.state.saved_step == self.step:
            return
        started = time.perf_counter()
        is_sharded = self.state.update.is_sharded
        if is_sharded:
            self.ranks.tell("gather", True)
        tensors = tensors_to_save(self.state)
        copies = tensors if is_sharded else self.saver.buffers.copy(tensors)
        self.saver.begin(snapshot(self.state, copies or tensors, self.corpus, self.preset_name), started)
        self.state.saved_step = self.step
        if must or copies is None:
            saved = self.saver.wait()
            if must and saved is not None and saved.error is not None:
                raise saved.error
            yield from self._saved_events(saved)

    def _saved_events(self, saved: Saved | None) -> Iterator[Event]:
        """The event of a checkpoint that has been saved, or a warning for the first failure of several in a row.

        Raises ResourceError at the third failure in a row: what is trained after it would most likely be lost.
        """
        if saved is None:
            return
        if saved.checkpoint is not None:
            self._failed_saves = 0
            yield CheckpointSaved(
                step=saved.step,
                path=saved.checkpoint.folder.relative_to(self.run.folder).as_posix(),
                seconds=saved.seconds,
                bytes=saved.checkpoint.bytes,
            )
            for notice in saved.checkpoint.skipped:
                yield Warned(message=notice)
        else:
            self.state.saved_step = None if self.state.saved_step == saved.step else self.state.saved_step
            self._failed_saves += 1
            if self._failed_saves == MOST_FAILED_SAVES:
                raise ResourceError(
                    f"{MOST_FAILED_SAVES} checkpoints in a row could not be saved: {saved.error}; earlier ones are "
                    f"kept. Once there is room, continue with: gpt2tui train --resume {self.run.name}"
                )
            if self._failed_saves == 1:
                yield Warned(message=f"{saved.error}; training continues and tries again at the next checkpoint")


def _due(step: int, frequency: int) -> bool:
    return frequency > 0 and step % frequency == 0
