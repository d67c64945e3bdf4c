"""The Runs screen: every run, its curves beside others', and what one can do with it."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widgets import Button, Input
from textual.worker import Worker, WorkerState

from gpt2tui.errors import Gpt2TuiError
from gpt2tui.preset_files import LoadedPreset
from gpt2tui.terminal_text import sanitize
from gpt2tui.tracking.number_format import byte_size
from gpt2tui.tui.messages import RunsChanged
from gpt2tui.tui.preset_difference import difference
from gpt2tui.tui.run_commands import resume_command
from gpt2tui.tui.run_contents import RunContents, read_contents
from gpt2tui.tui.run_curves import CURVES, curve_lines
from gpt2tui.tui.run_deletion import delete
from gpt2tui.tui.run_listing import RunListing, RunRow
from gpt2tui.tui.screen_bases import ModeScreen
from gpt2tui.tui.widgets.dialogs import ConfirmDialog
from gpt2tui.tui.widgets.first_run import FirstRun
from gpt2tui.tui.widgets.key_footer import KeyFooter
from gpt2tui.tui.widgets.line_plot import LinePlot
from gpt2tui.tui.widgets.mode_bar import ModeBar
from gpt2tui.tui.widgets.run_details import RunDetails
from gpt2tui.tui.widgets.run_table import COLUMNS, RunTable, matches, sort_rows

REFRESH_SECONDS = 3.0
REST = 10  # after work of t seconds, the same work rests for REST * t: reading never takes more than a tenth of a core
SETTLE_SECONDS = 0.12  # a cursor that moves on does not read every run it passes
MARK_COLOURS = ("primary", "accent", "success", "error", "#cc79a7", "#56b4e9", "#b8a1ff", "#9a8c5c")
MOST_CONTENTS = 24


@dataclass
class Listed(Message):
    """The runs folder has been read."""

    rows: list[RunRow]
    seconds: float


@dataclass
class ContentsRead(Message):
    """A run has been read."""

    folder: Path
    contents: RunContents
    seconds: float


class RunsScreen(ModeScreen):
    """A table over curves and details. Files are read in threads, and only while the screen is in front."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("enter,a", "attach", "Watch", key_display="⏎", tooltip="Show the run on the Train screen"),
        Binding("space", "mark", "Mark", tooltip="Marked runs are drawn over each other"),
        Binding("d", "difference", "Diff", tooltip="What differs between the presets of two runs"),
        Binding("r", "resume", "Resume", tooltip="Go on from its newest checkpoint"),
        Binding("o", "chat", "Chat", tooltip="Talk to its best checkpoint"),
        Binding("c", "copy", "Copy", tooltip="Copy the command that repeats the run"),
        Binding("s", "sort", "Sort by the next column", show=False),
        Binding("S", "reverse", "Reverse the order", show=False),
        Binding("v", "curve(1)", "Next curve", show=False),
        Binding("right_square_bracket", "curve(1)", "Next curve", show=False),
        Binding("left_square_bracket", "curve(-1)", "Previous curve", show=False),
        Binding("y", "log_y", "Logarithmic axis", show=False),
        Binding("u", "unmark", "Remove all marks", show=False),
        Binding("delete,D", "delete", "Delete", show=False, key_display="Del"),
        Binding("f5", "refresh", "Read the folder again", show=False),
        Binding("escape", "back", "Back", show=False),
    ]

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (60, "-medium"), (100, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-short"), (16, "-tall")]  # noqa: RUF012

    CSS = """
    RunsScreen { layout: vertical; }
    RunsScreen #filter { border: none; height: 1; padding: 0 1; display: none; background: $surface; }
    RunsScreen.-filtering #filter { display: block; }
    RunsScreen RunTable {
        height: auto; max-height: 50%; min-height: 3;
        border: round $panel; border-title-color: $foreground; border-subtitle-color: $foreground-muted;
        background: transparent; scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0; overflow-x: hidden;
    }
    RunsScreen RunTable:focus { border: round $border; }
    RunsScreen #below { height: 1fr; }
    RunsScreen FirstRun { display: none; }
    RunsScreen.-without-runs FirstRun { display: block; }
    RunsScreen.-without-runs #below, RunsScreen.-without-runs RunTable { display: none; }
    RunsScreen #curves { width: 1fr; height: 1fr; }
    RunsScreen RunDetails {
        width: 52; height: 1fr; padding: 0 1; border: round $panel; border-title-color: $foreground;
        scrollbar-size-vertical: 1;
    }
    RunsScreen RunDetails:focus { border: round $border; }
    RunsScreen.-medium RunDetails { width: 50%; }
    RunsScreen.-narrow #curves { display: none; }
    RunsScreen.-narrow RunDetails { width: 1fr; }
    RunsScreen.-short #below { display: none; }
    RunsScreen.-short RunTable { border: none; max-height: 100%; height: 1fr; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._listing = RunListing()
        self._rows: list[RunRow] = []
        self._contents: dict[Path, RunContents] = {}
        self._rest_until: dict[Path, float] = {}
        self._marks: dict[str, str] = {}  # run name -> colour, in the order of marking
        self._sort = ("name", True)
        self._curve = 0
        self._log_y = True
        self._differing = False
        self._reading_list = self._reading_run = False
        self._list_rest_until = 0.0
        self._first = True

    # ---- parts

    @property
    def table(self) -> RunTable:
        """The list."""
        return self.query_one(RunTable)

    def compose(self) -> ComposeResult:
        """The list over curves and details."""
        yield ModeBar()
        yield Input(placeholder="words of the name, preset or state; esc shows all", id="filter", compact=True)
        yield RunTable(id="runs")
        yield FirstRun()
        with Horizontal(id="below"):
            yield LinePlot(id="curves")
            yield RunDetails(id="details")
        yield KeyFooter()

    def on_mount(self) -> None:
        """Takes up what was remembered; reads, and goes on reading while in front."""
        key, _, order = self.workbench.settings.text("runs_sort", "name:down").partition(":")
        if key in {column.key for column in COLUMNS}:
            self._sort = key, order != "up"
        self._settle = self.set_timer(SETTLE_SECONDS, self._read_needed, pause=True)
        self.set_interval(REFRESH_SECONDS, self._tick)
        self.table.focus()
        self._show_rows()
        self._read_list()

    def on_screen_resume(self) -> None:
        """In front again: what is shown may be old."""
        if self.is_mounted:
            self._read_list()

    def on_screen_suspend(self) -> None:
        """Behind another mode: remember the run."""
        if row := self.table.pointed:
            self.workbench.settings.remember("run", row.name)

    # ---- reading

    def _tick(self) -> None:
        if self.is_current and time.monotonic() >= self._list_rest_until:
            self._read_list()

    def _read_list(self) -> None:
        if not self._reading_list:
            self._reading_list = True
            session = self.workbench.session
            self._list_in_thread(session.run.folder if session.active and session.run else None)

    @work(thread=True, group="listing", exit_on_error=False)
    def _list_in_thread(self, here: Path | None) -> None:
        started = time.monotonic()
        rows = self._listing.read(here)
        self.post_message(Listed(rows, time.monotonic() - started))

    @on(Listed)
    def _listed(self, message: Listed) -> None:
        message.stop()
        self._reading_list = False
        self._list_rest_until = time.monotonic() + REST * message.seconds
        first, self._first = self._first, False
        self._rows = message.rows
        self._show_whether_empty()
        names = {row.name for row in self._rows}
        self._marks = {name: colour for name, colour in self._marks.items() if name in names}
        self._show_rows(point=self.workbench.settings.run if first else "")
        self._read_needed()

    def _needed(self) -> RunRow | None:
        """A run that is shown below and is not read, or has changed since and has rested."""
        shown = [row for row in self._rows if row.name in self._marks]
        if row := self.table.pointed:
            shown.insert(0, row)
        now = time.monotonic()
        for row in shown:
            known = self._contents.get(row.run.folder)
            if known is None:
                return row
            if known.summary != row.summary and now >= self._rest_until.get(row.run.folder, 0.0):
                return row
        return None

    def _read_needed(self) -> None:
        if not self._reading_run and self.is_attached and (row := self._needed()):
            self._reading_run = True
            self._read_in_thread(row)

    @work(thread=True, group="reading", exit_on_error=False)
    def _read_in_thread(self, row: RunRow) -> None:
        started = time.monotonic()
        contents = read_contents(row)
        self.post_message(ContentsRead(row.run.folder, contents, time.monotonic() - started))

    @on(ContentsRead)
    def _contents_read(self, message: ContentsRead) -> None:
        message.stop()
        self._reading_run = False
        self._contents.pop(message.folder, None)
        self._contents[message.folder] = message.contents
        self._rest_until[message.folder] = time.monotonic() + REST * message.seconds
        while len(self._contents) > MOST_CONTENTS:
            oldest = next(iter(self._contents))
            del self._contents[oldest]
        self._show_below()
        self._read_needed()

    @on(Worker.StateChanged)
    def _worker_ended(self, event: Worker.StateChanged) -> None:
        if event.state is WorkerState.ERROR and event.worker.node is self:
            if event.worker.group == "listing":
                self._reading_list = False
            if event.worker.group == "reading":
                self._reading_run = False
            error = event.worker.error
            if isinstance(error, Gpt2TuiError):
                self.workbench.show_error("This could not be done", str(error))
            else:
                self.workbench.show_error("The runs could not be read", f"{type(error).__name__}: {error}")

    @on(RunsChanged)
    def _runs_changed(self) -> None:
        if self.is_current:
            self._read_list()

    # ---- showing

    def _show_whether_empty(self) -> None:
        """Without a run there is nothing but two ways to begin."""
        empty = not self._rows
        if empty == self.has_class("-without-runs"):
            return
        self.set_class(empty, "-without-runs")
        (self.query_one(FirstRun).query(Button).first() if empty else self.table).focus()

    def _show_rows(self, point: str = "") -> None:
        query = self.query_one("#filter", Input).value
        rows = sort_rows([row for row in self._rows if matches(row, query)], *self._sort)
        colours = {name: self._rich_colour(colour) for name, colour in self._marks.items()}
        self.table.show(rows, colours, self._sort, point)
        shown = f"{len(rows)} of {len(self._rows)}" if query else str(len(rows))
        title = f"{shown} run{'' if shown == '1' else 's'}" if self._rows or not self._first else "runs"
        if self._marks:
            title += f" · {len(self._marks)} marked"
        self.table.border_title = Content(title)
        label = next(column.label for column in COLUMNS if column.key == self._sort[0])
        self.table.border_subtitle = Content(f"by {label} {'▼' if self._sort[1] else '▲'} · s S sort")

    def _rich_colour(self, name: str) -> str:
        colour = self.app.theme_variables.get(name, name)
        return colour[:7] if colour.startswith("#") else ""

    @on(RunTable.Pointed)
    def _pointed(self, message: RunTable.Pointed) -> None:
        message.stop()
        self._show_below()
        self._settle.reset()
        self._settle.resume()

    def _show_below(self) -> None:
        details = self.query_one(RunDetails)
        row = self.table.pointed
        pair = self._pair()
        if self._differing and pair:
            self._show_difference(details, *pair)
        elif row:
            details.show_run(row, self._contents.get(row.run.folder))
        else:
            details.show_nothing()
        self._show_curves()

    def _show_curves(self) -> None:
        plot, curve = self.query_one(LinePlot), CURVES[self._curve]
        row = self.table.pointed
        chosen = [r for r in self._rows if r.name in self._marks] or ([row] if row else [])
        named = [
            (r.name, contents.history, self._marks.get(r.name, MARK_COLOURS[0]))
            for r in chosen
            if (contents := self._contents.get(r.run.folder))
        ]
        log_y = self._log_y and curve.log
        plot.border_title = Content(f"{curve.name}{' ── log y' if log_y else ''} ── [ ] other")
        empty = "no run" if not chosen else f"no {curve.name} yet" if named else "reading …"
        plot.show(*curve_lines(curve, named), log_y=log_y, empty=empty)

    # ---- marks and difference

    def action_mark(self) -> None:
        """Marks the run under the cursor, or removes its mark."""
        row = self.table.pointed
        if row is None:
            return
        if row.name in self._marks:
            del self._marks[row.name]
        else:
            free = [colour for colour in MARK_COLOURS if colour not in self._marks.values()]
            if not free:
                self._say(f"{len(MARK_COLOURS)} runs are marked, and more curves could not be told apart")
                return
            self._marks[row.name] = free[0]
        self._show_rows()
        self._show_below()
        self._read_needed()

    def action_unmark(self) -> None:
        """Removes all marks."""
        self._marks.clear()
        self._show_rows()
        self._show_below()

    def action_difference(self) -> None:
        """Shows what differs between the presets of two runs, or the details again."""
        if not self._differing and self._pair() is None:
            self._say("mark two runs with space, or one and point at another: then d shows how their presets differ")
            return
        self._differing = not self._differing
        self._show_below()
        if self._differing:
            self._read_needed()

    def _pair(self) -> tuple[RunRow, RunRow] | None:
        """The two runs marked last; with one mark, that one and the one under the cursor."""
        rows = {row.name: row for row in self._rows}
        marked = [rows[name] for name in self._marks if name in rows]
        if len(marked) == 1 and (row := self.table.pointed) and row.name != marked[0].name:
            marked.append(row)
        return (marked[-2], marked[-1]) if len(marked) >= 2 else None

    def _show_difference(self, details: RunDetails, left: RunRow, right: RunRow) -> None:
        contents = [self._contents.get(row.run.folder) for row in (left, right)]
        presets = [c.preset for c in contents if c and c.preset]
        sides = [(row.name, self._rich_colour(self._marks.get(row.name, ""))) for row in (left, right)]
        if None in contents:
            details.show_waiting("difference of presets")
        else:
            details.show_difference(sides[0], sides[1], difference(*presets) if len(presets) == 2 else None)

    # ---- order and filter

    def action_sort(self) -> None:
        """Sorts by the next column."""
        keys = [column.key for column in COLUMNS]
        self._sort_by(keys[(keys.index(self._sort[0]) + 1) % len(keys)])

    def action_reverse(self) -> None:
        """Turns the order round."""
        self._sort_by(self._sort[0])

    @on(RunTable.SortAsked)
    def _sort_asked(self, message: RunTable.SortAsked) -> None:
        message.stop()
        self._sort_by(message.column)

    def _sort_by(self, key: str) -> None:
        column = next(c for c in COLUMNS if c.key == key)
        self._sort = (key, not self._sort[1] if key == self._sort[0] else column.descending)
        self.workbench.settings.remember("runs_sort", f"{key}:{'down' if self._sort[1] else 'up'}")
        self._show_rows()

    def action_filter(self) -> None:
        """Opens the filter."""
        self.add_class("-filtering")
        self.query_one("#filter", Input).focus()

    @on(Input.Changed, "#filter")
    def _filter_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._show_rows()

    @on(Input.Submitted, "#filter")
    def _filter_done(self, event: Input.Submitted) -> None:
        event.stop()
        self.table.focus()
        if not event.value:
            self.remove_class("-filtering")

    def action_back(self) -> None:
        """One step back: out of the filter, out of the difference, without marks."""
        field = self.query_one("#filter", Input)
        if self.has_class("-filtering"):
            field.value = ""
            self.remove_class("-filtering")
            self.table.focus()
        elif self._differing:
            self.action_difference()
        elif self._marks:
            self.action_unmark()

    def action_curve(self, step: int) -> None:
        """Another curve."""
        self._curve = (self._curve + step) % len(CURVES)
        self._show_curves()

    def action_log_y(self) -> None:
        """Turns the logarithmic axis on or off."""
        self._log_y = not self._log_y
        self._show_curves()

    def action_refresh(self) -> None:
        """Reads the folder again."""
        self._read_list()

    # ---- what one can do with a run

    @on(RunTable.Chosen)
    def _chosen(self, message: RunTable.Chosen) -> None:
        message.stop()
        self.action_attach()

    def action_attach(self) -> None:
        """Shows the run on the Train screen."""
        if row := self.table.pointed:
            self.workbench.settings.remember("run", row.name)
            if row.state == "running here":
                self.app.switch_mode("train")
            else:
                self.workbench.attach_run(row.run)

    def action_chat(self) -> None:
        """Talks to the run's best checkpoint, or to the weights of the training that goes on here."""
        if row := self.table.pointed:
            if row.state == "running here":
                self.workbench.open_chat(None)
            elif not row.summary.checkpoints:
                self._say(f"{row.name} has no checkpoint to talk to")
            else:
                self.workbench.settings.remember("run", row.name)
                self.workbench.open_chat(str(row.run.folder))

    def action_resume(self) -> None:
        """Goes on with the run from its newest checkpoint."""
        row = self.table.pointed
        if row is None:
            return
        contents = self._contents.get(row.run.folder)
        s = row.summary
        if row.running:
            self._say(f"{row.name} is running {'here' if row.state == 'running here' else 'in another process'}")
        elif contents is None:
            self._say(f"{row.name} is still being read")
        elif not contents.checkpoints:
            self._say(f"{row.name} has no checkpoint to go on from")
        elif contents.preset is None:
            self.workbench.show_error("This run cannot go on", "\n".join(contents.problems))
        elif row.state == "finished" and s.num_iterations is not None and s.step >= s.num_iterations:
            longer = f"{resume_command(row.run)} --set training.num_iterations={2 * s.num_iterations}"
            self._say(f"{row.name} has done all its {s.num_iterations:,} steps. To train it further: {longer}")
        else:
            name = str(contents.info.get("preset", row.name))
            loaded = LoadedPreset(name, contents.preset, (row.run.preset_file,))
            self.workbench.start_training(loaded, resume=row.run)

    def action_copy(self) -> None:
        """Copies the command that trains the same again."""
        if row := self.table.pointed:
            contents = self._contents.get(row.run.folder)
            if contents is not None:
                self.app.copy_to_clipboard(contents.repeat)
                self._say(f"copied: {contents.repeat}")

    def action_delete(self) -> None:
        """Deletes the run after asking; never one that some process trains."""
        row = self.table.pointed
        if row is None:
            return
        if row.running:
            self._say(f"{row.name} is being trained; stop it first")
            return
        count = row.summary.checkpoints
        text = (
            f"{row.run.folder}\n\n{byte_size(row.summary.bytes)} with {count} checkpoint{'' if count == 1 else 's'} "
            "and all events. It cannot be brought back."
        )

        def answered(choice: str | None) -> None:
            if choice == "!Delete":
                self._delete_in_thread(row)

        self.app.push_screen(ConfirmDialog(f"Delete {row.name}?", text, "Keep", "!Delete"), answered)

    @work(thread=True, group="deleting", exit_on_error=False)
    def _delete_in_thread(self, row: RunRow) -> None:
        delete(row.run)
        self.post_message(RunsChanged())

    def _say(self, text: str) -> None:
        self.notify(sanitize(text, keep_newlines=False), markup=False)
