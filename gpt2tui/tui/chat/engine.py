"""The chat's work in threads: loading models, at most two in memory, and streaming their answers in small batches."""

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
from gpt2tui.preset.template import Template
from gpt2tui.system.host_memory import load_torch

if TYPE_CHECKING:
    from gpt2tui.generation import GpuUse, TextModel  # which imports torch

log = logging.getLogger(__name__)

MODELS_IN_MEMORY = 2
ALTERNATIVES = 5
SECONDS_BETWEEN_BATCHES = 0.05
LONGEST_TAIL = 200  # characters searched for the end of a turn: longer than any token

SMALLEST_PROBABILITY = 1e-45
"""The smallest positive fp32 number; the surprisal of 0 would be infinite."""


@dataclass(frozen=True)
class ShownAlternative:
    """A candidate for a position, and the model's own probability for it."""

    text: str
    probability: float


@dataclass(frozen=True)
class ShownToken:
    """A token on the screen; `probability` is None for tokens of the prompt."""

    text: str
    probability: float | None = None
    alternatives: tuple[ShownAlternative, ...] = ()


def surprisal(probability: float) -> float:
    """-ln p in nats, never infinite."""
    return -math.log(max(probability, SMALLEST_PROBABILITY))


@dataclass
class TokenStatistics:
    """Sums over the tokens of a text, under the model's own distribution (temperature 1, no truncation)."""

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
        """exp(loss); None without tokens."""
        return None if self.loss is None else math.exp(min(self.loss, 700.0))  # beyond, a double overflows

    def bits_per_byte(self, text_bytes: int) -> float | None:
        """The surprisal of all tokens in bits per byte of their text; None for an empty text."""
        return self._nats / math.log(2) / text_bytes if text_bytes else None

    def is_guessing(self, vocab_size: int) -> bool:
        """Whether the loss of at least 8 tokens is near ln V, the loss of a uniform distribution, or above it."""
        return self.loss is not None and self.tokens >= 8 and self.loss > 0.9 * math.log(vocab_size)


Task = Literal["continue", "score"]
"""Continue a prompt, or score a given text: the surprisal of each of its tokens."""
TemplateUse = Literal["off", "own", "on"]
"""Whether a prompt becomes a turn of a conversation: never, with a model that has a template of its own, always."""
Ending = Literal["document", "length", "turn", "text", "stopped"]
"""Why an answer ended: end-of-text token, maximum length, end of the model's turn, all of the text scored, or stopped
by the user."""


@dataclass(frozen=True)
class ModelFacts:
    """What the screen shows of a model."""

    source: str
    num_parameters: int
    context_length: int
    vocab_size: int
    sampling: SamplingTable
    placement_note: str | None = None
    """Why the model is on the CPU instead of the GPU; None when it is not."""
    template: Template | None = None
    """The template of prompts and answers that the model was trained with; None for a model of text."""

    @classmethod
    def of(cls, model: "TextModel") -> "ModelFacts":
        """The facts of a loaded model."""
        return cls(
            model.source,
            model.num_parameters,
            model.context_length,
            model.vocab_size,
            model.sampling,
            model.placement_note,
            model.template,
        )


@dataclass(frozen=True)
class AnswerRequest:
    """A text for one model to continue or to score: a reference to load, or live weights to wait for."""

    number: int
    task: Task
    prompt: str
    sampling: SamplingTable
    reference: str | None
    live: "Future[TextModel] | None" = None
    asked: str | None = None
    """What the user typed, if it may become a turn of a conversation."""
    template: TemplateUse = "off"
    history: tuple[tuple[str, str], ...] = ()
    """The prompts and answers before `asked`. With "on", `prompt` is all of it as one text."""


@dataclass
class AnswerBegun(Message):
    """A model is loaded and begins; `prompt_tokens` is the length of its prompt in tokens."""

    number: int
    facts: ModelFacts
    prompt_tokens: int


@dataclass
class AnswerGrew(Message):
    """The tokens of an answer since the last message, and the statistics of all of it so far."""

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
    """An answer failed, perhaps after some of its tokens."""

    number: int
    message: str


@dataclass
class AllAnswered(Message):
    """All answers of a request have ended."""


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
    """The models in memory, at most two. Loading takes seconds: call `get` in a worker thread."""

    def __init__(self, load: "Callable[[str, GpuUse], TextModel]" = load_checkpoint) -> None:
        self.gpu_use: GpuUse = "all"
        """What models may take of a GPU from now on. Call `forget_misplaced` after a change."""
        self._load = load
        self._loaded: dict[str, TextModel] = {}  # the one used last at the end
        self._loaded_under: GpuUse = "all"
        self._lock = threading.Lock()

    @property
    def references(self) -> list[str]:
        """The references of the models in memory, the last used one at the end."""
        return list(self._loaded)

    def get(self, reference: str, beside: int = 0) -> "TextModel":
        """The model, loaded if it is not in memory. `beside` models are in memory elsewhere and count among the two."""
        with self._lock:
            gpu_use = self._forget_misplaced()
            model = self._loaded.pop(reference, None)
            # Before loading, so that there are never more than allowed.
            self._forget_all_but(MODELS_IN_MEMORY - 1 - beside)
            self._loaded[reference] = model or self._load(reference, gpu_use)
            return self._loaded[reference]

    def make_room(self, models: int) -> None:
        """Forgets the least recently used, so that `models` more fit."""
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


