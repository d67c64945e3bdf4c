"""The first steps tried before the run: memory runs out now, or not at all. Nothing of the trial is left."""

import contextlib
from collections.abc import Iterator

import torch

from gpt2tui.data.store_building import StageProgress
from gpt2tui.data.tokenizers import Tokenizer
from gpt2tui.errors import DivergedError
from gpt2tui.evaluation.validation import validation_loss
from gpt2tui.generation import TextModel
from gpt2tui.preset.schema import Preset
from gpt2tui.training.update import Update

TRIED_STEPS = 2  # the first one makes the moments; the second has everything in memory


def try_shapes(update: Update, preset: Preset, tokenizer: Tokenizer) -> Iterator[StageProgress]:
    """Takes steps with the largest batch, an evaluation and a sample, and yields before each.

    `update` must not have taken a step. Its weights stay as they are, its optimizers without state, and so do random
    generators. Errors are those of memory; a loss that is not finite is left to the run itself.
    """
    training, device = preset.training, update.device
    tokens = torch.zeros((training.batch_size, training.sequence_length), dtype=torch.int64)
    batch = (tokens, tokens.clone())  # passing one tensor twice would compile a special case
    micro_batches = [batch] * min(2, training.gradient_accumulation)  # from the second on, gradients are there
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for _ in range(TRIED_STEPS):
            yield StageProgress("trying a step: it needs much of the free memory")
            with contextlib.suppress(DivergedError):
                update.run(micro_batches, 0, learning_rate_factor=0.0)  # weights times 1, plus 0
        yield StageProgress("trying an evaluation: it needs much of the free memory")
        validation_loss(update.model, [batch], tokenizer.token_bytes(), update.precision)
        yield StageProgress("trying a sample: it needs much of the free memory")
        model = TextModel(update.model, tokenizer, "", training.sequence_length)
        next(model.stream(preset.sampling.prompt, preset.sampling), None)  # its cache has room for the whole text
    update.forget()
