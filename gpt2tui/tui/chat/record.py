"""What was said in the chat, and its Markdown form."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from gpt2tui.preset.schema import SamplingTable
from gpt2tui.system.numbers import compact
from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.chat.engine import Ending, Task, TokenStatistics

ENDINGS: dict[Ending, str] = {
    "document": "end of document",
    "length": "max length",
    "turn": "end of turn",
    "text": "read to the end",
    "stopped": "stopped",
}


@dataclass(frozen=True)
class AnswerRecord:
    """One answer as it is kept: what was asked of which model, and what came of it."""

    model: str
    task: Task
    prompt: str
    text: str
    sampling: SamplingTable
    numbers: str
    failure: str | None = None


def settings_line(sampling: SamplingTable) -> str:
    """`T 0.8 · k 50 · p 0.9 · seed 1337`: what decides the text besides model and prompt."""
    parts = [f"T {sampling.temperature:g}"]
    if sampling.top_k:
        parts.append(f"k {sampling.top_k}")
    if sampling.top_p < 1:
        parts.append(f"p {sampling.top_p:g}")
    return " · ".join([*parts, f"seed {sampling.seed}"])


def numbers_line(
    statistics: TokenStatistics, seconds: float, ending: Ending | None, task: Task, text_bytes: int, vocab_size: int
) -> str:
    """`98 tokens · 43.1 tok/s · mean p 0.41 · perplexity 3.9 · stopped`, and what follows from it.

    tok/s counts the time of this answer alone, its prompt included; the rest is defined in TokenStatistics.
    """
    if not statistics.tokens:
        return ENDINGS[ending] if ending else ""
    parts = [f"{statistics.tokens:,} token{'s' if statistics.tokens != 1 else ''}"]
    if task == "write" and seconds > 0:
        parts.append(f"{compact(statistics.tokens / seconds)} tok/s")
    parts += [f"mean p {statistics.mean_probability:.2f}", f"perplexity {compact(statistics.perplexity or 0)}"]
    if task == "read" and (bits := statistics.bits_per_byte(text_bytes)) is not None:
        parts.append(f"{bits:.2f} bits/byte")
    if ending and ending != "text":
        parts.append(ENDINGS[ending])
    if statistics.is_guessing(vocab_size):
        parts.append(f"hardly better than guessing among {vocab_size:,} tokens: this model has learned little yet")
    return " · ".join(parts)


def notes(task: Task, prompt_tokens: int, n_positions: int) -> str:
    """What one should know before one wonders; empty for an ordinary prompt."""
    if task == "write" and prompt_tokens == 0:
        return "empty prompt: a new document"
    if task == "write" and prompt_tokens > n_positions:
        return f"the prompt is {prompt_tokens:,} tokens: the model sees only the last {n_positions:,}"
    if task == "read" and prompt_tokens > n_positions:
        return f"{prompt_tokens:,} tokens, read in windows of {n_positions:,}"
    return ""


def as_markdown(answers: Sequence[AnswerRecord], when: datetime) -> str:
    """The transcript as a Markdown document; texts stand in fences that nothing in them can end."""
    lines = [f"# A chat with GPT-2, {when:%Y-%m-%d %H:%M}", ""]
    for answer in answers:
        how = settings_line(answer.sampling) if answer.task == "write" else "surprisal of a given text"
        lines += [f"## {_plain(answer.model)}", "", f"{how}", ""]
        if answer.task == "write":
            lines += ["Prompt:" if answer.prompt else "Prompt: (empty, a new document)", ""]
        if answer.prompt:
            lines += [*_fenced(answer.prompt), ""]
        if answer.text:
            lines += ["Continuation:", "", *_fenced(answer.text), ""]
        if answer.failure:
            lines += [f"Failed: {_plain(answer.failure)}", ""]
        if answer.numbers:
            lines += [answer.numbers, ""]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """One line in which no character means anything to Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", sanitize(text, keep_newlines=False))


def _fenced(text: str) -> list[str]:
    text = sanitize(text)
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return [f"{fence}text", text, fence]
