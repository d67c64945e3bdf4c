"""The two lines at the bottom of a terminal while a run goes on: how far, and how well."""

from rich.text import Text

from gpt2tui.system.numbers import byte_size, compact, duration
from gpt2tui.tracking.run_progress import RunProgress

_SHORTEST_BAR = 6
_GAP = "   "


def status_lines(progress: RunProgress, width: int, seconds_gone: float, unicode: bool = True) -> Text:
    """Two lines of at most `width` cells; where it is narrow the bar goes, and the rightmost numbers."""
    text = Text(no_wrap=True, overflow="crop", end="")
    text.append_text(_how_far(progress, width, seconds_gone, unicode))
    text.append("\n")
    text.append_text(_how_well(progress, width))
    return text


def bar(fraction: float, width: int, unicode: bool = True, style: str = "green") -> Text:
    """A bar of exactly `width` cells; its two parts differ in shape, to be told apart without colour."""
    full, half, empty = ("━", "╸", "─") if unicode else ("=", "", "-")
    halves = round(fraction * width * 2)
    done = full * (halves // 2) + (half if halves % 2 else "")
    return Text.assemble((done, style), (empty * (width - len(done)), "bright_black"))


def _how_far(progress: RunProgress, width: int, seconds_gone: float, unicode: bool) -> Text:
    left = Text.assemble("step ", (f"{progress.step:,}", "bold"), f" of {progress.num_iterations:,} ")
    right = Text.assemble(f" {progress.fraction:4.0%}  ", _time(progress, seconds_gone))
    space = width - left.cell_len - right.cell_len
    style = "yellow" if progress.paused else "green"
    middle = bar(progress.fraction, space, unicode, style) if space >= _SHORTEST_BAR else Text(" " * max(0, space))
    return _fit([left + middle + right], width, "") if space >= 0 else _fit([left.copy(), right], width, "")


def _time(progress: RunProgress, seconds_gone: float) -> tuple[str, str]:
    if progress.paused:
        return "paused", "bold yellow"
    if 0 < progress.num_iterations <= progress.step:
        return "reading the held-out text", ""
    if progress.seconds_left is None:
        return f"{duration(seconds_gone)} so far", ""
    return f"{duration(progress.seconds_left)} left", ""


def _how_well(progress: RunProgress, width: int) -> Text:
    loss = progress.train_loss.value
    if loss is None:
        return _fit([Text("waiting for the first step", style="bright_black")], width, _GAP)
    parts = [Text.assemble("loss ", (f"{loss:.3f}", "bold cyan"))]
    if progress.evaluation is not None:
        bits, xz = progress.evaluation.bits_per_byte, progress.xz_bits_per_byte
        parts.append(Text.assemble((f"{bits:.3f}", "bold magenta"), " bits/byte"))
        if xz:
            parts.append(Text(f"{bits / xz:.2f} of xz"))
    if progress.tokens_per_second is not None:
        parts.append(Text.assemble((compact(progress.tokens_per_second), "bold"), " tokens/s"))
    if progress.memory_bytes is not None:
        parts.append(Text.assemble((byte_size(progress.memory_bytes), "bold"), " memory"))
    return _fit(parts, width, _GAP)


def _fit(parts: list[Text], width: int, gap: str) -> Text:
    """As many of the parts as fit on one line, at least a piece of the first."""
    line = parts[0].copy()
    for part in parts[1:]:
        if line.cell_len + len(gap) + part.cell_len > width:
            break
        line = line + Text(gap) + part
    line.truncate(width)
    return line
