"""A text token by token: prompt dim, continuation bright, or a heat map of the tokens' surprisal."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar, NamedTuple

from rich.cells import cell_len, chop_cells
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.app import RenderResult
from textual.binding import Binding, BindingType
from textual.color import Color
from textual.containers import ScrollableContainer
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from gpt2tui.preset.schema import GPT2_VOCAB_SIZE
from gpt2tui.system.numbers import exact_percent
from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.chat.engine import SMALLEST_PROBABILITY, ShownToken, surprisal

TAB = "    "


class LineSegment(NamedTuple):
    """The part of a token that is on one line; `token` is its index."""

    text: str
    token: int


@dataclass
class TokenLayout:
    """Tokens wrapped to a width; adding more does not wrap the earlier ones again.

    Breaks at newlines, else after the last space that fits, else within a word. White space is kept, for code;
    the space at which a line breaks may be beyond the width.
    """

    width: int

    def __post_init__(self) -> None:
        self.lines: list[list[LineSegment]] = [[]]
        self._column = 0
        self._tokens = 0

    def add(self, texts: Iterable[str]) -> None:
        """Lays out further tokens after those already there."""
        for text in texts:
            for number, part in enumerate(text.replace("\t", TAB).split("\n")):
                if number:
                    self._break()
                self._place(part)
            self._tokens += 1

    @property
    def height(self) -> int:
        """The number of lines."""
        return len(self.lines)

    def place_of(self, token: int) -> tuple[int, int] | None:
        """(line, column) where a token begins; None for one without visible text."""
        for y in range(self.height):
            for found, x in self.starts(y):
                if found == token:
                    return y, x
        return None

    def starts(self, y: int) -> list[tuple[int, int]]:
        """(token, column) of each segment of a line."""
        columns = accumulate((cell_len(segment.text) for segment in self.lines[y]), initial=0)
        return [(segment.token, column) for segment, column in zip(self.lines[y], columns, strict=False)]

    def token_at(self, x: int, y: int) -> int | None:
        """The token at column x of line y, right of the line's end the last one; None when the line has none."""
        if not 0 <= y < len(self.lines):
            return None
        found = None
        for segment in self.lines[y]:
            found = segment.token
            x -= cell_len(segment.text)
            if x < 0:
                break
        return found

    def _place(self, text: str) -> None:
        while text:
            room = self.width - self._column
            if cell_len(text) <= room:
                self._put(text)
                return
            fitting = chop_cells(text, room)[0] if room > 0 else ""
            if cell_len(fitting) > room:  # a wide character in a single column
                fitting = ""
            hanging = text.startswith(" ", len(fitting))
            cut = len(fitting) + 1 if hanging else fitting.rfind(" ") + 1
            if cut == 0:
                if self._carry_word():
                    continue
                cut = len(fitting) or (0 if self._column else 1)  # one word as long as the line
            self._put(text[:cut])
            text = text[cut:]
            self._break()

    def _put(self, text: str) -> None:
        if text:
            self.lines[-1].append(LineSegment(text, self._tokens))
            self._column += cell_len(text)

    def _break(self) -> None:
        self.lines.append([])
        self._column = 0

    def _carry_word(self) -> bool:
        """Moves the unfinished word at the end of the line to a new line; False when it is the whole line."""
        line = self.lines[-1]
        whole = "".join(segment.text for segment in line)
        start = whole.rfind(" ") + 1
        if start == 0 or not whole[:start].strip():  # indentation alone stays with its word
            return False
        carried: list[LineSegment] = []
        while line and len(whole) > start:
            segment = line.pop()
            begin = len(whole) - len(segment.text)
            whole = whole[:begin]
            if begin < start:
                line.append(LineSegment(segment.text[: start - begin], segment.token))
                segment = LineSegment(segment.text[start - begin :], segment.token)
            if segment.text:
                carried.insert(0, segment)
        self.lines.append(carried)
        self._column = sum(cell_len(segment.text) for segment in carried)
        return True


HEAT_STOPS = ("certain", "middle", "surprising")


def heat(probability: float, vocab_size: int) -> float:
    """The position on the heat map's scale: 0 for probability 1, 1 for a surprisal of log2 `vocab_size` bits or more.

    log2 V is the surprisal of every token under a uniform distribution.
    """
    most = math.log2(max(2, vocab_size))
    return max(0.0, min(1.0, -math.log2(max(probability, SMALLEST_PROBABILITY)) / most))


