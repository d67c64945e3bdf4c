"""The training loop: a generator of events that obeys its controls between two steps.

    for event in trainer.train():
        ...

Whoever iterates decides the thread; nothing here prints, draws or handles signals.
"""

import copy
import itertools
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import psutil
import torch
from torch import Tensor

from gpt2tui import runs
from gpt2tui.checkpoint import Checkpoint
from gpt2tui.data import tokenizers
from gpt2tui.data.batches import StreamBatches, evaluation_batches
from gpt2tui.data.token_store import TokenizedCorpus
from gpt2tui.device_speed import peak_flops
from gpt2tui.durable import replace_text
from gpt2tui.errors import Gpt2TuiError, ResourceError
from gpt2tui.estimate import flops_per_token
from gpt2tui.generation import TextModel
from gpt2tui.preset import Preset
from gpt2tui.preset_files import dumps
from gpt2tui.training import state
from gpt2tui.training.compilation import compiled
from gpt2tui.training.controls import Controls
from gpt2tui.training.evaluation import HeldOutLoss, held_out_loss
from gpt2tui.training.events import (
    CheckpointSaved,
    Evaluated,
    Event,
    LearningRateChanged,
    NumIterationsChanged,
    Paused,
    Resumed,
    RunFailed,
    RunFinished,
    RunStarted,
    Sampled,
    Step,
    Warned,
)
from gpt2tui.training.precision import choose_compilation, choose_device, device_name, is_out_of_memory
from gpt2tui.training.preparation import Standing, begin, go_on
from gpt2tui.training.saving import Saved, Saver, Snapshot
from gpt2tui.training.update import PendingResult
from model.huggingface import published_config, published_views

MODEL = "model."  # before the names of the weights, beside those of `state`


