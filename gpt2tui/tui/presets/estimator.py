"""Shows a preset's costs while it is edited: parameters, tokens, memory, FLOPs, time."""

import dataclasses
import textwrap
from collections.abc import Callable, Sequence

from rich.cells import cell_len
from textual.content import Content
from textual.widget import Widget

from gpt2tui.estimate import CHINCHILLA_TOKENS_PER_PARAMETER, Estimate, approximate_duration, memory_text
from gpt2tui.memory_advice import change_of
from gpt2tui.preset.schema import Preset
from gpt2tui.system.numbers import byte_size, compact, counted, exact_percent
from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.presets.costs import Costs

# Muennighoff et al. 2023, section 6: up to about 4 epochs, repeated data is nearly as good as new data.
HARMLESS_EPOCHS = 4
STRIP_WIDTH = 40  # at least this wide and at most STRIP_HEIGHT high, the costs are a strip instead of a column
STRIP_HEIGHT = 7
STRIP_LINES = 4
BAR_WIDTH = 4
MUTED, DIM = "$foreground 65%", "$foreground 45%"

Line = Content


def is_strip(width: int, height: int) -> bool:
    """Whether the costs are shown in a strip rather than in a column at this size."""
    return width >= STRIP_WIDTH and height <= STRIP_HEIGHT


