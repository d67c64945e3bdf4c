"""The texts about an answer: its settings, statistics and notes, and the transcript as Markdown."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from gpt2tui.preset.schema import SamplingTable
from gpt2tui.system.numbers import compact, counted
from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.chat.engine import Ending, Task, TokenStatistics

ENDINGS: dict[Ending, str] = {
    "document": "end of document",
    "length": "max length",
    "turn": "end of turn",
    "text": "scored to the end",
    "stopped": "stopped",
}


@dataclass(frozen=True)
class AnswerRecord:
    """One answer for saving."""

    model: str
    task: Task
    prompt: str
    text: str
    sampling: SamplingTable
    numbers: str
    failure: str | None = None


def settings_line(sampling: SamplingTable) -> str:
    """`T 0.8 · k 50 · p 0.9 · seed 1337`: what determines the text, with the model and the prompt."""
    parts = [f"T {sampling.temperature:g}"]
    if sampling.top_k:
        parts.append(f"k {sampling.top_k}")
    if sampling.top_p < 1:
        parts.append(f"p {sampling.top_p:g}")
    return " · ".join([*parts, f"seed {sampling.seed}"])


def numbers_line(
    statistics: TokenStatistics, seconds: float, ending: Ending | None, task: Task, text_bytes: int, vocab_size: int
) -> str:
    """`98 tokens · 43.1 tok/s · mean p 0.41 · perplexity 3.9 · stopped`.

    tok/s counts the time of this answer alone, its prompt included; TokenStatistics defines the rest. bits/byte are of
    the scored passage alone, not of a validation set.
    """
    if not statistics.tokens:
        return ENDINGS[ending] if ending else ""
    parts = [counted(statistics.tokens, "token")]
    if task == "continue" and seconds > 0:
        parts.append(f"{compact(statistics.tokens / seconds)} tok/s")
    parts += [f"mean p {statistics.mean_probability:.2f}", f"perplexity {compact(statistics.perplexity or 0)}"]
    if task == "score" and (bits := statistics.bits_per_byte(text_bytes)) is not None:
        parts.append(f"{bits:.2f} bits/byte of this passage")
    if ending and ending != "text":
        parts.append(ENDINGS[ending])
    if statistics.is_guessing(vocab_size):
        parts.append(f"loss near ln {vocab_size:,}, that of a uniform distribution: this model has learned little yet")
    return " · ".join(parts)


def prompt_notes(task: Task, prompt_tokens: int, context_length: int) -> str:
    """What is unusual about a prompt or text: empty, or longer than the context; else empty."""
    if task == "continue" and prompt_tokens == 0:
        return "empty prompt: a new document"
    if task == "continue" and prompt_tokens > context_length:
        return f"the prompt is {counted(prompt_tokens, 'token')}: the model sees only the last {context_length:,}"
    if task == "score" and prompt_tokens > context_length:
        return f"{counted(prompt_tokens, 'token')}, scored in windows of {context_length:,}"
    return ""


def transcript_markdown(answers: Sequence[AnswerRecord], when: datetime) -> str:
    """The transcript as a Markdown document; each text in a fence longer than any fence inside it."""
    lines = [f"# A chat with GPT-2, {when:%Y-%m-%d %H:%M}", ""]
    for answer in answers:
        how = settings_line(answer.sampling) if answer.task == "continue" else "surprisal of a given text"
        lines += [f"## {_escaped(answer.model)}", "", f"{how}", ""]
        if answer.task == "continue":
            lines += ["Prompt:" if answer.prompt else "Prompt: (empty, a new document)", ""]
        if answer.prompt:
            lines += [*_fenced(answer.prompt), ""]
        if answer.text:
            lines += ["Continuation:", "", *_fenced(answer.text), ""]
        if answer.failure:
            lines += [f"Failed: {_escaped(answer.failure)}", ""]
        if answer.numbers:
            lines += [answer.numbers, ""]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """One line with Markdown's special characters escaped."""
    return re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", sanitize(text, keep_newlines=False))


def _fenced(text: str) -> list[str]:
    text = sanitize(text)
    longest = max((len(ticks) for ticks in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return [f"{fence}text", text, fence]
