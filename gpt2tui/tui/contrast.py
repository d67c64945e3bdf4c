"""Text and lines that can be read in every theme: colours too close to their background are moved away from it.

The ratios are those of WCAG 2: 4.5 for text, 3 for lines.
"""

from functools import lru_cache

from rich.color import Color as RichColor
from rich.segment import Segment
from rich.style import Style
from textual.color import BLACK, WHITE, Color
from textual.filter import LineFilter

TEXT_CONTRAST, LINE_CONTRAST = 4.5, 3.0
STEPS = 20  # from a colour to black or white


def contrast(one: Color, other: Color) -> float:
    """The contrast ratio of WCAG 2, from 1 to 21."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def least_contrast(text: str) -> float:
    """What is asked of a piece of text: more of letters than of lines, dots and braille, nothing of areas."""
    if not (signs := text.strip().strip(AREAS)):
        return 1.0
    return LINE_CONTRAST if all(_is_line(sign) or sign.isspace() for sign in signs) else TEXT_CONTRAST


AREAS = "".join(map(chr, range(0x2580, 0x25A0)))
"""Blocks, of which scrollbars and bars are made: they are no foreground."""


class ContrastFilter(LineFilter):
    """Gives every cell with a colour of its own enough contrast. Colours of the terminal's own palette stay."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The line with readable colours."""
        return [
            Segment(text, _readable(style, background, least), control)
            if style is not None and style.color is not None and (least := least_contrast(text)) > 1
            else Segment(text, style, control)
            for text, style, control in segments
        ]


@lru_cache(4096)
def _readable(style: Style, background: Color, least: float) -> Style:
    assert style.color is not None
    behind = background if style.bgcolor is None or style.bgcolor.is_default else _plain(style.bgcolor)
    colour = None if style.color.is_default else _plain(style.color)
    if colour is None or behind is None or contrast(colour, behind) >= least:
        return style
    return style + Style.from_color(color=_away_from(behind, colour, least).rich_color)


def _away_from(behind: Color, colour: Color, least: float) -> Color:
    """The colour, moved towards white or black just as far as needed."""
    target = max((BLACK, WHITE), key=lambda end: contrast(end, behind))
    for step in range(1, STEPS):
        moved = colour.blend(target, step / STEPS, alpha=1.0)
        if contrast(moved, behind) >= least:
            return moved
    return target


def _plain(colour: RichColor) -> Color | None:
    """A colour of red, green and blue; None for one of the terminal's palette."""
    return Color(*colour.triplet) if colour.triplet is not None else None


def _is_line(sign: str) -> bool:
    return 0x2500 <= ord(sign) <= 0x257F or 0x2800 <= ord(sign) <= 0x28FF


def _luminance(colour: Color) -> float:
    red, green, blue = (
        channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4
        for channel in (colour.r / 255, colour.g / 255, colour.b / 255)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
