"""Models that write in the chat, in a thread: loading, at most two in memory, and streaming in small batches."""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from textual.message import Message

from gpt2tui.errors import CheckpointError, Gpt2TuiError, ResourceError
from gpt2tui.preset.schema import SamplingTable
from gpt2tui.system.host_memory import load_torch

if TYPE_CHECKING:
    from gpt2tui.generation import GpuUse, TextModel  # which import torch


@dataclass(frozen=True)
class ShownAlternative:
    """A token that could have stood there, and the model's own probability for it."""

    text: str
    probability: float


@dataclass(frozen=True)
class ShownToken:
    """A token on the screen; `probability` is None for what the model was given, such as the prompt."""

    text: str
    probability: float | None = None
    alternatives: tuple[ShownAlternative, ...] = ()


SMALLEST_PROBABILITY = 1e-45
"""fp32 has nothing smaller but 0, whose surprisal would be infinite."""


def surprisal(probability: float) -> float:
    """-ln p, in nats: what a token of that probability costs; never infinite."""
    return -math.log(max(probability, SMALLEST_PROBABILITY))


@dataclass
class TokenStatistics:
    """Sums over the tokens of a text, under the model's own distribution (temperature 1, nothing cut off)."""

    tokens: int = 0
    _probabilities: float = 0.0
    _nats: float = 0.0

    def add(self, probability: float) -> None:
        """Counts one token."""
        self.tokens += 1
        self._probabilities += probability
        self._nats += surprisal(probability)

    @property
    def mean_probability(self) -> float | None:
        """The arithmetic mean of the tokens' probabilities; None without tokens."""
        return self._probabilities / self.tokens if self.tokens else None

    @property
    def loss(self) -> float | None:
        """The mean surprisal, nats per token, as in training; None without tokens."""
        return self._nats / self.tokens if self.tokens else None

    @property
    def perplexity(self) -> float | None:
        """exp(loss): among how many equally likely tokens the model could just as well have chosen."""
        return None if self.loss is None else math.exp(min(self.loss, 700.0))  # beyond, a double overflows

    def bits_per_byte(self, text_bytes: int) -> float | None:
        """The surprisal of all tokens in bits, over the bytes of their text; None for an empty text."""
        return self._nats / math.log(2) / text_bytes if text_bytes else None

    def is_guessing(self, vocab_size: int) -> bool:
        """Whether the text of some length is hardly likelier than one of tokens drawn at random: a loss near ln V."""
        return self.loss is not None and self.tokens >= 8 and self.loss > 0.9 * math.log(vocab_size)


log = logging.getLogger(__name__)

MODELS_IN_MEMORY = 2
ALTERNATIVES = 5
SECONDS_BETWEEN_BATCHES = 0.05
LONGEST_TAIL = 200  # in which the end of a turn is looked for: longer than any token

Task = Literal["write", "read"]
Ending = Literal["document", "length", "turn", "text", "stopped"]
"""How a text ended: the model ended its document, the length was reached, the model's turn was over, all was read, or a
person stopped it."""


@dataclass(frozen=True)
class ModelFacts:
    """What one should know of a model while reading what it writes."""

    source: str
    num_parameters: int
    n_positions: int
    vocab_size: int
    sampling: SamplingTable
    placement_note: str | None = None
    """Why the model is not on the GPU, where a training is the reason."""

    @classmethod
    def of(cls, model: "TextModel") -> "ModelFacts":
        """The facts of a loaded model."""
        return cls(
            model.source,
            model.num_parameters,
            model.n_positions,
            model.vocab_size,
            model.sampling,
            model.placement_note,
        )


@dataclass(frozen=True)
class AnswerRequest:
    """A text to continue or to read, with one model: a reference to load, or live weights on their way."""

    number: int
    task: Task
    prompt: str
    sampling: SamplingTable
    reference: str | None
    live: "Future[TextModel] | None" = None
    asked: str | None = None
    """With the chat template: what the person typed, of which `prompt` is the whole conversation."""


@dataclass
class AnswerBegun(Message):
    """A model is there and begins; `prompt_tokens` is how many tokens its prompt is."""

    number: int
    facts: ModelFacts
    prompt_tokens: int


@dataclass
class AnswerGrew(Message):
    """Tokens of an answer since the last message, and the numbers of the whole of it so far."""

    number: int
    tokens: Sequence[ShownToken]
    statistics: TokenStatistics
    seconds: float


