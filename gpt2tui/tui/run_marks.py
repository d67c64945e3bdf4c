"""The marked runs: drawn over each other, each in its colour. No screen."""

from collections.abc import Collection, Sequence

from gpt2tui.tui.run_listing import RunRow

COLOURS = ("primary", "accent", "success", "error", "#cc79a7", "#56b4e9", "#b8a1ff", "#9a8c5c")
"""Names of the theme's colours, and colours that are told from them and from each other."""


class RunMarks:
    """Names of runs in the order of marking, with their colours."""

    def __init__(self) -> None:
        self.colours: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.colours)

    def __contains__(self, name: str) -> bool:
        return name in self.colours

    def toggle(self, name: str) -> bool:
        """Marks a run, or removes its mark; False when all colours are taken."""
        if name in self.colours:
            del self.colours[name]
            return True
        free = [colour for colour in COLOURS if colour not in self.colours.values()]
        if free:
            self.colours[name] = free[0]
        return bool(free)

    def keep(self, names: Collection[str]) -> None:
        """Removes the marks of runs that are not there any more."""
        self.colours = {name: colour for name, colour in self.colours.items() if name in names}

    def clear(self) -> None:
        """Removes all marks."""
        self.colours.clear()

    def colour(self, name: str) -> str:
        """A run's colour; the first one for a run that is not marked."""
        return self.colours.get(name, COLOURS[0])

    def pair(self, rows: Sequence[RunRow], pointed: RunRow | None) -> tuple[RunRow, RunRow] | None:
        """The two runs marked last; with one mark, that one and the one under the cursor."""
        by_name = {row.name: row for row in rows}
        marked = [by_name[name] for name in self.colours if name in by_name]
        if len(marked) == 1 and pointed is not None and pointed.name != marked[0].name:
            marked.append(pointed)
        return (marked[-2], marked[-1]) if len(marked) >= 2 else None
