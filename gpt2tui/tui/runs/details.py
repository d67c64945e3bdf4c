"""The pane beside the curves: the facts of one run, or the differences between the presets of two."""

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from gpt2tui.preset.schema import Preset
from gpt2tui.preset.settings import Difference
from gpt2tui.run.folder import is_of_this_machine
from gpt2tui.run.manifest import origin_of
from gpt2tui.run.state import BESIDE_STATE
from gpt2tui.system.numbers import byte_size, compact, counted, duration
from gpt2tui.system.terminal_text import printable, sanitize
from gpt2tui.tui.runs.library import RunContents, RunRow
from gpt2tui.tui.runs.sweeps import SweepRow
from gpt2tui.tui.runs.table import MARK

LONGEST_SAMPLE = 1000
LONGEST_VALUE = 60


class Fact(Protocol):
    """Adds a line with a label and its parts."""

    def __call__(self, label: str, *parts: str | None, style: str = "") -> None:
        """Adds nothing when all parts are unknown."""


class RunDetails(VerticalScroll):
    """A pane of text with a title."""

    def compose(self) -> ComposeResult:
        """One block of text."""
        yield Static("", markup=False)

    def show_run(self, row: RunRow, contents: RunContents | None) -> None:
        """The facts of a run; `contents` is None until the run has been read."""
        self._show(printable(row.name), _facts(row, contents))

    def show_sweep(self, row: SweepRow, colours: Mapping[str, str]) -> None:
        """The runs of a sweep, the best first; `colours` are those of the curves."""
        self._show(f"sweep {printable(row.name)}", _sweep_table(row, colours))

    def show_difference(
        self, left: tuple[str, str], right: tuple[str, str], differences: Sequence[Difference] | None
    ) -> None:
        """Two presets, each as (run name, colour); `differences` is None where a preset cannot be read."""
        self._show("difference of presets", _difference_table(left, right, differences))

    def show_waiting(self, title: str) -> None:
        """Says that the run is being read."""
        self._show(title, Text("loading", style="dim"))

    def show_nothing(self) -> None:
        """Empties the pane: there is no run under the cursor."""
        self._show("", Text())

    def _show(self, title: str, body: RenderableType) -> None:
        new = str(self.border_title or "") != title
        self.border_title = Content(title)
        self.query_one(Static).update(body)
        if new:
            self.scroll_home(animate=False)


def _grid() -> Table:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(width=9, no_wrap=True, style="dim")
    grid.add_column(ratio=1, overflow="fold")
    return grid


def _facts(row: RunRow, contents: RunContents | None) -> Table:
    s, grid = row.summary, _grid()

    def fact(label: str, *parts: str | None, style: str = "") -> None:
        known = [part for part in parts if part]
        if known:
            grid.add_row(label, Text("  ".join(known), style=style))

    if s.message:
        fact("failed" if row.state == "failed" else "message", sanitize(s.message), style="bold")
    fact("preset", printable(s.preset or ""))
    if s.started is not None:
        fact("started", f"{datetime.fromtimestamp(s.started):%Y-%m-%d %H:%M}")
    if s.seconds is not None:
        step = contents.history.step if contents else None
        speed = f"{compact(step.tokens_per_second)} tokens/s" if step and step.tokens_per_second else None
        fact("time", duration(s.seconds), speed)
    best = contents.history.best if contents else None
    fact(
        "best val",
        None if s.best_val_loss is None else f"{s.best_val_loss:.4f}",
        f"at step {best.step:,}" if best else None,
    )
    alone, _, after = s.xz_comparison.partition("; ")
    fact(
        "bits/byte",
        None if s.bits_per_byte is None else f"{s.bits_per_byte:.3f}",
        alone,
    )
    fact("", after.replace("after the training text", "after training"))
    if contents is None:
        fact("", "loading", style="dim")
        return grid
    if contents.preset is not None:
        for label, text in _preset_facts(contents.preset):
            fact(label, text)
    _run_facts(row, contents, fact)
    return grid