@dataclass
class AnswerEnded(Message):
    """An answer is complete."""

    number: int
    ending: Ending


@dataclass
class AnswerFailed(Message):
    """An answer could not be given, or not to its end."""

    number: int
    message: str


@dataclass
class AllAnswered(Message):
    """The thread has nothing more to do."""


@dataclass
class ModelReady(Message):
    """A model that was selected is in memory."""

    reference: str
    facts: ModelFacts


@dataclass
class ModelUnusable(Message):
    """A model that was selected could not be loaded."""

    reference: str
    message: str


def load_checkpoint(reference: str, gpu: "GpuUse" = "all") -> "TextModel":
    """Loads a model from disk or the Hub. Raises Gpt2TuiError."""
    load_torch()
    from gpt2tui import generation  # torch takes a second and more to import, so only when a model is needed

    return generation.load(reference, gpu=gpu)


class ChatModels:
    """The models in memory, at most two. `get` may take seconds: call it in a worker thread."""

    def __init__(self, load: "Callable[[str, GpuUse], TextModel]" = load_checkpoint) -> None:
        self.gpu_use: GpuUse = "all"
        """What models may take of a GPU from now on. Call `forget_misplaced` after a change."""
        self._load = load
        self._loaded: dict[str, TextModel] = {}  # the one used last at the end
        self._loaded_under: GpuUse = "all"
        self._lock = threading.Lock()

    @property
    def references(self) -> list[str]:
        """Which models are in memory, the one used last at the end."""
        return list(self._loaded)

    def get(self, reference: str, beside: int = 0) -> "TextModel":
        """The model, loaded if need be. `beside` more are in memory elsewhere, and leave less room here."""
        with self._lock:
            gpu_use = self._forget_misplaced()
            model = self._loaded.pop(reference, None)
            # Room is made first, so that there is never one more than allowed, not even while loading.
            self._forget_all_but(MODELS_IN_MEMORY - 1 - beside)
            self._loaded[reference] = model or self._load(reference, gpu_use)
            return self._loaded[reference]

    def make_room(self, models: int) -> None:
        """Forgets what has not been used for longest, so that `models` more fit."""
        with self._lock:
            self._forget_all_but(MODELS_IN_MEMORY - models)

    def forget_misplaced(self) -> None:
        """Forgets the models that `gpu_use`, since it changed, may want elsewhere. Waits for one being loaded."""
        with self._lock:
            self._forget_misplaced()

    def _forget_misplaced(self) -> "GpuUse":
        gpu_use = self.gpu_use
        if gpu_use != self._loaded_under:
            self._loaded_under = gpu_use
            self._loaded = {
                reference: model
                for reference, model in self._loaded.items()
                if not is_on_gpu(model) and model.placement_note is None
            }
        return gpu_use

    def _forget_all_but(self, kept: int) -> None:
        while len(self._loaded) > max(0, kept):
            del self._loaded[next(iter(self._loaded))]


def is_on_gpu(model: "TextModel") -> bool:
    """Whether the weights are in a CUDA device's memory, which a training may need."""
    return model.device.type == "cuda"


def load_model(reference: str, models: ChatModels, post: Callable[[Message], object]) -> None:
    """The body of a worker: loads a model ahead of its first use, and tells what came of it."""
    try:
        post(ModelReady(reference, ModelFacts.of(models.get(reference))))
    except Exception as error:
        post(ModelUnusable(reference, _said(error)))


def answer(
    requests: Sequence[AnswerRequest],
    models: ChatModels,
    post: Callable[[Message], object],
    stop: threading.Event,
) -> None:
    """The body of a worker: answers all requests side by side, a token here and a token there, until done or stopped.

    Tells what happens through messages, in batches about 20 times a second. Raises nothing.
    """
    try:
        live = sum(request.live is not None for request in requests)
        models.make_room(live)
        writers = [_Writer(request, models, post, stop, beside=live) for request in requests]
        busy = [writer for writer in writers if writer.begin()]
        while busy:
            busy = [writer for writer in busy if writer.advance()]
    finally:
        for request in requests:
            if request.live is not None:
                request.live.cancel()
        post(AllAnswered())


