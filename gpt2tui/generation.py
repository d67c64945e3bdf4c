"""A model with its tokenizer: loaded from a checkpoint, continues prompts and scores given texts."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from gpt2tui.data import tokenizers
from gpt2tui.data.examples import tokens_of
from gpt2tui.data.tokenizers import IncrementalDecoder, Tokenizer
from gpt2tui.device import choose_device, is_out_of_memory
from gpt2tui.errors import CheckpointError, ResourceError
from gpt2tui.model.config import GPT2Config
from gpt2tui.model.decoding import Decoder, GraphDecoder, LogitsSource
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.model.published_config import trained_length
from gpt2tui.model.sampling import generate
from gpt2tui.model_files import description_folder, find, load_model
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.schema import Preset, SamplingTable
from gpt2tui.preset.template import Template
from gpt2tui.run import checkpoint
from gpt2tui.run.checkpoint import Checkpoint
from gpt2tui.run.model_lookup import OWN_FILES
from gpt2tui.system.host_memory import free_bytes

LARGE_PARAMETERS = 50_000_000  # 200 MB in fp32: more than a CPU's cache
POSITIONS_AT_ONCE = 128  # whose logits are in memory together while a text is scored: 26 MB with GPT-2's vocabulary

MOST_TOGETHER, KEPT_BYTES = 64, 2**31  # texts that are written at once, and the size of their keys and values

SHARE_OF_FREE_MEMORY = 0.5  # a model that needs more of a device's free memory is not put there beside a training
ON_CPU_BESIDE_TRAINING = "on the CPU: a training needs the GPU's memory"

DecodingPrecision = Literal["auto", "fp32", "fp16"]
GpuUse = Literal["all", "spare", "none"]
"""How much of a CUDA device's memory a model may take: what it needs; only where clearly more than that is free, as
beside a training; none, as before a training's first step, which shows what the training needs."""


@dataclass(frozen=True)
class TokenAlternative:
    """A candidate for a position, with the model's own probability for it."""

    token: int
    text: str
    probability: float


@dataclass(frozen=True)
class ScoredToken:
    """A token of a generated or given text. Its `text` is empty while a character is incomplete.

    `token` is -1 for the rest of a character that stayed incomplete at the end.
    """

    token: int
    text: str
    probability: float  # under the model's own distribution, before temperature and truncation
    log_probability: float = 0.0  # of the same distribution, in nats
    alternatives: tuple[TokenAlternative, ...] = ()
    """The likeliest tokens for its position, the token itself included where it is one of them."""


@dataclass(frozen=True)
class Continuation:
    """A finished continuation of a prompt; times in seconds."""

    prompt: str
    text: str
    tokens: int
    seconds: float
    tokens_per_second: float
    time_to_first_token: float | None


