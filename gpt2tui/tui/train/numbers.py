"""The numbers panel of a run: one row per number, with its definition as a tooltip."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from gpt2tui.preset.schema import Preset
from gpt2tui.system.numbers import (
    byte_size,
    compact,
    counted,
    duration,
    gradient_norm,
    learning_rate,
    percent,
    steps_of,
)
from gpt2tui.system.terminal_text import sanitize
from gpt2tui.training.schedules import learning_rate as scheduled
from gpt2tui.training.schedules import phase
from gpt2tui.tui.train.view import DisplayedRun

_KEY_WIDTH = 8
_VALUE_WIDTH = 8
_BAR_WIDTH = 6

DEFINITIONS = {
    "train": "The training loss: the mean cross-entropy of the step's tokens in nats, smoothed over about the last 20 "
    "steps. Uniform probabilities over the V tokens of the vocabulary give ln V.",
    "val": "The validation loss: the same mean over eval_tokens tokens of text that the model never trains on, always "
    "the same tokens; at the end of the run over all of the validation text. best val: the lowest so far.",
    "bits/B": "Bits per byte: how many bits the model needs for a byte of the validation text. It compares models with "
    "different tokenizers, and with `xz -9` on all of the validation text; behind the slash xz that has read the "
    "training text before, as the model has: the fair comparison (left out for a training text over 16 MB). ratio is "
    "bits/B divided by that of xz.",
    "lr": "The learning rate of AdamW at this step, and the phase of its schedule.",
    "grad": "The gradient norm before clipping, and the share of the last 1,000 steps in which it exceeded "
    "optimizer.grad_clip and was scaled down to it.",
    "speed": "Tokens trained per second and the time of a step: the median of the last 50 steps, without evaluations "
    "and pauses. MFU: model FLOPs per second as a share of the GPU's stated peak.",
    "memory": "GPU memory that torch has allocated, and the most that it has reserved; without a GPU, the resident "
    "memory of the process.",
    "ckpt": "The newest checkpoint: its step, how long ago it was saved, and its size on disk.",
    "wandb": "The mode of Weights & Biases, and the rows sent to it: one per step and one per evaluation.",
    "data": "The corpus, and the epochs of its training text so far, estimated from the mean bytes per token.",
}


@dataclass(frozen=True)
class Number:
    """A row of the panel: a bold `value` and a muted `note`; `style` names a theme colour."""

    key: str
    value: str
    note: str = ""
    style: str = ""
    fraction: float | None = None
    """From 0 to 1, for a bar."""


def numbers(view: DisplayedRun, now: float | None = None) -> list[Number]:
    """All rows, in the order of `DEFINITIONS`; an unknown value is a dash."""
    now = time.time() if now is None else now
    return [
        _train(view), _val(view), _bits_per_byte(view), _learning_rate(view), _grad_norm(view), _speed(view),
        _memory(view), _checkpoint(view, now), _wandb(view), _data(view),
    ]  # fmt: skip


def two_lines(view: DisplayedRun, now: float | None = None) -> tuple[list[Number], list[Number]]:
    """The numbers with short notes in two lines, for a narrow screen."""
    by_key = {number.key: number for number in numbers(view, now)}
    short = {key: Number(key, n.value, _short_note(key, n.note), n.style) for key, n in by_key.items()}
    return (
        [short[key] for key in ("train", "val", "bits/B", "lr", "grad")],
        [short[key] for key in ("speed", "memory", "ckpt", "wandb", "data")],
    )


def one_line(view: DisplayedRun) -> list[Number]:
    """A few numbers for a very small screen, the most important first."""
    history = view.history
    progress = history.progress
    found = [_train(view), _val(view), Number("step", steps_of(progress.step, progress.num_iterations)), _speed(view)]
    if progress.seconds_left is not None and history.ending is None:
        found.append(Number("left", duration(progress.seconds_left)))
    return [Number(n.key, n.value, "", n.style) for n in found]


def age(seconds: float) -> str:
    """How long ago: `12 s`, `3 min`, `2 h 05`, `4 d`."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02}"
    return f"{whole // 86_400} d"


def _train(view: DisplayedRun) -> Number:
    loss = view.history.progress.train_loss.value
    vocab_size = view.preset.model.vocab_size if view.preset else None
    note = f"uniform guess: ln V = {math.log(vocab_size):.2f}" if vocab_size else ""
    return Number("train", _digits(loss), note, "primary")


def _val(view: DisplayedRun) -> Number:
    last, best = view.history.evaluation, view.history.best
    if last is None:
        return Number("val", "–", _first_evaluation(view), "success")
    note = f"@{last.step:,}"
    if last.whole:
        note += ", over all validation text"
    elif last.best:
        note += ", best val"
    elif best is not None:
        note += f", best val {best.val_loss:.3f} @{best.step:,}"
    elif (known := view.history.progress.best_val_loss) is not None:
        note += f", best val {known:.3f}"
    return Number("val", _digits(last.val_loss), note, "success")


