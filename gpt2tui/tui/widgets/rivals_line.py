"""What stood under the cursor of the heat map, and what could have stood there instead."""

from rich.style import Style
from rich.text import Text
from textual.app import RenderResult
from textual.reactive import reactive
from textual.widget import Widget

from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.chat_statistics import surprise
from gpt2tui.tui.shown_token import ShownToken

BITS_A_NAT = 1.4426950408889634
LONGEST_TOKEN = 24
BAR_WIDTH = 8


class RivalsLine(Widget):
    """Two lines: the token with its probability and surprise, and its five likeliest rivals."""

    DEFAULT_CSS = """
    RivalsLine { height: 2; padding: 0 2; color: $foreground; background: $surface;
        text-wrap: nowrap; text-overflow: ellipsis; }
    """

    token: reactive[ShownToken | None] = reactive(None)

    def render(self) -> RenderResult:
        """The token above its rivals; the one that was written is marked."""
        token = self.token
        muted = Style(dim=True)
        if token is None or token.probability is None:
            return Text("point at a token: arrow keys in the text, or the mouse", muted, no_wrap=True)
        nats = surprise(token.probability)
        line = Text(no_wrap=True, overflow="ellipsis", end="")
        line.append(visible(token.text), Style(bold=True, reverse=True))
        line.append(f"  p {percent(token.probability)}")
        line.append(f"  surprise {nats:.2f} nats, {nats * BITS_A_NAT:.1f} bits", muted)
        rank = next((n for n, rival in enumerate(token.rivals, 1) if rival.text == token.text), None)
        if token.rivals:
            line.append(f"  {'likeliest' if rank == 1 else f'rank {rank}' if rank else 'below the likeliest'}", muted)
        line.append("\n")
        for number, rival in enumerate(token.rivals):
            written = rival.text == token.text
            line.append("   " if number else "")
            line.append(visible(rival.text), Style(bold=True, underline=written))
            line.append(f" {percent(rival.probability)}", muted)
        return line


def visible(text: str) -> str:
    """A token with its white space to be seen, short, and on one line."""
    shown = sanitize(text[:LONGEST_TOKEN]).replace("\n", "⏎").replace("\t", "⇥").replace(" ", "␣")
    return (shown or "∅") + ("…" if len(text) > LONGEST_TOKEN else "")


def percent(probability: float) -> str:
    """`97 %`, `3.1 %`, `0.02 %`, `<0.01 %`."""
    value = 100 * probability
    if 0 < value < 0.01:
        return "<0.01 %"
    digits = 0 if value >= 9.95 else 1 if value >= 0.95 else 2
    return f"{value:.{digits}f} %"