@dataclass(frozen=True)
class TextModel:
    """A model with its tokenizer, ready to generate and to score text."""

    model: GPT2
    tokenizer: Tokenizer
    source: str
    context_length: int
    """How many tokens it reads at once: the length of its training sequences, else n_positions. Embeddings of later
    positions were never trained."""
    sampling: SamplingTable = field(default_factory=SamplingTable)
    saved: Checkpoint | None = None
    """The checkpoint it was loaded from, None for a model in Hugging Face form."""
    decoder: LogitsSource | None = None
    """Computes a token faster than the network, or in another runtime; None where the network does it."""
    placement_note: str | None = None
    """Why it is on the CPU instead of the GPU; None for a model on the device that was asked for."""
    template: Template | None = None
    """The template of prompts and answers that it was trained with; None for a model of text."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.wte.weight.device

    @property
    def num_parameters(self) -> int:
        """The number of parameters."""
        return self.model.num_parameters

    @property
    def is_rounded(self) -> bool:
        """Whether it writes a text with its weights rounded to 16 bits."""
        return isinstance(self.decoder, Decoder) and self.decoder.dtype != torch.float32

    @property
    def vocab_size(self) -> int:
        """The number of tokens V; a uniform distribution over them has a loss of ln V nats per token."""
        return int(self.model.wte.num_embeddings)

    def count_tokens(self, text: str) -> int:
        """The number of tokens in a text."""
        return len(self.tokenizer.encode(text))

    def prompt_tokens(self, prompt: str, history: Sequence[tuple[str, str]] = ()) -> list[int]:
        """The tokens for the model to continue, so that it answers a prompt as it was trained to.

        Those of its template, after earlier prompts with their answers; without a template, or a prompt, the text's.
        """
        if self.template is None or not prompt:
            return self.tokenizer.encode(prompt)
        return tokens_of(history, prompt, self.template, self.tokenizer)

    def stream(
        self, prompt: str | Sequence[int], sampling: SamplingTable, alternatives: int = 0
    ) -> Iterator[ScoredToken]:
        """Continues `prompt`, a text or its tokens, token by token until `max_length` or the end of the document.

        A text is continued as it is, without the template. An empty prompt starts a new document; one longer than the
        context keeps its end. The random numbers come
        from a generator of its own, so that sampling during a training does not change the training. Each token has
        the `alternatives` likeliest tokens of its position; the text is the same with and without them.
        """
        return (token for _, token in self.streams(prompt, sampling, [sampling.seed], alternatives))

    def streams(
        self, prompt: str | Sequence[int], sampling: SamplingTable, seeds: Sequence[int], alternatives: int = 0
    ) -> Iterator[tuple[int, ScoredToken]]:
        """As `stream`, a text for each of the seeds: (number of the text, its token).

        The prompt is read once, and each step makes a token of every text. Their products are made together, which
        may round the last bit in another way than those of one text.
        """
        ids = list(self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt) or [self.tokenizer.eot]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        decoders = [IncrementalDecoder(self.tokenizer) for _ in seeds]
        open_texts = list(range(len(seeds)))
        for chosen in generate(
            self.model,
            torch.tensor([ids]),
            max_length=sampling.max_length,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            generator=generators,
            stop_token=self.tokenizer.eot,
            decoder=self.decoder,
            context_length=self.context_length,
        ):
            tokens, probabilities = chosen.token.tolist(), chosen.probability.tolist()
            likeliest = self._likeliest(chosen.logits, alternatives)
            for number in tuple(open_texts):
                token, probability = tokens[number], probabilities[number]
                is_last = token == self.tokenizer.eot
                text = "" if is_last else decoders[number].feed([token])
                log_probability = math.log(probability) if probability else -math.inf
                own = likeliest[number] if alternatives else ()
                yield number, ScoredToken(token, text, probability, log_probability, own)
                if is_last:
                    open_texts.remove(number)
                    yield from _rest(number, decoders[number])
        for number in open_texts:
            yield from _rest(number, decoders[number])

    def score(self, text: str, alternatives: int = 0) -> Iterator[ScoredToken]:
        """The tokens of a given text, each with the probability that the model gives it.

        The text starts a document, as in training. When it outgrows the context, the older half of the window is
        dropped, as in generation.
        """
        ids = torch.tensor([self.tokenizer.eot, *self.tokenizer.encode(text)])  # (T + 1,)
        decoder = IncrementalDecoder(self.tokenizer)
        first, known = 0, 0  # where the window begins, and the last token that has been yielded
        while known < len(ids) - 1:
            window = ids[first : first + self.context_length + 1]
            for position, log_probability, likeliest in self._log_probabilities(window, known - first, alternatives):
                token = int(window[position + 1])
                text = decoder.feed([token])
                yield ScoredToken(token, text, math.exp(log_probability), log_probability, likeliest)
            known = first + len(window) - 1
            first = known - max(1, self.context_length // 2) + 1
        if rest := decoder.flush():
            yield ScoredToken(-1, rest, 1.0)

    def _log_probabilities(
        self, window: Tensor, start: int, alternatives: int
    ) -> Iterator[tuple[int, float, tuple[TokenAlternative, ...]]]:
        """(position, log-probability of the next token, alternatives) from position `start` of a window (T + 1,)."""
        device = self.model.wte.weight.device
        with torch.inference_mode():
            hidden = self.model.hidden(window[None, :-1].to(device))[0, start:]  # (T - start, C)
        for offset in range(0, len(hidden), POSITIONS_AT_ONCE):
            with torch.inference_mode():
                part = hidden[offset : offset + POSITIONS_AT_ONCE]
                logits = self.model.logits(part).float()  # (P, V)
                following = window[start + offset + 1 :][: len(part)].to(device)  # (P,)
                chosen = logits.log_softmax(-1).gather(-1, following[:, None]).squeeze(-1).tolist()
            likeliest = self._likeliest(logits, alternatives)
            for row, log_probability in enumerate(chosen):
                yield start + offset + row, log_probability, likeliest[row] if alternatives else ()

    def _likeliest(self, logits: Tensor, count: int) -> list[tuple[TokenAlternative, ...]]:
        """The `count` likeliest tokens of each row of logits (P, V), likeliest first."""
        if count == 0:
            return []
        with torch.inference_mode():
            probabilities, tokens = logits.float().softmax(-1).topk(min(count, logits.size(-1)))  # (P, count)
        return [
            tuple(
                TokenAlternative(token, self.tokenizer.decode([token]), probability)
                for token, probability in zip(row_tokens, row_probabilities, strict=True)
            )
            for row_tokens, row_probabilities in zip(tokens.tolist(), probabilities.tolist(), strict=True)
        ]

    def continuation(self, prompt: str, sampling: SamplingTable, *, in_template: bool = True) -> Continuation:
        """The whole continuation at once, with its times; unless `in_template` is false, the answer in the template."""
        return self.continuations(prompt, sampling, 1, in_template=in_template)[0]

    def continuations(
        self, prompt: str, sampling: SamplingTable, count: int, *, in_template: bool = True
    ) -> list[Continuation]:
        """As `continuation`, `count` of them with the seeds from that of `sampling` on, some at a time."""
        given, found = self.prompt_tokens(prompt) if in_template else prompt, []
        for seeds in self.seeds_together(given, sampling, count):
            pieces: list[list[_Piece]] = [[] for _ in seeds]
            started = time.perf_counter()
            for number, token in self.streams(given, sampling, seeds):
                pieces[number].append(_Piece(token, time.perf_counter() - started))
            found += [_continuation(prompt, own) for own in pieces]
        return found

    def seeds_together(self, prompt: str | Sequence[int], sampling: SamplingTable, count: int) -> Iterator[range]:
        """The seeds of `count` continuations, from that of `sampling` on, in groups to be written at once.

        As many as MOST_TOGETHER whose keys and values take no more than KEPT_BYTES, and half of the memory that is
        free. One where the decoder is not as fast, or needs much more memory, for several.
        """
        together = 1
        if self.decoder is None or (isinstance(self.decoder, Decoder) and self.decoder.reads(2, 1)):
            given = self.count_tokens(prompt) if isinstance(prompt, str) else len(prompt)
            of_one = _cache_bytes(self.model.config, min(self.context_length, given + sampling.max_length))
            free = torch.cuda.mem_get_info(self.device)[0] if self.device.type == "cuda" else free_bytes()
            together = max(1, min(MOST_TOGETHER, min(KEPT_BYTES, free // 2) // of_one))
        first, end = sampling.seed, sampling.seed + count
        return (range(start, min(start + together, end)) for start in range(first, end, together))


def _rest(number: int, decoder: IncrementalDecoder) -> Iterator[tuple[int, ScoredToken]]:
    """What is left of a character that stays incomplete at the end of a text."""
    if rest := decoder.flush():
        yield number, ScoredToken(-1, rest, 1.0)


class _Piece(NamedTuple):
    """A token, and how long after the beginning it came, in seconds."""

    token: ScoredToken
    seconds: float


def _continuation(prompt: str, pieces: Sequence[_Piece]) -> Continuation:
    count, seconds = sum(piece.token.token >= 0 for piece in pieces), pieces[-1].seconds if pieces else 0.0
    text = "".join(piece.token.text for piece in pieces)
    first = pieces[0].seconds if pieces else None
    return Continuation(prompt, text, count, seconds, count / seconds if seconds else 0.0, first)


def load(
    reference: str,
    device: str = "auto",
    precision: DecodingPrecision = "auto",
    gpu: GpuUse = "all",
    texts: int = 1,
    graphs: bool = False,
) -> TextModel:
    """Loads what a CHECKPOINT argument means: see `model_files.find`.

    `precision` is that of the weights while a text is generated: see `decoder_of`. A model that `gpu` does not allow
    on a CUDA device, where it is to read `texts` at once, is loaded on the CPU, and its `placement_note` says so.
    `graphs` allows CUDA graphs, several times as fast: only where nothing trains in this process while it generates.
    Raises CheckpointError when it is missing, damaged, a pickle, or not a GPT-2, ResourceError when memory does not
    suffice.
    """
    chosen_device = choose_device(device)
    for _ in range(checkpoint.ATTEMPTS):
        found = find(reference)
        folder, saved = found.folder, found.saved
        try:
            return _load(folder, saved, chosen_device, precision, gpu, texts, graphs)
        except (CheckpointError, OSError):
            # A training may have deleted or replaced it meanwhile. If it is unchanged, the error is real.
            if saved is None or checkpoint.is_unchanged(saved):
                raise
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            size = sum(file.stat().st_size for file in folder.glob("*.safetensors") if file.name not in OWN_FILES)
            raise ResourceError(
                f"out of memory while loading {folder}: its weights take {size / 1e9:,.1f} GB on the disk and up to "
                f"twice that while they are loaded, and {free_bytes() / 1e9:,.1f} GB are free"
            ) from error
    raise CheckpointError(f"{reference}: the checkpoints are deleted faster than they can be read; try again")


def _load(
    folder: Path,
    saved: Checkpoint | None,
    device: torch.device,
    precision: DecodingPrecision,
    gpu: GpuUse,
    texts: int,
    graphs: bool,
) -> TextModel:
    preset = preset_files.load_frozen(folder / "preset.toml") if saved else None
    model = load_model(folder)
    described = description_folder(folder)
    context_length = _context_length(described, model, preset)
    allowed = allowed_device(model, device, gpu, texts)
    note = None if allowed == device else ON_CPU_BESIDE_TRAINING
    model = model.to(allowed).eval()
    tokenizer = tokenizers.load(described)
    if tokenizer.vocab_size > model.wte.num_embeddings:
        raise CheckpointError(
            f"{folder}: its tokenizer has {tokenizer.vocab_size} tokens, its model only {model.wte.num_embeddings}"
        )
    sampling = preset.sampling if preset else SamplingTable()
    decoder = decoder_of(model, precision, graphs=graphs)
    template = tokenizers.template_in(folder)
    return TextModel(model, tokenizer, str(folder), context_length, sampling, saved, decoder, note, template)


def _context_length(folder: Path, model: GPT2, preset: Preset | None) -> int:
    """The length that the model was trained with. Older checkpoints of ours have it in their preset only."""
    try:
        trained = trained_length(checkpoint.read_json(folder / "config.json"))
    except ValueError as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from error
    if trained is None and preset is not None:
        trained = preset.training.sequence_length
    return model.config.n_positions if trained is None else trained


def allowed_device(model: GPT2, device: torch.device, gpu: GpuUse, texts: int = 1) -> torch.device:
    """`device`, or the CPU where that is a CUDA device on which `gpu` allows no model of this size."""
    if device.type != "cuda" or gpu == "all":
        return device
    if gpu == "spare":
        # What torch holds and does not use now is left to the training's next step.
        free, _ = torch.cuda.mem_get_info(device)
        if bytes_needed(model, texts) <= SHARE_OF_FREE_MEMORY * free:
            return device
    return torch.device("cpu")


def bytes_needed(model: GPT2, texts: int = 1) -> int:
    """Memory for the weights and for texts of the model's whole context, of which a part may be read at once."""
    config = model.config
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    hidden = config.n_positions * 12 * config.n_embd * 4  # of the widest block: residual, qkv, MLP before and after
    logits = 3 * POSITIONS_AT_ONCE * model.wte.num_embeddings * 4  # logits, their softmax, and what is sorted
    return weights + texts * (_cache_bytes(config, config.n_positions) + hidden + logits)


def _cache_bytes(config: GPT2Config, length: int) -> int:
    """The keys and values of a text of `length` tokens, fp32."""
    return 2 * config.n_layer * length * config.n_embd * 4


def decoder_of(model: GPT2, precision: DecodingPrecision, *, graphs: bool = False) -> Decoder | None:
    """A decoder that generates faster than the model, almost the same; None where there is none.

    Memory bandwidth limits how fast a large model generates, so "auto" uses fp16 weights for a model on the CPU that is
    larger than its cache. "fp16" uses them on any CPU or CUDA device if all weights are finite in fp16; "fp32" never.
    With `graphs`, on a CUDA device, it is a GraphDecoder, of fp32 weights too.
    """
    device = model.wte.weight.device.type
    graphs = graphs and device == "cuda"
    exact = GraphDecoder(model, torch.float32) if graphs else None
    if graphs and precision != "fp16":
        return exact
    automatic = device == "cpu" and model.num_parameters >= LARGE_PARAMETERS
    if device == "mps" or precision == "fp32" or (precision == "auto" and not automatic):
        return None
    try:
        return (GraphDecoder if graphs else Decoder)(model, torch.float16)
    except ValueError:
        return exact
