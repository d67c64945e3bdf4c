"""The training loop: a generator of events that obeys its controls between two steps.

    for event in trainer.train():
        ...

Whoever iterates decides the thread; nothing here prints, draws or handles signals.
"""

import copy
import itertools
import math
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import psutil
import torch
from torch import Tensor

from gpt2tui import checkpoint, runs
from gpt2tui.checkpoint import Checkpoint
from gpt2tui.data import tokenizers
from gpt2tui.data.batches import StreamBatches, evaluation_batches, open_batches
from gpt2tui.data.token_store import TokenizedCorpus
from gpt2tui.device_speed import peak_flops
from gpt2tui.errors import CheckpointError, DataError, Gpt2TuiError, ResourceError
from gpt2tui.estimate import flops_per_token
from gpt2tui.generation import TextModel, load_model
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
    Paused,
    Resumed,
    RunFailed,
    RunFinished,
    RunStarted,
    Sampled,
    Step,
    Warned,
)
from gpt2tui.training.precision import (
    choose_compilation,
    choose_device,
    choose_precision,
    device_name,
    is_out_of_memory,
)
from gpt2tui.training.saving import Saved, Saver, Snapshot
from gpt2tui.training.trial import with_precision, within_budget
from gpt2tui.training.update import PendingResult, Update
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
        self.step = 0
        self.seconds = 0.0  # of this run, earlier sittings included
        self.best_val_loss: float | None = None
        self._last_val_loss: float | None = None  # of this very step, None when it was not measured
        self._saved_step: int | None = None
        self.saver = Saver(
            run.checkpoints,
            keep=preset.training.keep_checkpoints,
            save_tokenizer=lambda folder: tokenizers.save(corpus.tokenizer, folder),
        )
        self._unread: tuple[int, PendingResult] | None = None
        self._clock = 0.0  # when the step began, or the one before it was told
        self._notices: list[str] = []
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
            self._sitting = time.monotonic() - self.seconds
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
        if self.resume_from is None:
            batches = open_batches(self.corpus, self.preset.training)
            self.preset = with_precision(self.preset, batches, self.device)
            self.preset = within_budget(self.preset, batches, self.device)
        self.precision = choose_precision(self.preset, self.device)
        training = self.preset.training
        self.batches = open_batches(self.corpus, self.preset.training)
        self.update = Update(self.preset, self.device, self.precision)
        self.model = self.update.model
        self.writer = TextModel(self.model, self.corpus.tokenizer, self.run.name)
        self._peak_flops = peak_flops(device_name(self.device), self.precision)
        self._flops_per_token = flops_per_token(self.preset)
        if self.resume_from is None:
            self.run_id = self._write_run_folder()
        else:
            self._restore(self.resume_from)
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
        for notice in (*self._notices, *self.corpus.notices):
            yield Warned(message=notice)
        choice = choose_compilation(self.preset, self.device)
        if choice.note:
            yield Warned(message=choice.note)
        if choice.wanted and self.step < training.num_iterations:
            shape = (training.batch_size, training.sequence_length)
            self.update.forward, note = compiled(self.model, shape, self.precision, if_faster=choice.if_faster)
            if note:
                yield Warned(message=note)

    def _write_run_folder(self) -> str:
        self.run.preset_file.write_text(dumps(self.preset), encoding="utf-8", newline="\n")
        tokenizers.save(self.corpus.tokenizer, self.run.folder)
        data = {
            "source": self.corpus.source,
            "fingerprint": self.corpus.fingerprint,
            "train_bytes": self.corpus.train_bytes,
            "validation_bytes": self.corpus.validation_bytes,
        }
        return runs.write_info(
            self.run,
            preset_name=self.preset_name,
            command=self.command,
            device=device_name(self.device),
            precision=self.precision,
            data=data,
        )

    def _restore(self, saved: Checkpoint) -> None:
        trainer = state.read_numbers(saved)
        if trainer["data_fingerprint"] != self.corpus.fingerprint:
            raise DataError(
                f"the corpus {self.preset.data.source} has changed since the run {self.run.name} began; "
                "restore it, or start a new run"
            )
        weights = load_model(saved.folder)
        if weights.config != self.preset.model.model_copy(update={"dropout": weights.config.dropout}):
            raise CheckpointError(f"{saved.folder} holds another [model] than the preset asks for: {weights.config!r}")
        self.model.load_state_dict(weights.state_dict())
        tensors = checkpoint.load_tensors(saved.folder / "training_state.safetensors")
        self._notices = [f"{problem}; an older checkpoint is used" for problem in saved.passed_over]
        self._notices += state.restore(tensors, self.update.optimizers, self.device)
        if self.update.scaler is not None and trainer["scaler"] is not None:
            self.update.scaler.load_state_dict(trainer["scaler"])
        if isinstance(self.batches, StreamBatches):
            self.batches.load_state_dict(trainer["stream"])
        self.run_id = saved.run_id
        self.step = saved.step
        self.seconds = trainer["seconds"]
        self.best_val_loss = trainer["best_val_loss"]
        self.update.optimizers.learning_rate_factor = trainer.get("learning_rate_factor", 1.0)
        self._last_val_loss = trainer["val_loss"]
        self._saved_step = saved.step
        self.saver.protected = {saved.step}

    def _count_seconds(self) -> None:
        self.seconds = time.monotonic() - self._sitting

    # ---- one step

    def _take_step(self) -> Iterator[Step]:
        """Updates the weights. The step is told when its numbers are there: on CUDA, once the next one has begun."""
        self._last_val_loss = None
        if self._unread is None:
            self._clock = time.perf_counter()
        result = self.update.begin(self.batches.micro_batches(self.step), self.step)
        self.step += 1
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
        self._saved_step = None  # a checkpoint of this very step does not know of the change
        yield LearningRateChanged(step=self.step, factor=factor)

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
            self._last_val_loss = loss.val_loss if math.isfinite(loss.val_loss) else None
            self.best_val_loss = min(self._last_val_loss or math.inf, self.best_val_loss or math.inf)
            self.best_val_loss = self.best_val_loss if math.isfinite(self.best_val_loss) else None
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
        if self._saved_step == self.step:
            return
        started = time.perf_counter()
        tensors = self._tensors_to_save()
        copies = self.saver.buffers.copy(tensors)
        self.saver.begin(self._snapshot(copies or tensors), started)
        self._saved_step = self.step
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
            self._saved_step = None if self._saved_step == saved.step else self._saved_step
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
        return {
            "step": self.step,
            "tokens_seen": self.step * self.preset.tokens_per_step,
            "seconds": self.seconds,
            "val_loss": self._last_val_loss,
            "best_val_loss": self.best_val_loss,
            "learning_rate_factor": self.update.optimizers.learning_rate_factor,
            "preset_name": self.preset_name,
            "data_fingerprint": self.corpus.fingerprint,
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
            best_val_loss=self.best_val_loss,
            seconds=self.seconds,
            reason="done" if done else "stopped",
        )


def _due(step: int, frequency: int) -> bool:
    return frequency > 0 and step % frequency == 0


def _json(value: dict[str, Any]) -> str:
    import json

    return json.dumps(value, indent=2) + "\n"
