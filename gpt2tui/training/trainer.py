"""The training loop: a generator of events that obeys its controls between two steps.

    for event in trainer.train():
        ...

Whoever iterates decides the thread; nothing here prints, draws or handles signals.
"""

import itertools
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import NoReturn

import psutil
import torch

from gpt2tui.data import tokenizers
from gpt2tui.data.batches import evaluation_batches
from gpt2tui.data.token_store import TokenizedCorpus
from gpt2tui.device import device_name, is_out_of_memory
from gpt2tui.errors import Gpt2TuiError, first_line
from gpt2tui.estimate import flops_per_token
from gpt2tui.evaluation.validation import ValidationLoss, validation_loss
from gpt2tui.generation import TextModel
from gpt2tui.preset.files import dumps
from gpt2tui.preset.schema import Preset
from gpt2tui.run import folder as runs
from gpt2tui.run.checkpoint import Checkpoint
from gpt2tui.run.events import (
    CheckpointSaved,
    Evaluated,
    Event,
    LearningRateChanged,
    NumIterationsChanged,
    Paused,
    Resumed,
    RunFailed,
    RunFinished,
    Sampled,
    Step,
    Warned,
)
from gpt2tui.system.device_speed import peak_flops
from gpt2tui.system.files import replace_text
from gpt2tui.training.controls import Controls, Decision
from gpt2tui.training.failures import explained
from gpt2tui.training.live_copy import copy_weights
from gpt2tui.training.preparation import prepare, run_started, write_new_run, write_resumed_run
from gpt2tui.training.saving import Saved, Saver
from gpt2tui.training.state import TrainingState, snapshot, tensors_to_save
from gpt2tui.training.update import AsyncStepMetrics, Update
from model.gpt2 import GPT2