def load_ahead(reference: str, models: ChatModels, post: Callable[[Message], object]) -> None:
    """The body of a worker: loads a model before its first use, and posts whether that worked."""
    try:
        post(ModelReady(reference, ModelFacts.of(models.get(reference))))
    except Exception as error:
        post(ModelUnusable(reference, _message_of(error)))


def answer(
    requests: Sequence[AnswerRequest],
    models: ChatModels,
    post: Callable[[Message], object],
    stop: threading.Event,
) -> None:
    """The body of a worker: answers all requests side by side, one token each in turn, until done or stopped.

    Posts messages, with the tokens in batches about 20 times a second. Raises nothing.
    """
    try:
        live = sum(request.live is not None for request in requests)
        models.make_room(live)
        answers = [_Answer(request, models, post, stop, beside=live) for request in requests]
        active = [one for one in answers if one.begin()]
        while active:
            active = [one for one in active if one.advance()]
    finally:
        for request in requests:
            if request.live is not None:
                request.live.cancel()
        post(AllAnswered())


@dataclass
class _Answer:
    """One answer while it is made."""

    request: AnswerRequest
    models: ChatModels
    post: Callable[[Message], object]
    stop: threading.Event
    beside: int
    statistics: TokenStatistics = field(default_factory=TokenStatistics)
    seconds: float = 0.0
    """Spent on this answer alone, its prompt included."""

    def begin(self) -> bool:
        """Gets the model; returns whether `advance` may be called."""
        self._waiting: list[ShownToken] = []
        self._posted_at = 0.0
        self._tail = ""
        try:
            model = self._model()
            if model is None:
                self.post(AnswerEnded(self.request.number, "stopped"))
                return False
            request = self.request
            self._on_gpu = is_on_gpu(model)
            prompt: str | list[int] = request.prompt
            self._in_own_template = request.asked is not None and model.template is not None
            if request.asked is not None and self._in_own_template:
                prompt = model.prompt_tokens(request.asked, request.history)
            count = model.count_tokens(prompt) if isinstance(prompt, str) else len(prompt)
            self.post(AnswerBegun(request.number, ModelFacts.of(model), count))
            self._tokens = (
                model.stream(prompt, request.sampling, ALTERNATIVES)
                if request.task == "continue"
                else model.score(request.prompt, ALTERNATIVES)
            )
        except Exception as error:
            self.post(AnswerFailed(self.request.number, _message_of(error)))
            return False
        return True

    def advance(self) -> bool:
        """Makes one token; returns whether there may be more."""
        if self.stop.is_set():
            return self._end("stopped")
        started = time.perf_counter()
        try:
            if self._on_gpu and self.models.gpu_use == "none":
                raise ResourceError(
                    "a training starts and needs the GPU's memory; ask again to be answered from the CPU"
                )
            token = next(self._tokens, None)
        except Exception as error:
            self._post_grown()
            self.post(AnswerFailed(self.request.number, _message_of(error)))
            return False
        now = time.perf_counter()
        self.seconds += now - started
        if token is None:
            return self._end(self._natural_ending())
        if token.token >= 0:  # -1: the rest of a character that stayed incomplete
            self.statistics.add(token.probability)
        alternatives = tuple(
            ShownAlternative(alternative.text, alternative.probability) for alternative in token.alternatives
        )
        self._waiting.append(ShownToken(token.text, token.probability, alternatives))
        if self.request.template == "on" and not self._in_own_template:
            self._tail = (self._tail + token.text)[-LONGEST_TAIL:]
            if TURN_END in self._tail:
                return self._end("turn")
        if now - self._posted_at >= SECONDS_BETWEEN_BATCHES:
            self._post_grown()
        return True

    def _model(self) -> "TextModel | None":
        """The model; None when the user stopped while live weights were awaited."""
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
                raise CheckpointError("the training has ended; choose one of its checkpoints") from None
        return None

    def _natural_ending(self) -> Ending:
        if self.request.task == "score":
            return "text"
        if self.statistics.tokens >= self.request.sampling.max_length:
            return "length"
        return "turn" if self._in_own_template else "document"

    def _end(self, ending: Ending) -> bool:
        close = getattr(self._tokens, "close", None)
        if close is not None:
            close()
        self._post_grown()
        self.post(AnswerEnded(self.request.number, ending))
        return False

    def _post_grown(self) -> None:
        self._posted_at = time.perf_counter()
        if self._waiting:
            self.post(AnswerGrew(self.request.number, self._waiting, replace(self.statistics), self.seconds))
            self._waiting = []


def _message_of(error: Exception) -> str:
    """The message of an error; an unexpected one goes to the log with its traceback."""
    if isinstance(error, Gpt2TuiError):
        return str(error)
    log.exception("the chat failed on a bug", exc_info=error)
    return f"{type(error).__name__}: {error}"


# ---- the chat template for a model that has none of its own: a conversation as one text

USER = "User: "
MODEL = "\nAssistant:"
TURN_END = "\nUser:"
"""The model's turn ends where it begins to write the user's."""


def prompt_turn(prompt: str) -> str:
    """A prompt in the template."""
    return f"{USER}{prompt}{MODEL}"


def conversation(history: Sequence[tuple[str, str]], prompt: str) -> str:
    """The text to continue: earlier prompts with their answers, then this prompt."""
    earlier = (f"{prompt_turn(asked)}{cut_at_turn_end(answered)}\n" for asked, answered in history)
    return "".join(earlier) + prompt_turn(prompt)


def cut_at_turn_end(written: str) -> str:
    """What the model wrote in its own turn."""
    return written.partition(TURN_END)[0].rstrip()
