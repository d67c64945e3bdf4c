"""WikiText's rows are the lines of its articles (Merity et al. 2016); here they become articles again."""

from collections.abc import Iterator

from gpt2tui.data.corpus import Position, Split
from gpt2tui.data.rows import RowSource


class WikiTextArticles(RowSource):
    """One row for each article; it begins with its title, ` = Title = `, and ends before the next one's."""

    def __init__(self, lines: RowSource) -> None:
        self.name = lines.name
        self.fingerprint = lines.fingerprint
        self.has_validation = lines.has_validation
        self.has_test = lines.has_test
        self._lines = lines

    def size(self, split: Split) -> int | None:
        """The size of the lines."""
        return self._lines.size(split)

    def rows(self, split: Split, start: Position = None) -> Iterator[tuple[str, Position]]:
        """A position is that of the title's line."""
        article: list[str] = []
        before, previous, has_text = start, "", False
        for line, after in self._lines.rows(split, start):
            if has_text and not previous.strip() and is_title(line):
                yield "".join(article), before
                article, has_text = [], False
            # The data set stores empty lines as nothing; the published files have a space and a line end
            # there.
            article.append(line or " \n")
            has_text = has_text or bool(line.strip())
            before, previous = after, line
        if article:
            yield "".join(article), before


def is_title(line: str) -> bool:
    """Whether the line is a heading of the first level; deeper ones have more equals signs."""
    inside = line.strip()
    return len(inside) > 4 and inside.startswith("= ") and inside.endswith(" =") and not inside.startswith("= =")