def _first_evaluation(view: DisplayedRun) -> str:
    if view.preset is None or view.history.started is None:
        return ""
    if view.history.ending is not None:
        return "not measured"
    frequency = view.preset.training.eval_frequency
    if not frequency:
        words = "measured at the end"
    else:
        words = f"first at {(view.history.progress.step // frequency + 1) * frequency:,}"
    return f"{words}; e: now" if view.takes_requests else words


def _bits_per_byte(view: DisplayedRun) -> Number:
    last, progress = view.history.evaluation, view.history.progress
    if last is not None:
        note = progress.xz_comparison(last.bits_per_byte, short=True)
    else:
        note = progress.xz_comparison(math.nan, short=True).partition(",")[0]
    return Number("bits/B", _digits(last.bits_per_byte if last else None), note, "success")


def _learning_rate(view: DisplayedRun) -> Number:
    step = view.history.step
    if step is None:
        return Number("lr", "–")
    note = schedule_phase(view.preset, step.step, view.history.learning_rate_factor) if view.preset else ""
    factor = view.history.learning_rate_factor
    changed = [mark.step for mark in view.history.marks if mark.kind == "learning rate"]
    if view.preset is not None and view.history.ending is None and changed and changed[-1] == step.step:
        coming, words = scheduled(view.preset, step.step) * factor, schedule_phase(view.preset, step.step)
        note = f"→ {learning_rate(coming)} (× {factor:g})  {words}"
    return Number("lr", learning_rate(step.learning_rate), note)


def _grad_norm(view: DisplayedRun) -> Number:
    step, share = view.history.step, view.history.clipped_fraction
    if step is None:
        return Number("grad", "–")
    note = "not clipped" if view.preset and not view.preset.optimizer.grad_clip else ""
    if share is not None:
        note = f"clipped in {percent(share)} of steps"
    return Number("grad", gradient_norm(step.grad_norm), note, "warning" if share is not None and share > 0.5 else "")


def _speed(view: DisplayedRun) -> Number:
    progress, step = view.history.progress, view.history.step
    if progress.tokens_per_second is None or progress.seconds_per_step is None:
        return Number("speed", "–")
    note = f"{_step_time(progress.seconds_per_step)}/step"
    if step is not None and step.mfu is not None:
        note += f"  MFU {percent(step.mfu)}"
    return Number("speed", f"{compact(progress.tokens_per_second)} tok/s", note)


def _step_time(seconds: float) -> str:
    milliseconds = seconds * 1000
    return f"{milliseconds:.0f} ms" if milliseconds < 10_000 else f"{seconds:.1f} s"


def _memory(view: DisplayedRun) -> Number:
    used, peak, total = view.history.progress.memory_bytes, view.history.peak_memory_bytes, view.memory_total_bytes
    if used is None:
        return Number("memory", "–")
    if not total:
        return Number("memory", byte_size(used), f"peak {byte_size(peak)}" if peak is not None else "")
    number, _, unit = byte_size(used).partition(" ")
    whole, _, whole_unit = byte_size(total).partition(" ")
    value = f"{number} of {whole} {unit}" if unit == whole_unit else f"{number} {unit} of {whole} {whole_unit}"
    note = f"peak {byte_size(peak).removesuffix(f' {whole_unit}')}" if peak is not None else ""
    return Number("memory", value, note, "error" if used > 0.9 * total else "", fraction=min(1.0, used / total))


def _checkpoint(view: DisplayedRun, now: float) -> Number:
    saved = view.history.checkpoint
    if saved is None:
        return Number("ckpt", "none", "k: save one now" if view.takes_requests else "")
    return Number("ckpt", f"@{saved.step:,}", f"{age(now - saved.time)} ago, {byte_size(saved.bytes)}")


def _wandb(view: DisplayedRun) -> Number:
    if view.preset is None:
        return Number("wandb", "–")
    mode = view.preset.tracking.wandb
    return Number("wandb", "off") if mode == "disabled" else Number("wandb", mode, counted(view.history.logged, "row"))


def _data(view: DisplayedRun) -> Number:
    if view.preset is None:
        return Number("data", "–")
    source = sanitize(view.preset.data.source, keep_newlines=False).rstrip("/").rpartition("/")[2]
    return Number("data", source, _seen(view))


def _seen(view: DisplayedRun) -> str:
    step, bytes_per_token = view.history.step, view.history.bytes_per_token
    if step is None:
        return ""
    if not view.train_bytes or bytes_per_token is None:
        return f"{compact(step.tokens_seen)} tokens seen"
    return f"{counted(step.tokens_seen * bytes_per_token / view.train_bytes, 'epoch')} seen"