class Trainer:
    """One run, from its first or its resumed step to its end.

    `preset` must have its vocab_size filled in; the caller holds the run's lock. `learning_rate_factor` multiplies the
    schedule from the first step on, instead of the factor that the checkpoint has.
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
    ) -> None:
        self.run = run
        self.corpus = corpus
        self.preset_name = preset_name
        self.controls = controls or Controls()
        self.command = command
        self.resume_from = resume_from
        self.learning_rate_factor = learning_rate_factor
        self.saver = Saver(
            run.checkpoints,
            keep=preset.training.keep_checkpoints,
            save_tokenizer=lambda folder: tokenizers.save(corpus.tokenizer, folder),
        )
        self.saver.protected = set() if resume_from is None else {resume_from.step}
        self._asked = preset
        self._state: TrainingState | None = None
        self._open = False  # between RunStarted and the ending
        self._unread: tuple[int, AsyncStepMetrics] | None = None
        self._clock = 0.0  # when the step began, or the one before it was told
        self._session_start = 0.0  # time.monotonic(), less the seconds of earlier sessions
        self._process = psutil.Process()
        self._flops_per_token = flops_per_token(preset)
        self._peak_flops: float | None = None

    @property
    def state(self) -> TrainingState:
        """What is trained and how far it is; there from the first event on."""
        assert self._state is not None, "train() has not begun"
        return self._state

    @property
    def preset(self) -> Preset:
        """What is trained; until the first event as it was asked for."""
        return self._asked if self._state is None else self._state.preset

    @property
    def step(self) -> int:
        """How many updates there have been."""
        return self.state.step

    @property
    def model(self) -> GPT2:
        """The network."""
        return self.state.model

    @property
    def update(self) -> Update:
        """What moves its weights."""
        return self.state.update

    def train(self) -> Generator[Event, None, None]:
        """Trains, yielding each event as it happens; the last one is RunFinished or RunFailed.

        Raises what ends the run early (DivergedError, ResourceError, CheckpointError, DataError) after a RunFailed. An
        error before RunStarted leaves the run folder as it was, and no event.
        """
        try:
            yield from self._start()
            while not self.state.done:
                if not (yield from self._handle_controls()):
                    break
                yield from self._take_step()
                self._count_seconds()
                yield from self._at_boundary()
            yield from self._finish()
        except GeneratorExit:  # nothing can be yielded any more: see `abandon`
            raise
        except BaseException as error:
            yield from self._fail(error)
        finally:
            self.controls.end()

    def abandon(self) -> list[Event]:
        """After `train` was closed before its end: waits for the checkpoint that is being written; the ending."""
        return list(self._end_early("the training was broken off"))

    # ---- the first event and the last

    def _start(self) -> Iterator[Event]:
        state = prepare(self.run, self._asked, self.corpus, self.resume_from)
        if self.resume_from is None:
            write_new_run(self.run, state, self.corpus, preset_name=self.preset_name, command=self.command)
        else:
            write_resumed_run(self.run, state)
        self._state = state
        self._peak_flops = peak_flops(device_name(state.device), state.precision)
        self._session_start = time.monotonic() - state.seconds
        self._open = True
        yield run_started(self.run, state, self.corpus, self.preset_name)
        for notice in state.notices:
            yield Warned(message=notice)
        yield from self._change_learning_rate(self.learning_rate_factor)

    def _finish(self) -> Iterator[Event]:
        yield from self._read()
        yield from self._change_learning_rate(self.controls.decide().learning_rate_factor)
        if self.state.done:
            yield from self._aside("evaluating", self._evaluate)
            yield from self._save(must=False)  # reading all of the held-out text takes long, and may be cut short
            yield from self._aside("evaluating", lambda: self._evaluate(whole=True))
            if self.preset.training.sample_frequency != 0:
                yield from self._aside("sampling", self._sample)
        done = self.state.done and not self.controls.stopping
        yield from self._save(must=True)
        self._count_seconds()
        self._open = False
        yield RunFinished(
            step=self.step,
            best_val_loss=self.state.best_val_loss,
            seconds=self.state.seconds,
            reason="done" if done else "stopped",
        )

    def _fail(self, error: BaseException) -> Generator[Event, None, NoReturn]:
        """Tells the ending, then raises the error in the form that is for people, where there is one."""
        failure = explained(error, self.run, self._asked, self.corpus, self._state)
        if failure is None:
            yield from self._end_early(f"{type(error).__name__}: {first_line(error)}")
            raise error
        yield from self._end_early(str(failure))
        raise failure from (None if failure is error else error)

    def _end_early(self, message: str) -> Iterator[Event]:
        """What becomes of the checkpoint that is being written, then the one RunFailed; nothing before RunStarted."""
        if not self._open:
            return
        try:
            yield from self._saved_events(self.saver.wait())
        except BaseException as bug:  # it must not hide why the run ends; Ctrl-C again does not wait
            yield Warned(message=f"the last checkpoint was not saved: {type(bug).__name__}: {first_line(bug)}")
        self._open = False
        yield RunFailed(message=message, step=self.step)

    def _count_seconds(self) -> None:
        self.state.seconds = time.monotonic() - self._session_start

    # ---- one step

    def _take_step(self) -> Iterator[Step]:
        """Updates the weights. The step is told when its numbers are there: on CUDA, once the next one has begun."""
        self.state.val_loss = None
        if self._unread is None:
            self._clock = time.perf_counter()
        result = self.update.begin(
            self.state.batches.micro_batches(self.step), self.step, self.state.next_learning_rate_factor
        )
        self.state.step += 1
        before, self._unread = self._unread, (self.step, result)
        if before is not None:
            yield self._step_event(*before)
        if not self.update.async_metrics:
            yield from self._read()

    def _read(self) -> Iterator[Step]:
        """The step that has not been told yet, if there is one. Raises DivergedError."""
        if self._unread is not None:
            unread, self._unread = self._unread, None
            yield self._step_event(*unread)

    def _step_event(self, step: int, pending: AsyncStepMetrics) -> Step:
        result = pending.read()
        before, self._clock = self._clock, time.perf_counter()
        seconds = self._clock - before
        if self.state.time_budget is not None:
            self.state.time_budget.add(seconds)
        tokens_per_second = self.preset.tokens_per_step / seconds
        device = self.state.device
        on_cuda = device.type == "cuda"
        return Step(
            step=step,
            train_loss=result.train_loss,
            learning_rate=result.learning_rate,
            grad_norm=result.grad_norm,
            tokens_seen=step * self.preset.tokens_per_step,
            tokens_per_second=tokens_per_second,
            step_seconds=seconds,
            device_memory_bytes=torch.cuda.memory_allocated(device) if on_cuda else None,
            device_memory_reserved_bytes=torch.cuda.memory_reserved(device) if on_cuda else None,
            host_memory_bytes=self._process.memory_info().rss,
            mfu=tokens_per_second * self._flops_per_token / self._peak_flops if self._peak_flops else None,
        )

    # ---- between two steps

    def _at_boundary(self) -> Iterator[Event]:
        """What is due after a step. Evaluation and samples come first, so that the checkpoint knows its loss."""
        training = self.preset.training
        if self.state.done:
            return  # `_finish` does it all, over the whole held-out set
        yield from self._keep_time()
        evaluating = _due(self.step, training.eval_frequency)
        sampling = evaluating if training.sample_frequency is None else _due(self.step, training.sample_frequency)
        saving = _due(self.step, training.checkpoint_frequency)
        if training.checkpoint_frequency and not self.saver.buffers.reserved:
            self.saver.buffers.reserve(tensors_to_save(self.state))
        if evaluating or sampling or saving:
            yield from self._read()
        if evaluating:
            yield from self._aside("evaluating", self._evaluate)
        if sampling:
            yield from self._aside("sampling", self._sample)
        if saving:
            yield from self._save(must=False)

    def _handle_controls(self) -> Generator[Event, None, bool]:
        """Does what was asked for and waits while paused; returns whether training goes on."""
        paused = False
        while True:
            yield from self._saved_events(self.saver.finished())
            decision = self.controls.decide()
            yield from self._change_learning_rate(decision.learning_rate_factor)
            if decision.stop:
                return False
            yield from self._handle_requests(decision)
            if decision.has_work:
                continue  # more may have been asked for meanwhile
            if not decision.pause:
                break
            if not paused:
                paused = True
                yield from self._read()
                yield Paused(step=self.step)
            self.controls.wait(0.5)
        if paused:
            yield from self._saved_events(self.saver.wait())
            yield Resumed(step=self.step)
        return True

    def _handle_requests(self, decision: Decision) -> Iterator[Event]:
        if decision.requests or decision.copy_weights:
            yield from self._read()  # a step that diverged is neither saved nor given away
        for request in decision.requests:
            match request:
                case "checkpoint":
                    yield from self._save(must=False)
                case "evaluate":
                    yield from self._aside("evaluating", self._evaluate)
                case "sample":
                    yield from self._aside("sampling", self._sample)
        while decision.copy_weights and (wanted := self.controls.next_copy()) is not None:
            copy_weights(wanted, self.state, self.corpus.tokenizer, self.run.name)

    def _aside(self, doing: str, work: Callable[[], Event | None]) -> Iterator[Event]:
        """The event of something that training does not need; without memory for it a warning, and no event.

        None comes of what a stop has cut short.
        """
        try:
            event = work()
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = first_line(error)[:200]
            event = Warned(message=f"out of memory while {doing} at step {self.step}; training goes on ({reason})")
        if event is not None:
            yield event

    def _change_learning_rate(self, factor: float | None) -> Iterator[Event]:
        if factor is None or factor == self.state.learning_rate_factor:
            return
        yield from self._read()
        self.state.learning_rate_factor = factor
        self.state.saved_step = None  # a checkpoint of this very step does not know of the change
        yield LearningRateChanged(step=self.step, factor=factor)
        try:
            runs.update_info(self.run, learning_rate_change={"step": self.step, "factor": float(factor)})
        except Gpt2TuiError as error:
            yield Warned(message=f"{error}; until a checkpoint is saved, a resumed run does not know of the change")

    def _keep_time(self) -> Iterator[Event]:
        """Moves the end of the run to where its time budget has it."""
        if self.state.time_budget is None:
            return
        num_iterations = self.state.time_budget.num_iterations(self.preset, self.step)
        if num_iterations != self.preset.training.num_iterations:
            yield from self._read()
            self.state.preset = self.preset.with_training(num_iterations=num_iterations)
            problem = None
            try:
                replace_text(self.run.preset_file, dumps(self.preset))
            except OSError as error:
                problem = f"{self.run.preset_file} could not be brought up to date: {error.strerror or error}"
            yield NumIterationsChanged(step=self.step, num_iterations=num_iterations)
            if problem:
                yield Warned(message=f"{problem}; the checkpoints will have it")

    def _evaluate(self, whole: bool = False) -> Evaluated | None:
        """The loss over the fixed sample, or over the whole held-out text; None when a stop cuts it short."""
        training = self.preset.training
        batches = evaluation_batches(
            self.corpus.validation,
            training.batch_size,
            training.sequence_length,
            None if whole else training.eval_tokens,
        )
        batches = itertools.takewhile(lambda _: not self.controls.stopping, batches)
        token_bytes = self.corpus.tokenizer.token_bytes()
        loss: ValidationLoss = validation_loss(self.model, batches, token_bytes, self.state.precision)
        if self.controls.stopping:
            return None
        # Losses over different texts do not compare: the best one is found among those over the fixed sample.
        best = not whole and self.state.measured(loss.val_loss, loss.bits_per_byte)
        return Evaluated(
            step=self.step,
            val_loss=loss.val_loss,
            perplexity=loss.perplexity,
            bits_per_byte=loss.bits_per_byte,
            whole=whole,
            best=best,
            best_val_loss=self.state.best_val_loss,
        )

    def _sample(self) -> Sampled | None:
        """What the model makes of the preset's prompt; None when a stop cuts it short."""
        sampling = self.preset.sampling
        pieces = TextModel(self.model, self.corpus.tokenizer, self.run.name).stream(sampling.prompt, sampling)
        text = "".join(p.text for p in itertools.takewhile(lambda _: not self.controls.stopping, pieces))
        return None if self.controls.stopping else Sampled(step=self.step, prompt=sampling.prompt, text=text)

    def _save(self, must: bool) -> Iterator[Event]:
        """Saves a checkpoint beside the training; with `must`, waits for it and raises ResourceError when it fails."""
        yield from self._saved_events(self.saver.wait())
        if self.state.saved_step == self.step:
            return
        started = time.perf_counter()
        tensors = tensors_to_save(self.state)
        try:
            copies = self.saver.buffers.copy(tensors)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            copies = None
        self.saver.begin(snapshot(self.state, copies or tensors, self.corpus, self.preset_name), started)
        self.state.saved_step = self.step
        if must or copies is None:
            saved = self.saver.wait()
            if must and saved is not None and saved.error is not None:
                raise saved.error
            yield from self._saved_events(saved)

    def _saved_events(self, saved: Saved | None) -> Iterator[Event]:
        """What has become of a checkpoint, if one was being saved; a failure does not end the run."""
        if saved is None:
            return
        if saved.checkpoint is not None:
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
            yield Warned(message=f"{saved.error}; training goes on and tries again at the next checkpoint")


def _due(step: int, frequency: int) -> bool:
    return frequency > 0 and step % frequency == 0