def _sweep_table(row: SweepRow, colours: Mapping[str, str]) -> RenderableType:
    s, facts = row.summary, _grid()
    states = Counter(each.state for each in row.runs)
    facts.add_row("runs", ", ".join(f"{count} {state}" for state, count in states.most_common()))
    if s.preset:
        facts.add_row("preset", printable(s.preset))
    if s.seconds is not None:
        facts.add_row("time", f"{duration(s.seconds)}  {byte_size(s.bytes)}")
    facts.add_row("folder", printable(str(row.run.folder)))
    ranking = Table(box=None, padding=(0, 1, 0, 0), expand=True, header_style="dim")
    ranking.add_column("  run, the best first", ratio=1, overflow="fold")
    ranking.add_column("best val", justify="right")
    ranking.add_column("bits/byte", justify="right")
    for each in row.best_first:
        name = Text.assemble((f"{MARK if each.name in colours else ' '} ", colours.get(each.name, "")))
        name.append(printable(each.run.folder.name))
        if each.state != "finished":
            name.append(f" {each.state}", "dim")
        best, bits = each.summary.best_val_loss, each.summary.bits_per_byte
        ranking.add_row(name, "" if best is None else f"{best:.4f}", "" if bits is None else f"{bits:.3f}")
    return Group(facts, Text(), ranking)


def _preset_facts(preset: Preset) -> list[tuple[str, str]]:
    model, training, optimizer = preset.model, preset.training, preset.optimizer
    rate = f"lr {optimizer.lr:g}" + (f", muon {optimizer.muon_lr:g}" if optimizer.name == "muon" else "")
    vocabulary = f"  {model.vocab_size:,} tokens" if model.vocab_size else ""
    return [
        ("model", f"{counted(model.n_layer, 'layer')} × {model.n_embd}  {counted(model.n_head, 'head')}{vocabulary}"),
        ("data", f"{printable(preset.data.source, 200)}  {preset.data.tokenizer}"),
        ("optimizer", f"{optimizer.name}  {rate}  {preset.schedule.name}"),
        (
            "step",
            f"{compact(preset.tokens_per_step)} tokens = {training.batch_size * training.gradient_accumulation}"
            f" × {training.sequence_length}",
        ),
    ]


def _run_facts(row: RunRow, contents: RunContents, fact: Fact) -> None:
    started, info = contents.history.started, contents.info
    with contextlib.suppress(KeyError, TypeError, ValueError):
        if origin := origin_of(info):
            fact("from", printable(str(origin)), f"sha256 {printable(origin.sha256[:12])}")
    if started is not None:
        fact("device", printable(started.device), printable(started.precision))
    if "pid" in info:
        machine = "this machine" if is_of_this_machine(info) else "another machine"
        fact("process", f"{printable(str(info['pid']))} on {machine}", BESIDE_STATE if row.elsewhere else None)
    if saved := contents.checkpoints:
        steps = ", ".join(f"{c.step:,}" for c in saved[-4:])
        fact("saved", f"step {'… ' if len(saved) > 4 else ''}{steps}", byte_size(sum(c.bytes for c in saved)))
    fact("folder", printable(str(contents.run.folder)))
    fact("repeat", printable(contents.repeat))
    for problem in contents.problems:
        fact("problem", sanitize(problem), style="bold")
    if contents.history.samples:
        sample = contents.history.samples[-1]
        text = sanitize(sample.prompt + sample.text)[:LONGEST_SAMPLE].expandtabs(4)
        fact("sample", text, style="italic")


def _difference_table(
    left: tuple[str, str], right: tuple[str, str], differences: Sequence[Difference] | None
) -> RenderableType:
    if differences is None:
        return Text("The preset of one of the two runs cannot be read.")
    names = Text("\n").join(Text(f"{MARK} {printable(name)}", style=colour) for name, colour in (left, right))
    settings = [d for d in differences if d.key != "description"]
    if not settings:
        return Group(names, Text("\nBoth trained with the same settings."))
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(ratio=1, overflow="fold")
    table = ""
    for d in settings:
        head, _, key = d.key.rpartition(".")
        if head != table:
            grid.add_row(Text(f"[{head}]", style="bold"), "")
            table = head
        grid.add_row(key, Text.assemble((_value_text(d.left), left[1]), " → ", (_value_text(d.right), right[1])))
    return Group(names, Text(), grid)


def _value_text(value: object) -> str:
    match value:
        case None:
            return "not set"
        case bool():
            return str(value).lower()
        case str():
            return printable(value, LONGEST_VALUE) or '""'
        case _:
            return printable(str(value), LONGEST_VALUE)