@dataclass
class _Writer:
    """One answer on its way."""

    request: AnswerRequest
    models: ChatModels
    post: Callable[[Message], object]
    stop: threading.Event
    beside: int
    statistics: TokenStatistics = field(default_factory=TokenStatistics)
    seconds: float = 0.0
    """Spent on this answer alone, from the beginning of its prompt on."""

    def begin(self) -> bool:
        """Gets the model; whether there is something to advance."""
        self._waiting: list[ShownToken] = []
        self._told_at = 0.0
        self._tail = ""
        try:
            model = self._model()
            if model is None:
                self.post(AnswerEnded(self.request.number, "stopped"))
                return False
            request = self.request
            self._on_gpu = is_on_gpu(model)
            self.post(AnswerBegun(request.number, ModelFacts.of(model), model.count_tokens(request.prompt)))
            self._pieces = (
                model.stream(request.prompt, request.sampling, ALTERNATIVES)
                if request.task == "write"
                else model.read(request.prompt, ALTERNATIVES)
            )
        except Exception as error:
            self.post(AnswerFailed(self.request.number, _said(error)))
            return False
        return True

    def advance(self) -> bool:
        """One token further; whether there may be more."""
        if self.stop.is_set():
            return self._end("stopped")
        started = time.perf_counter()
        try:
            if self._on_gpu and self.models.gpu_use == "none":
                raise ResourceError(
                    "a training starts and needs the GPU's memory; ask again to be answered from the CPU"
                )
            piece = next(self._pieces, None)
        except Exception as error:
            self._post_grown()
            self.post(AnswerFailed(self.request.number, _said(error)))
            return False
        now = time.perf_counter()
        self.seconds += now - started
        if piece is None:
            return self._end(self._natural_ending())
        if piece.token >= 0:  # else the rest of a character that stayed incomplete
            self.statistics.add(piece.probability)
        alternatives = tuple(
            ShownAlternative(alternative.text, alternative.probability) for alternative in piece.alternatives
        )
        self._waiting.append(ShownToken(piece.text, piece.probability, alternatives))
        if self.request.asked is not None:
            self._tail = (self._tail + piece.text)[-LONGEST_TAIL:]
            if STOP in self._tail:
                return self._end("turn")
        if now - self._told_at >= SECONDS_BETWEEN_BATCHES:
            self._post_grown()
        return True

    def _model(self) -> "TextModel | None":
        """The model; None when a person stopped while live weights were awaited."""
        live, reference = self.request.live, self.request.reference
        if live is None:
            assert reference is not None
            return self.models.get(reference, self.beside)
        while not self.stop.is_set():
            try:
                return live.result(timeout=0.1)
            except FutureTimeoutError:
                continue
            except CancelledError:
                raise CheckpointError("no training is running any more; choose one of its checkpoints") from None
        return None

    def _natural_ending(self) -> Ending:
        if self.request.task == "read":
            return "text"
        return "document" if self.statistics.tokens < self.request.sampling.max_length else "length"

    def _end(self, ending: Ending) -> bool:
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()
        self._post_grown()
        self.post(AnswerEnded(self.request.number, ending))
        return False

    def _post_grown(self) -> None:
        self._told_at = time.perf_counter()
        if self._waiting:
            self.post(AnswerGrew(self.request.number, self._waiting, replace(self.statistics), self.seconds))
            self._waiting = []


def _said(error: Exception) -> str:
    """The failure in words; what is not expected goes to the log with its traceback."""
    if isinstance(error, Gpt2TuiError):
        return str(error)
    log.exception("the chat failed on a bug", exc_info=error)
    return f"{type(error).__name__}: {error}"


# ---- a conversation as one text, for who wants to pretend that a base model was taught to answer

USER = "User: "
MODEL = "\nAssistant:"
STOP = "\nUser:"
"""Where the model begins to speak for the person, its turn is over."""


def turn(prompt: str) -> str:
    """What is put around one prompt."""
    return f"{USER}{prompt}{MODEL}"


def conversation(history: Sequence[tuple[str, str]], prompt: str) -> str:
    """The text to continue: earlier prompts with what the model made of them, then this one."""
    return "".join(f"{turn(asked)}{spoken(answered)}\n" for asked, answered in history) + turn(prompt)


def spoken(written: str) -> str:
    """What the model wrote before it began to speak for the person."""
    return written.partition(STOP)[0].rstrip()