class TokenText(Widget, can_focus=True):
    """Wrapped tokens; while the heat map is on, with a cursor on one of them."""

    DEFAULT_CSS = """
    TokenText { height: auto; width: 1fr; }
    TokenText > .token-text--prompt { color: $text-muted; }
    TokenText > .token-text--written { color: $foreground; }
    TokenText > .token-text--cursor { text-style: reverse bold; }
    TokenText > .token-text--certain { color: $foreground; background: $success 12%; }
    TokenText > .token-text--middle { color: $foreground; background: $warning 40%; }
    TokenText > .token-text--surprising { color: $foreground; background: $error 80%; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "token-text--prompt",
        "token-text--written",
        "token-text--cursor",
        "token-text--certain",
        "token-text--middle",
        "token-text--surprising",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1)", "Token left", show=False),
        Binding("right", "move(1)", "Token right", show=False),
        Binding("up,k", "move_line(-1)", "Line up", show=False),
        Binding("down,j", "move_line(1)", "Line down", show=False),
        Binding("home", "to_end(False)", "First token", show=False),
        Binding("end", "to_end(True)", "Last token", show=False),
    ]

    heat_map: reactive[bool] = reactive(False)
    cursor: reactive[int | None] = reactive(None)

    @dataclass
    class Pointed(Message):
        """The cursor or the mouse is on a token."""

        token_text: "TokenText"
        token: ShownToken

        @property
        def control(self) -> "TokenText":
            """The widget it is in."""
            return self.token_text

    def __init__(self, tokens: Iterable[ShownToken] = (), *, heat_map: bool = False) -> None:
        super().__init__()
        self.tokens: list[ShownToken] = list(tokens)
        self.vocab_size = GPT2_VOCAB_SIZE
        """Of the model; where the scale of the heat map ends."""
        self._layout: TokenLayout | None = None
        self.set_reactive(TokenText.heat_map, heat_map)

    def allow_focus(self) -> bool:
        """Only with the heat map, which has a cursor."""
        return self.heat_map

    def replace(self, tokens: Iterable[ShownToken]) -> None:
        """Shows other tokens."""
        self.tokens = list(tokens)
        self._layout = None
        self.refresh(layout=True)

    def append(self, tokens: Iterable[ShownToken]) -> None:
        """Adds tokens at the end."""
        added = list(tokens)
        self.tokens += added
        if self._layout is None:
            self.refresh(layout=True)
            return
        height = self._layout.height
        self._layout.add(sanitize(token.text) for token in added)
        if self._layout.height == height:
            self.refresh(Region(0, height - 1, self.size.width, 1))
        else:
            self.refresh(layout=True)

    def layout_in(self, width: int) -> TokenLayout:
        """The tokens wrapped to a width; kept until the width changes."""
        if self._layout is None or self._layout.width != width:
            self._layout = TokenLayout(width)
            self._layout.add(sanitize(token.text) for token in self.tokens)
        return self._layout

    def get_content_width(self, container: Size, viewport: Size) -> int:
        """The width of the container."""
        return container.width

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """The number of wrapped lines."""
        return self.layout_in(max(1, width)).height

    def render_line(self, y: int) -> Strip:
        """Draws one line of tokens."""
        width = self.size.width
        layout = self.layout_in(max(1, width))
        if y >= layout.height:
            return Strip.blank(width, self.rich_style)
        style_of = self._styles()
        strip = Strip(Segment(segment.text, style_of(segment.token)) for segment in layout.lines[y])
        return strip.crop(0, width).adjust_cell_length(width, self.rich_style)

    def _styles(self) -> Callable[[int], Style]:
        prompt = self.get_component_rich_style("token-text--prompt")
        written = self.get_component_rich_style("token-text--written")
        cursor = self.get_component_styles("token-text--cursor").text_style
        steps = [self.get_component_styles(f"token-text--{name}") for name in HEAT_STOPS]
        _, ground = self.background_colors
        foreground = steps[0].color
        scale = [(ground + step.background) for step in steps]
        shown_cursor = self.cursor if self.heat_map and self.has_focus else None

        def style_of(number: int) -> Style:
            token = self.tokens[number]
            if token.probability is None:
                style = prompt
            elif self.heat_map:
                colour = _blend(scale, heat(token.probability, self.vocab_size))
                style = Style(color=(colour + foreground).rich_color, bgcolor=colour.rich_color)
            else:
                style = written
            return style + cursor if number == shown_cursor else style

        return style_of

    def watch_heat_map(self, on: bool) -> None:
        """Puts the cursor on the first token that has a probability."""
        if on and self.cursor is None:
            self.cursor = self._nearest(0, 1)
        self._post_pointed()

    def watch_cursor(self, cursor: int | None) -> None:
        """Keeps the cursor's line in view."""
        if cursor is None or not self.is_mounted or not self.size.width:
            return
        if self.has_focus and (place := self.layout_in(self.size.width).place_of(cursor)) is not None:
            self._scroll_into_view(*place)
        self._post_pointed()

    def _scroll_into_view(self, line: int, column: int) -> None:
        for container in self.ancestors:
            if isinstance(container, ScrollableContainer):
                own = self.content_region.offset - container.content_region.offset + container.scroll_offset
                container.release_anchor()  # or the next generated token would scroll to the end again
                container.scroll_to_region(Region(own.x + column, own.y + line, 1, 1), animate=False, force=True)
                return

    def on_focus(self) -> None:
        """Posts the token under the cursor."""
        if self.cursor is None and self.heat_map:
            self.cursor = self._nearest(0, 1)
        self._post_pointed()

    def action_move(self, by: int) -> None:
        """To the next token to the left or to the right."""
        if self.cursor is not None and (found := self._nearest(self.cursor + by, by)) is not None:
            self.cursor = found

    def action_move_line(self, by: int) -> None:
        """A line up or down; beyond the text, focuses the next text."""
        layout = self.layout_in(max(1, self.size.width))
        place = layout.place_of(self.cursor) if self.cursor is not None and self.heat_map else None
        if place is not None:
            y, x = place
            while 0 <= (y := y + by) < layout.height:
                near = [(abs(column - x), token) for token, column in layout.starts(y) if self._can_stand_on(token)]
                if near:
                    self.cursor = min(near)[1]
                    return
        if by < 0:
            self.screen.focus_previous(TokenText)
        else:
            self.screen.focus_next(TokenText)

    def action_to_end(self, last: bool) -> None:
        """To the first or last token."""
        self.cursor = self._nearest(len(self.tokens) - 1, -1) if last else self._nearest(0, 1)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Posts the token under the mouse."""
        token = self.layout_in(max(1, self.size.width)).token_at(event.x, event.y) if self.heat_map else None
        if token is not None and self._can_stand_on(token):
            self.post_message(self.Pointed(self, self.tokens[token]))

    def on_leave(self) -> None:
        """Posts the token under the cursor again."""
        self._post_pointed()

    def on_click(self, event: events.Click) -> None:
        """Puts the cursor under the mouse."""
        token = self.layout_in(max(1, self.size.width)).token_at(event.x, event.y)
        if token is not None and self._can_stand_on(token):
            self.cursor = token

    def _can_stand_on(self, token: int) -> bool:
        return self.tokens[token].probability is not None and self.tokens[token].text != ""

    def _nearest(self, start: int, by: int) -> int | None:
        while 0 <= start < len(self.tokens):
            if self._can_stand_on(start):
                return start
            start += by
        return None

    def _post_pointed(self) -> None:
        if self.heat_map and self.has_focus and self.cursor is not None and self.cursor < len(self.tokens):
            self.post_message(self.Pointed(self, self.tokens[self.cursor]))


def _blend(scale: list[Color], position: float) -> Color:
    """The colour at a position from 0 to 1 on a scale of equally distant colours."""
    scaled = position * (len(scale) - 1)
    lower = min(int(scaled), len(scale) - 2)
    return scale[lower].blend(scale[lower + 1], scaled - lower)


# ---- the token under the cursor and its alternatives

BITS_PER_NAT = 1.4426950408889634
LONGEST_TOKEN = 24


class AlternativesLine(Widget):
    """Two lines: the token with its probability and surprisal, and its five most probable alternatives."""

    DEFAULT_CSS = """
    AlternativesLine { height: 2; padding: 0 2; color: $foreground; background: $surface;
        text-wrap: nowrap; text-overflow: ellipsis; }
    """

    token: reactive[ShownToken | None] = reactive(None)

    def render(self) -> RenderResult:
        """The token above its alternatives, itself marked among them."""
        token = self.token
        muted = Style(dim=True)
        if token is None or token.probability is None:
            return Text("point at a token: the mouse, or esc and then the arrow keys", muted, no_wrap=True)
        nats = surprisal(token.probability)
        line = Text(no_wrap=True, overflow="ellipsis", end="")
        line.append(visible_token(token.text), Style(bold=True, reverse=True))
        line.append(f"  p {exact_percent(token.probability)}")
        line.append(f"  surprisal {nats:.2f} nats, {nats * BITS_PER_NAT:.1f} bits", muted)
        rank = next((n for n, alternative in enumerate(token.alternatives, 1) if alternative.text == token.text), None)
        if token.alternatives:
            line.append(f"  {f'rank {rank}' if rank else f'rank > {len(token.alternatives)}'}", muted)
        line.append("\n")
        for number, alternative in enumerate(token.alternatives):
            written = alternative.text == token.text
            line.append("   " if number else "")
            line.append(visible_token(alternative.text), Style(bold=True, underline=written))
            line.append(f" {exact_percent(alternative.probability)}", muted)
        return line


def visible_token(text: str) -> str:
    """A token on one line, with visible white space, cut to LONGEST_TOKEN characters."""
    shown = sanitize(text[:LONGEST_TOKEN]).replace("\n", "⏎").replace("\t", "⇥").replace(" ", "␣")
    return (shown or "∅") + ("…" if len(text) > LONGEST_TOKEN else "")