def _short_note(key: str, note: str) -> str:
    """The part of a note that is shown in two lines."""
    if key in ("train", "lr", "wandb", "data"):
        return ""
    if key == "grad":
        return note.replace("clipped in ", "clip ").replace(" of steps", "")
    return note.partition(", ")[0] if key in ("val", "bits/B", "ckpt") else note


def _digits(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


# ---- the phase of the schedule, in words


def schedule_phase(preset: Preset, step: int, factor: float = 1.0) -> str:
    """The phase of the schedule at the update that made `step`; `factor` is the user's multiplier."""
    now, name = phase(preset, step - 1), preset.schedule.name
    if now.name == "warm-up":
        words = f"warm-up {step:,}/{now.last + 1:,}"
    elif name == "constant":
        words = "constant"
    elif name == "wsd":
        words = f"stable until {now.last + 1:,}" if now.name == "constant" else f"decays until {now.last + 1:,}"
    else:
        decayed = now.progress(step - 1) if now.name == "decay" else 0.0
        words = f"{name} decay, {percent(decayed)} done"
    return words if factor == 1.0 else f"{words}, × {factor:g}"


# ---- the widgets


class NumbersPanel(Vertical):
    """A row for each number, with its definition as a tooltip."""

    DEFAULT_CSS = """
    NumbersPanel {
        height: auto;
        border: round $panel-lighten-2;
        border-title-color: $text-muted;
        padding: 0 1;
    }
    NumbersPanel Static { height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._titles: tuple[Content, Content] | None = None

    def compose(self) -> ComposeResult:
        """One line for each number."""
        for key, definition in DEFINITIONS.items():
            row = Static("", markup=False, classes="number")
            row.tooltip = Content(f"{key}: {definition}")
            yield row

    def show(self, view: DisplayedRun, title: Content, note: Content) -> None:
        """Draws the numbers, with the title and the note on the border."""
        if (title, note) != self._titles:
            self._titles = (title, note)
            self.border_title, self.border_subtitle = title, note
        for row, number in zip(self.query(".number").results(Static), numbers(view), strict=True):
            content = _row(number)
            if row.content != content:
                row.update(content, layout=False)  # no layout, which would slow the training down: the size is fixed


class NumbersStrip(Static):
    """The numbers in two lines, or in one."""

    DEFAULT_CSS = """
    NumbersStrip { height: auto; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__("", id=id, markup=False)
        self._rows = 0
        self.tooltip = Content("\n".join(f"{key}: {definition}" for key, definition in DEFINITIONS.items()))

    def show(self, view: DisplayedRun, lines: int) -> None:
        """Draws the numbers in two lines, or in one."""
        width = self.content_size.width or 1
        rows = two_lines(view) if lines > 1 else (one_line(view),)
        content = Content("\n").join(_fitting(row, width) for row in rows)
        if self.content != content:
            before, self._rows = self._rows, len(rows)
            self.update(content, layout=len(rows) != before)


def _row(number: Number) -> Content:
    parts: list[Content] = [
        Content.styled(f"{number.key:<{_KEY_WIDTH}}", "$foreground-muted"),
        _value(number, _VALUE_WIDTH),
    ]
    if number.fraction is not None:
        filled = round(number.fraction * _BAR_WIDTH)
        parts.append(Content.styled(" " + "━" * filled, f"${number.style or 'primary'}"))
        parts.append(Content.styled("━" * (_BAR_WIDTH - filled), "$panel-lighten-2"))
    if number.note:
        parts.append(Content.styled(f"  {number.note}", "$foreground-muted"))
    return Content("").join(parts)


def _value(number: Number, width: int = 0) -> Content:
    style = f"bold ${number.style}" if number.style else "bold"
    return Content.styled(f"{number.value:<{width}}", style)


def _fitting(row: Sequence[Number], width: int) -> Content:
    """As many numbers as fit on a line, then as many of their notes."""
    parts: list[Content] = []
    for number in row:
        if _length([*parts, _short(number, False)]) > width and parts:
            break
        parts.append(_short(number, False))
    for index, number in enumerate(row[: len(parts)]):
        longer = [*parts[:index], _short(number, True), *parts[index + 1 :]]
        if _length(longer) <= width:
            parts = longer
    return Content("  ").join(parts)


def _length(parts: Sequence[Content]) -> int:
    return sum(part.cell_length for part in parts) + 2 * (len(parts) - 1)


def _short(number: Number, with_note: bool) -> Content:
    note = f" {number.note}" if with_note and number.note else ""
    return Content.assemble((f"{number.key} ", "$foreground-muted"), _value(number), (note, "$foreground-muted"))