class Estimator(Widget):
    """Draws costs in a column, or in a strip of four lines, or of one, where it is wide and low."""

    DEFAULT_CSS = """
    Estimator { height: 1fr; padding: 0 1; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._preset: Preset | None = None
        self._costs: Costs | None = None
        self._mistakes: tuple[str, ...] = ()

    def show(self, preset: Preset, costs: Costs) -> None:
        """Shows the costs of a valid preset."""
        if (preset, costs, ()) != (self._preset, self._costs, self._mistakes):
            self._preset, self._costs, self._mistakes = preset, costs, ()
            self.refresh()

    def show_mistakes(self, keys: Sequence[str]) -> None:
        """Shows which settings are wrong; the costs of the last valid preset stay, dimmed."""
        if tuple(keys) != self._mistakes:
            self._mistakes = tuple(keys)
            self.refresh()

    def clear(self) -> None:
        """Shows nothing."""
        self._preset, self._costs, self._mistakes = None, None, ()
        self.refresh()

    @property
    def costs(self) -> Costs | None:
        """The costs that are shown."""
        return self._costs

    def render(self) -> Content:
        """The column or the strip, cut to the available height."""
        width, height = self.size.width, self.size.height
        head: list[Line] = []
        if self._mistakes:
            words = f"✗ {counted(len(self._mistakes), 'error')}: {', '.join(self._mistakes)}"
            head = [Content.styled(line, "$text-error bold") for line in _wrap(words, width)[:3]]
        if self._preset is None or self._costs is None:
            return Content("\n").join(head)
        if is_strip(width, height):
            lines = _strip(self._preset, self._costs, width, height)
        else:
            lines = _fitting_column(self._preset, self._costs, width, height - len(head) - bool(head))
            head = [*head, Content("")] if head else []
        if self._mistakes:
            lines = [Content.styled(line.plain, DIM) for line in lines]
        return Content("\n").join([*head, *lines][:height])


def _fitting_column(preset: Preset, costs: Costs, width: int, height: int) -> list[Line]:
    """The column; where it is too high, first without parts of parameters, then parts of memory, then empty lines."""
    for by_part, by_kind in ((True, True), (False, True), (False, False)):
        lines = _column(preset, costs, width, by_part, by_kind)
        if len(lines) <= height:
            return lines
    return [line for line in lines if line.plain]


def _column(preset: Preset, costs: Costs, width: int, by_part: bool, by_kind: bool) -> list[Line]:
    e = costs.estimate
    exact = "" if costs.vocab_size_is_exact else "about "
    lines = [_row("parameters", f"{exact}{e.parameters.total:,}", width, "bold")]
    if by_part:
        lines += _shares(dataclasses.asdict(e.parameters), compact, width)
        lines.append(Content(""))
    lines += [
        _row("tokens/step", f"{e.tokens_per_step:,}", width),
        _row("total tokens", f"{_most(e)}{compact(e.tokens)}", width),
        _row("per parameter", f"{_most(e)}{_short(e.tokens_per_parameter)}", width)
        if e.steps_are_a_bound
        else _barred("per parameter", _short(e.tokens_per_parameter), _chinchilla(e), width),
        _row(" Chinchilla optimum", f"≈ {CHINCHILLA_TOKENS_PER_PARAMETER}{' ' * (BAR_WIDTH + 1)}", width, DIM),
        Content(""),
        _row("memory", memory_text(e), width, _memory_style(e) or "bold"),
    ]
    if by_kind:
        lines += _shares(vars(e.memory), byte_size, width)
    if e.is_too_large:
        advice = f"more than is free: {change_of(preset, e)}"
        lines += [Content.styled(line, "$text-error") for line in _wrap(advice, width)]
    lines += [
        Content(""),
        _row("compute", f"{_most(e)}{_power(e.flops)} FLOPs", width),
        _row("FLOPs/token", _power(e.flops_per_token), width),
        _row("time", _time(costs), width, "bold"),
        _row("", _device(costs), width, DIM),
        Content(""),
        _row("data", _epochs(e), width, _epochs_style(e)),
    ]
    style = "$text-warning" if costs.corpus_missing else DIM
    lines += [Content.styled(line, style) for line in _wrap(_corpus(preset, costs), width)[:4]]
    return lines


def _strip(preset: Preset, costs: Costs, width: int, height: int = STRIP_LINES) -> list[Line]:
    e = costs.estimate
    if height < STRIP_LINES:
        size = compact(e.parameters.total)
        line = Content.assemble(
            (size, "bold"), (" parameters  ", MUTED), (memory_text(e), _memory_style(e) or "bold"),
            ("  time ", MUTED), (_time(costs), "bold"),
        )  # fmt: skip
        return [line.truncate(width, ellipsis=True)]
    about = "" if costs.vocab_size_is_exact else "about "
    memory = f"memory {memory_text(e)}"
    kinds = _largest(vars(e.memory), width - cell_len(memory) - 2)
    memory_style = _memory_style(e) or "bold"
    rows = [
        Content.assemble(
            (f"{about}{e.parameters.total:,}", "bold"), (" parameters  ", MUTED),
            f"{e.tokens_per_step:,}", (" tokens/step, ", MUTED),
            f"{_most(e)}{compact(e.tokens)}", (" in total", MUTED),
        ),
        Content.assemble(
            f"{_most(e)}{_short(e.tokens_per_parameter)}",
            (f" tokens/parameter (Chinchilla ≈ {CHINCHILLA_TOKENS_PER_PARAMETER})  data ", MUTED),
            (_epochs(e), _epochs_style(e)),
        ),
        Content.assemble(("memory ", MUTED), (memory_text(e), memory_style), (f"  {kinds}", MUTED)),
        Content.assemble(
            f"{_most(e)}{_power(e.flops)}", (" FLOPs, time ", MUTED), (_time(costs), "bold"),
            (f" {_device(costs)}", MUTED),
        ),
    ]  # fmt: skip
    return [row.truncate(width, ellipsis=True) for row in rows]


def _row(name: str, value: str, width: int, style: str = "") -> Line:
    gap = max(1, width - cell_len(name) - cell_len(value))
    return Content.assemble((name, MUTED), " " * gap, (value, style or "$foreground"))


def _shares(parts: dict[str, int], shown: Callable[[float], str], width: int) -> list[Line]:
    total = sum(parts.values()) or 1
    return [
        _barred(f" {_name(name)}", shown(value), value / total, width, DIM, MUTED)
        for name, value in parts.items()
        if value
    ]


def _barred(
    name: str, value: str, share: float, width: int, name_style: str = MUTED, value_style: str = "$foreground"
) -> Line:
    """A row that ends in a bar for `share`, from 0 to 1."""
    filled = round(share * BAR_WIDTH)
    gap = " " * max(1, width - cell_len(name) - cell_len(value) - BAR_WIDTH - 1)
    bar = (f" {'━' * filled}", "$primary"), ("─" * (BAR_WIDTH - filled), "$foreground 12%")
    return Content.assemble((name, name_style), gap, (value, value_style), *bar)


def _name(kind: str) -> str:
    return kind.replace("_", " ")


def _chinchilla(e: Estimate) -> float:
    """The run's tokens as a fraction of Chinchilla's optimum, at most 1."""
    return min(1.0, e.tokens_per_parameter / CHINCHILLA_TOKENS_PER_PARAMETER)


def _short(value: float) -> str:
    return compact(value) if value >= 0.001 else f"{value:.1g}"


def _largest(kinds: dict[str, int], room: int) -> str:
    """The largest kinds of memory, as many as fit into `room` characters."""
    text = ""
    for kind, size in sorted(kinds.items(), key=lambda item: -item[1]):
        longer = f"{text}, {_name(kind)} {byte_size(size)}".removeprefix(", ")
        if not size or len(longer) > room:
            break
        text = longer
    return text


def _power(value: float) -> str:
    """Two digits and a power of ten, as in `6.2e13`."""
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits}e{int(power)}"


def _most(e: Estimate) -> str:
    """Before a number that follows from the steps."""
    return "at most " if e.steps_are_a_bound else ""


def _memory_style(e: Estimate) -> str:
    return "$text-error bold" if e.is_too_large else ""


def _time(costs: Costs) -> str:
    e = costs.estimate
    if e.seconds is None:
        return "not known"
    return f"{'at most' if e.seconds_are_a_bound else 'about'} {approximate_duration(e.seconds)}"


def _device(costs: Costs) -> str:
    e = costs.estimate
    return sanitize(f"on {e.device}, {e.precision}" if e.device else costs.device_problem, keep_newlines=False)


def _epochs(e: Estimate) -> str:
    if e.epochs is None:
        return "size not known"
    if e.epochs <= 1:
        return f"{_most(e)}{exact_percent(e.epochs)} of an epoch"
    return f"{_most(e)}{counted(e.epochs, 'epoch')}"


def _epochs_style(e: Estimate) -> str:
    return "$text-warning" if e.epochs is not None and e.epochs > HARMLESS_EPOCHS else "$foreground"


def _corpus(preset: Preset, costs: Costs) -> str:
    return f"{preset.data.source}: {costs.corpus}"


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(sanitize(text, keep_newlines=False), max(width, 8))