class Trainer:
    """One run, from its first or its resumed step to its end.

    `preset` must have its vocab_size filled in; the caller holds the run's lock.
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
    ) -> None:
        self.run = run
        self.preset = preset
        self.corpus = corpus
        self.preset_name = preset_name
        self.controls = controls or Controls()
        self.command = command
        self.resume_from = resume_from
        self.standing = Standing()
        self.saver = Saver(
            run.checkpoints,
            keep=preset.training.keep_checkpoints,
            save_tokenizer=lambda folder: tokenizers.save(corpus.tokenizer, folder),
        )
        self._unread: tuple[int, PendingResult] | None = None
        self._clock = 0.0  # when the step began, or the one before it was told
        self._process = psutil.Process()

    def train(self) -> Iterator[Event]:
        """Trains, yielding each event as it happens.

        Raises what ends the run early (DivergedError, ResourceError, CheckpointError, DataError) after a RunFailed.
        """
        begun = False
        try:
            for event in self._prepare():
                begun = True
                yield event
            self._sitting = time.monotonic() - self.standing.seconds
            while self.step < self.preset.training.num_iterations:
                if not (yield from self._obey()):
                    break
                yield from self._take_step()
                self._count_seconds()
                yield from self._at_boundary()
            yield from self._finish()
        except Gpt2TuiError as error:
            yield from self._tell(self.saver.wait())
            if begun:  # else nothing has become of the run, and what it was stays as it is
                yield RunFailed(message=str(error), step=self.step)
            raise
        except OSError as error:
            yield from self._tell(self.saver.wait())
            message = f"{error.filename or self.run.folder} cannot be used: {error.strerror or error}"
            if begun:
                yield RunFailed(message=message, step=self.step)
            raise ResourceError(message) from error
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            yield from self._tell(self.saver.wait())
            if not is_out_of_memory(error):
                yield RunFailed(message=f"{type(error).__name__}: {error}", step=self.step)
                raise
            message = (
                f"out of memory on {self.device} at step {self.step}: choose a smaller training.batch_size "
                "(with more gradient_accumulation), sequence_length or model"
            )
            yield RunFailed(message=message, step=self.step)
            raise ResourceError(message) from error
        finally:
            self.controls.end()

    # ---- before the first step

    def _prepare(self) -> Iterator[Event]:
        self.device = choose_device(self.preset.training.device)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # streams and events are those of the thread's device
        if self.resume_from is None:
            ready = begin(
                self.run,
                self.preset,
                self.corpus,
                self.device,
                preset_name=self.preset_name,
                command=self.command,
            )
        else:
            ready = go_on(self.run, self.preset, self.corpus, self.device, self.resume_from)
            self.saver.protected = {self.resume_from.step}
        self.run_id, self.preset, self.standing = ready.run_id, ready.preset, ready.standing
        self.precision, self.batches, self.update = ready.precision, ready.batches, ready.update
        self._time_budget = ready.time_budget
        training = self.preset.training
        self.model = self.update.model
        self.writer = TextModel(self.model, self.corpus.tokenizer, self.run.name)
        self._peak_flops = peak_flops(device_name(self.device), self.precision)
        self._flops_per_token = flops_per_token(self.preset)
        yield RunStarted(
            run=self.run.name,
            preset=self.preset_name,
            parameters=self.model.num_parameters,
            tokens_per_step=self.preset.tokens_per_step,
            device=device_name(self.device),
            precision=self.precision,
            step=self.step,
            num_iterations=training.num_iterations,
            xz_bits_per_byte=self.corpus.xz_bits_per_byte,
        )
        if self.step >= training.num_iterations:
            yield Warned(
                message=f"all {self.step:,} steps were taken already; to train further, raise training.num_iterations"
            )
        for notice in (*ready.notices, *self.corpus.notices):
            yield Warned(message=notice)
        choice = choose_compilation(self.preset, self.device)
        if choice.note:
            yield Warned(message=choice.note)
        if choice.wanted and self.step < training.num_iterations:
            shape = (training.batch_size, training.sequence_length)
            self.update.forward, note = compiled(self.model, shape, self.precision)
            if note:
                yield Warned(message=note)

    @property
    def step(self) -> int:
        """How many updates there have been."""
        return self.standing.step

    def _count_seconds(self) -> None:
        self.standing.seconds = time.monotonic() - self._sitting

    # ---- one step

    def _take_step(self) -> Iterator[Step]:
        """Updates the weights. The step is told when its numbers are there: on CUDA, once the next one has begun."""
        self.standing.val_loss = None
        if self._unread is None:
            self._clock = time.perf_counter()
        result = self.update.begin(self.batches.micro_batches(self.step), self.step)
        self.standing.step += 1
        before, self._unread = self._unread, (self.step, result)
        if before is not None:
            yield self._told(*before)
        if not self.update.reads_late:
            yield from self._read()

    def _read(self) -> Iterator[Step]:
        """The step that has not been told yet, if there is one. Raises DivergedError."""
        if self._unread is not None:
            unread, self._unread = self._unread, None
            yield self._told(*unread)

    def _told(self, step: int, pending: PendingResult) -> Step:
        result = pending.read()
        before, self._clock = self._clock, time.perf_counter()
        seconds = self._clock - before
        if self._time_budget is not None:
            self._time_budget.add(seconds)
        tokens_per_second = self.preset.tokens_per_step / seconds
        on_cuda = self.device.type == "cuda"
        return Step(
            step=step,
            train_loss=result.train_loss,
            learning_rate=result.learning_rate,
            grad_norm=result.grad_norm,
            tokens_seen=step * self.preset.tokens_per_step,
            tokens_per_second=tokens_per_second,
            step_seconds=seconds,
            device_memory_bytes=torch.cuda.memory_allocated(self.device) if on_cuda else None,
            device_memory_reserved_bytes=torch.cuda.memory_reserved(self.device) if on_cuda else None,
            host_memory_bytes=self._process.memory_info().rss,
            mfu=tokens_per_second * self._flops_per_token / self._peak_flops if self._peak_flops else None,
        )

    # ---- between two steps

    def _at_boundary(self) -> Iterator[Event]:
        """What is due after a step. Evaluation and samples come first, so that the checkpoint knows its loss."""
        training = self.preset.training
        if self.step == training.num_iterations:
            return  # `_finish` does it all, over the whole held-out set
        yield from self._keep_time()
        evaluating = _due(self.step, training.eval_frequency)
        sampling = evaluating if training.sample_frequency is None else _due(self.step, training.sample_frequency)
        saving = _due(self.step, training.checkpoint_frequency)
        if training.checkpoint_frequency and not self.saver.buffers.reserved:
            self.saver.buffers.reserve(self._tensors_to_save())
        if evaluating or sampling or saving:
            yield from self._read()
        if evaluating:
            yield self._evaluate()
        if sampling:
            yield self._sample()
        if saving:
            yield from self._save(must=False)

    def _obey(self) -> Generator[Event, None, bool]:
        """Serves requests, while paused waits for them; returns whether training goes on."""
        paused = False
        while not self.controls.stopping:
            yield from self._tell(self.saver.finished())
            if (yield from self._serve()):
                continue  # a stop may have been asked for meanwhile
            if self.controls.paused:
                if not paused:
                    paused = True
                    yield from self._read()
                    yield Paused(step=self.step)
                self.controls.wait(0.5)
                continue
            if paused:
                yield from self._tell(self.saver.wait())
                yield Resumed(step=self.step)
            return True
        return False

    def _serve(self) -> Generator[Event, None, bool]:
        """Does the oldest of what was asked for once; False when there is nothing."""
        if (request := self.controls.next_request()) is not None:
            yield from self._read()
            if request == "checkpoint":
                yield from self._save(must=False)
            else:
                yield self._evaluate() if request == "evaluate" else self._sample()
        elif (copy_for := self.controls.next_copy()) is not None:
            self._copy_weights(copy_for)
        elif (factor := self.controls.next_learning_rate_factor()) is not None:
            yield from self._change_learning_rate(factor)
        else:
            return False
        return True

    def _copy_weights(self, copy_for: Future[TextModel]) -> None:
        """The network as it is now, for somebody who writes with it while training goes on."""
        try:
            model = copy.deepcopy(self.model).eval().requires_grad_(False)
            source = f"{self.run.name}, live at step {self.step}"
            copy_for.set_result(TextModel(model, self.corpus.tokenizer, source, self.preset.sampling))
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            # Whoever asked is told; a copy for which there is no room is no reason to end the run.
            copy_for.set_exception(ResourceError(f"the weights could not be copied: {error}"))

    def _change_learning_rate(self, factor: float) -> Iterator[Event]:
        if factor == self.update.optimizers.learning_rate_factor:
            return
        yield from self._read()
        self.update.optimizers.learning_rate_factor = factor
        self.standing.saved_step = None  # a checkpoint of this very step does not know of the change
        yield LearningRateChanged(step=self.step, factor=factor)

    def _keep_time(self) -> Iterator[Event]:
        """Moves the end of the run to where its time budget has it."""
        if self._time_budget is None:
            return
        num_iterations = self._time_budget.num_iterations(self.preset, self.step)
        if num_iterations != self.preset.training.num_iterations:
            yield from self._read()
            self.preset = self.preset.with_training(num_iterations=num_iterations)
            self.update.follow(self.preset)
            problem = None
            try:
                replace_text(self.run.preset_file, dumps(self.preset))
            except OSError as error:
                problem = f"{self.run.preset_file} could not be brought up to date: {error.strerror or error}"
            yield NumIterationsChanged(step=self.step, num_iterations=num_iterations)
            if problem:
                yield Warned(message=f"{problem}; the checkpoints will have it")

    def _evaluate(self, whole: bool = False) -> Evaluated:
        """The loss over the fixed sample, or over the whole held-out text, which a stop cuts short."""
        training = self.preset.training
        batches = evaluation_batches(
            self.corpus.validation,
            training.batch_size,
            training.sequence_length,
            None if whole else training.eval_iterations,
        )
        if whole:
            batches = itertools.takewhile(lambda _: not self.controls.stopping, batches)
        loss: HeldOutLoss = held_out_loss(self.model, batches, self.corpus.tokenizer.token_bytes(), self.precision)
        # Losses over different texts do not compare: the best one is found among those over the fixed sample.
        if not whole:
            self.standing.measured(loss.val_loss)
        return Evaluated(
            step=self.step,
            val_loss=loss.val_loss,
            perplexity=loss.perplexity,
            bits_per_byte=loss.bits_per_byte,
            whole=whole,
        )

    def _sample(self) -> Sampled:
        sampling = self.preset.sampling
        return Sampled(step=self.step, prompt=sampling.prompt, text=self.writer.write(sampling.prompt, sampling).text)

    def _save(self, must: bool) -> Iterator[Event]:
        """Saves a checkpoint beside the training; with `must`, waits for it and raises ResourceError when it fails."""
        yield from self._tell(self.saver.wait())
        if self.standing.saved_step == self.step:
            return
        started = time.perf_counter()
        tensors = self._tensors_to_save()
        copies = self.saver.buffers.copy(tensors)
        self.saver.begin(self._snapshot(copies or tensors), started)
        self.standing.saved_step = self.step
        if must or copies is None:
            saved = self.saver.wait()
            if must and saved is not None and saved.error is not None:
                raise saved.error
            yield from self._tell(saved)

    def _tensors_to_save(self) -> dict[str, Tensor]:
        published = published_views(self.model.state_dict(), self.preset.model)
        weights = {MODEL + name: tensor for name, tensor in published.items()}
        return weights | state.collect(self.update.optimizers, self.device)

    def _tell(self, saved: Saved | None) -> Iterator[Event]:
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
        else:
            self.standing.saved_step = None if self.standing.saved_step == saved.step else self.standing.saved_step
            yield Warned(message=f"{saved.error}; training goes on and tries again at the next checkpoint")

    def _snapshot(self, tensors: dict[str, Tensor]) -> Snapshot:
        config = self.preset.model
        return Snapshot(
            step=self.step,
            run_id=self.run_id,
            model={name.removeprefix(MODEL): t for name, t in tensors.items() if name.startswith(MODEL)},
            training_state={name: t for name, t in tensors.items() if not name.startswith(MODEL)},
            documents={
                "config.json": _json(published_config(config, self.corpus.tokenizer.eot)),
                "preset.toml": dumps(self.preset),
            },
            trainer=self._trainer_numbers(),
        )

    def _trainer_numbers(self) -> dict[str, Any]:
        budget = self._time_budget
        return {
            "step": self.step,
            "tokens_seen": self.step * self.preset.tokens_per_step,
            "seconds": self.standing.seconds,
            "val_loss": self.standing.val_loss,
            "best_val_loss": self.standing.best_val_loss,
            "learning_rate_factor": self.update.optimizers.learning_rate_factor,
            "preset_name": self.preset_name,
            "data_fingerprint": self.corpus.fingerprint,
            "time_budget": budget.as_numbers(self.preset.training.num_iterations) if budget else None,
            "stream": self.batches.state_dict() if isinstance(self.batches, StreamBatches) else None,
            "scaler": state.scaler_numbers(self.update.scaler),
        }

    def _finish(self) -> Iterator[Event]:
        yield from self._read()
        done = self.step == self.preset.training.num_iterations
        if done:
            yield self._evaluate()
            yield from self._save(must=False)  # reading all of the held-out text takes long, and may be cut short
            whole = self._evaluate(whole=True)
            done = not self.controls.stopping
            if done:
                yield whole
                if self.preset.training.sample_frequency != 0:
                    yield self._sample()
        yield from self._save(must=True)
        self._count_seconds()
        yield RunFinished(
            step=self.step,
            best_val_loss=self.standing.best_val_loss,
            seconds=self.standing.seconds,
            reason="done" if done else "stopped",
        )


def _due(step: int, frequency: int) -> bool:
    return frequency > 0 and step % frequency == 0


def _json(value: dict[str, Any]) -> str:
    import json

    return json.dumps(value, indent=2) + "\n"
