"""The Runs screen: the table of all runs, their curves and details, and what can be done with a run."""

from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.widgets import Button, Input
from textual.worker import Worker, WorkerState

from gpt2tui.errors import Gpt2TuiError, UsageError
from gpt2tui.preset.files import LoadedPreset
from gpt2tui.preset.settings import preset_differences
from gpt2tui.run.tidying import delete_run
from gpt2tui.system.numbers import byte_size, counted
from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.base import ModeScreen
from gpt2tui.tui.messages import RunsChanged
from gpt2tui.tui.runs.columns import DEFINITIONS, ColumnsDialog
from gpt2tui.tui.runs.curves import COLOURS, CurvesPlot, RunMarks, sweep_colours
from gpt2tui.tui.runs.details import RunDetails
from gpt2tui.tui.runs.library import (
    ContentsRead,
    Listed,
    RunReader,
    RunRow,
    longer_command,
    repeat_command,
    resume_command,
)
from gpt2tui.tui.runs.sweeps import MOST_DRAWN, SweepRow, runs_of
from gpt2tui.tui.runs.table import COLUMNS, USUAL, RunFilter, RunTable, table_rows
from gpt2tui.tui.widgets.dialogs import ConfirmDialog
from gpt2tui.tui.widgets.field_input import FieldInput
from gpt2tui.tui.widgets.first_run import FirstRun
from gpt2tui.tui.widgets.key_footer import KeyFooter
from gpt2tui.tui.widgets.line_plot import INSPECT_KEYS
from gpt2tui.tui.widgets.mode_bar import ModeBar

REFRESH_SECONDS = 3.0
LISTED_NAMES = 8  # of the runs that a question is about
MANY = 16  # fewer runs leave room below them
SETTLE_SECONDS = 0.12  # a cursor that moves on does not read every run it passes


class RunsScreen(ModeScreen):
    """A table over curves and details. Files are read in threads, and only while the screen is in front."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("enter,a", "attach", "Watch", key_display="⏎", tooltip="Show the run on the Train screen"),
        Binding("enter,a", "open_sweep", "Open", key_display="⏎", tooltip="List the runs of the sweep, or no longer"),
        Binding("space", "mark", "Mark", tooltip="Marked runs are drawn over each other"),
        Binding("d", "difference", "Diff", tooltip="What differs between the presets of two runs"),
        Binding("r", "resume", "Resume", tooltip="Resume from its newest checkpoint"),
        Binding("o", "chat", "Chat", tooltip="Chat with its best val checkpoint"),
        Binding("c", "copy", "Copy", tooltip="Copy the commands that repeat the marked runs, or this one"),
        Binding("s", "sort", "Sort by the next column", show=False),
        Binding("S", "reverse", "Reverse the order", show=False),
        Binding("v", "curve(1)", "Next curve", show=False),
        Binding("right_square_bracket", "curve(1)", "Next curve", show=False),
        Binding("left_square_bracket", "curve(-1)", "Previous curve", show=False),
        Binding("y", "log_y", "Logarithmic axis", show=False),
        Binding("i", "inspect", "Inspect", show=False, tooltip=INSPECT_KEYS),
        Binding("X", "x_unit", "X axis", show=False, tooltip="steps, tokens or time of training"),
        Binding("asterisk", "mark_all", "Mark all", show=False, key_display="*", tooltip="All runs that are listed"),
        Binding("u", "unmark", "Remove all marks", show=False),
        Binding("C", "columns", "Columns", show=False, tooltip="Which columns the table has"),
        Binding("delete,D", "delete", "Delete", show=False, key_display="Del", tooltip="The marked runs, or this one"),
        Binding("f5", "refresh", "Read the folder again", show=False),
        Binding("escape", "back", "Back", show=False),
    ]

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (60, "-medium"), (100, "-wide"), (150, "-beside")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-lowest"), (14, "-low"), (20, "-high")]  # noqa: RUF012

    CSS_PATH = "screen.tcss"
    HELP = "\n\n".join(f"{name}: {text}" for name, text in DEFINITIONS.items())

    def __init__(self) -> None:
        super().__init__()
        self.reader = RunReader(self)
        self._marks = RunMarks()
        self._opened: set[str] = set()
        """The names of the sweeps whose runs are listed."""
        self._sort = ("started", True)
        self._columns: tuple[str, ...] = USUAL
        self._filter = RunFilter("")
        self._to_resume: str | None = None
        self._differing = False
        self._listed_before = self._listed_all = False

    # ---- parts

    @property
    def table(self) -> RunTable:
        """The list."""
        return self.query_one(RunTable)

    @property
    def _rows(self) -> list[RunRow]:
        return self.reader.library.rows

    def compose(self) -> ComposeResult:
        """The list over curves and details."""
        yield ModeBar()
        yield FieldInput(placeholder="small val<3.5 lr=0.001 state:finished; esc shows all", id="filter", compact=True)
        yield FirstRun()
        with Container(id="panes"):
            yield RunTable(id="runs")
            with Container(id="below"):
                yield CurvesPlot(id="curves")
                yield RunDetails(id="details")
        yield KeyFooter()

    def on_mount(self) -> None:
        """Restores the order; reads the runs now, and again and again while in front."""
        key, _, order = self.workbench.settings.text("runs_sort", "started:down").partition(":")
        if key in {column.key for column in COLUMNS}:
            self._sort = key, order != "up"
        chosen = self.workbench.settings.text("runs_columns", ",".join(USUAL)).split(",")
        self._columns = tuple(column.key for column in COLUMNS if column.key in chosen)
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
        """Behind another mode: remember the row."""
        self.reader.stop()
        if row := self.table.pointed:
            self.workbench.settings.remember("runs_row", row.name)

    # ---- reading

    def _tick(self) -> None:
        if self.is_current and self.reader.library.list_is_due:
            self._read_list()

    def _read_list(self) -> None:
        session = self.workbench.session
        self.reader.list_runs(session.run.folder if session.active and session.run else None)

    @property
    def _shown_below(self) -> list[RunRow]:
        """The run under the cursor or the best ones of its sweep, and the marked ones."""
        pointed = self.table.pointed
        if isinstance(pointed, SweepRow):
            return pointed.best_first[:MOST_DRAWN]
        return ([pointed] if pointed else []) + [row for row in self._rows if self._marks.colours.get(row.name)]

    def _read_needed(self) -> None:
        self.reader.read_first_of(self._shown_below)

    @on(Listed)
    def _listed(self, message: Listed) -> None:
        self.reader.store(message)
        first, self._listed_before = not self._listed_before, True
        self._show_whether_empty()
        self._marks.keep({row.name for row in message.rows})
        remembered = self.workbench.settings.text("runs_row", self.workbench.settings.run) if first else ""
        self._opened.update(row.sweep for row in message.rows if row.sweep and row.name == remembered)
        self._show_rows(point=remembered)
        if not (self.table.placed or self._listed_all):
            self.table.cursor_row = 0  # runs that are read now may come first
        self._listed_all = self._listed_all or message.complete
        self._read_needed()

    @on(ContentsRead)
    def _contents_read(self, message: ContentsRead) -> None:
        self.reader.store(message)
        self._show_below()
        row = self.table.pointed
        if row is not None and row.name == self._to_resume and message.folder == row.run.folder:
            self.action_resume()
        self._read_needed()

    @on(Worker.StateChanged)
    def _worker_ended(self, event: Worker.StateChanged) -> None:
        if event.state is WorkerState.ERROR and event.worker.node is self:
            self.reader.worker_failed(event.worker)
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
        """Shows the two ways to start while there is no run."""
        empty = not self._rows
        if empty == self.has_class("-without-runs"):
            return
        self.set_class(empty, "-without-runs")
        (self.query_one(FirstRun).query(Button).first() if empty else self.table).focus()

    def _show_rows(self, point: str = "") -> None:
        query, all_rows = self.query_one("#filter", Input).value, self._rows
        wrong = ""
        try:
            self._filter = RunFilter(query)
        except UsageError as error:  # the filter before it stays
            wrong = sanitize(str(error), keep_newlines=False)
        rows = [row for row in all_rows if self._filter.matches(row)]
        opened = {row.sweep for row in rows} if query else self._opened
        colours = {name: self._rich_colour(colour) for name, colour in self._marks.colours.items()}
        self.set_class(len(all_rows) >= MANY, "-many")
        self.table.show(table_rows(rows, opened, *self._sort), colours, self._sort, point, self._columns)
        shown = f"{len(rows)} of {len(all_rows)}" if query else str(len(rows))
        title = f"{shown} run{'' if shown == '1' else 's'}" if self._listed_before else "loading"
        if self._marks:
            title += f" · {len(self._marks)} marked"
        self.table.border_title = Content.styled(wrong, "$text-warning") if wrong else Content(title)
        label = next(column.label for column in COLUMNS if column.key == self._sort[0])
        self.table.border_subtitle = Content(f"by {label} {'▼' if self._sort[1] else '▲'} · s S sort")

    def _rich_colour(self, name: str) -> str:
        colour = self.app.theme_variables.get(name, name)
        return colour[:7] if colour.startswith("#") else ""

    @on(RunTable.Pointed)
    def _pointed(self, message: RunTable.Pointed) -> None:
        message.stop()
        if message.row is None or message.row.name != self._to_resume:
            self._to_resume = None
        self.refresh_bindings()
        self._show_below()
        self._settle.reset()
        self._settle.resume()

    def _show_below(self) -> None:
        details = self.query_one(RunDetails)
        row = self.table.pointed
        pair = self._pair()
        self.set_class(len(self._marks) > 0 or self._differing, "-comparing")
        self.set_class(self._differing, "-differing")
        if self._differing and pair:
            self._show_difference(details, *pair)
        elif isinstance(row, SweepRow):
            details.show_sweep(row, {name: self._rich_colour(c) for name, c in sweep_colours(row).items()})
        elif row:
            details.show_run(row, self.reader.library.contents(row))
        else:
            details.show_nothing()
        self._show_curves()

    def _show_curves(self) -> None:
        pointed, marked = self.table.pointed, {name: colour for name, colour in self._marks.colours.items() if colour}
        if isinstance(pointed, SweepRow):
            colours = sweep_colours(pointed)
        elif marked:
            colours = marked
        else:
            colours = {pointed.name: COLOURS[0]} if pointed else {}
        by_name = {row.name: row for row in self._rows if row.name in colours}
        read = [
            (name, self.reader.library.contents(by_name[name]), colour)
            for name, colour in colours.items()
            if name in by_name
        ]
        runs = [(name, contents.history, colour) for name, contents, colour in read if contents is not None]
        self.query_one(CurvesPlot).show_runs(runs, len(by_name))

    # ---- marks and difference

    def action_mark(self) -> None:
        """Marks the run under the cursor, or removes its mark; of a sweep all of its runs."""
        row = self.table.pointed
        if row is None:
            return
        if isinstance(row, SweepRow):
            all_marked = all(each.name in self._marks for each in row.runs)
            for each in row.best_first:
                (self._marks.remove if all_marked else self._marks.add)(each.name)
        else:
            self._marks.toggle(row.name)
        self._show_rows()
        self._show_below()
        self._read_needed()

    def action_mark_all(self) -> None:
        """Marks all runs that are listed."""
        for row in runs_of(self.table.rows_shown):
            self._marks.add(row.name)
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
        return self._marks.pair(self._rows, self.table.pointed)

    def _show_difference(self, details: RunDetails, left: RunRow, right: RunRow) -> None:
        contents = [self.reader.library.contents(row) for row in (left, right)]
        presets = [c.preset for c in contents if c and c.preset]
        sides = [(row.name, self._rich_colour(self._marks.colours.get(row.name, ""))) for row in (left, right)]
        if None in contents:
            details.show_waiting("difference of presets")
        else:
            details.show_difference(sides[0], sides[1], preset_differences(*presets) if len(presets) == 2 else None)

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
        """Sorts, and shows the top of the list."""
        column = next(c for c in COLUMNS if c.key == key)
        self._sort = (key, not self._sort[1] if key == self._sort[0] else column.descending)
        self.workbench.settings.remember("runs_sort", f"{key}:{'down' if self._sort[1] else 'up'}")
        self._show_rows()
        self.table.action_scroll_home()

    def action_filter(self) -> None:
        """Opens the filter."""
        self.add_class("-filtering")
        self.set_focus(self.query_one("#filter", Input))  # at once: `focus` would come after keys that wait already

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
        if isinstance(self.focused, CurvesPlot):
            self.table.focus()
        elif self.has_class("-filtering"):
            field.value = ""
            self.remove_class("-filtering")
            self.table.focus()
        elif self._differing:
            self.action_difference()
        elif self._marks:
            self.action_unmark()

    def action_curve(self, step: int) -> None:
        """Another curve."""
        self.query_one(CurvesPlot).next_curve(step)

    def action_log_y(self) -> None:
        """Turns the logarithmic axis on or off."""
        self.query_one(CurvesPlot).toggle_log()

    def action_inspect(self) -> None:
        """The cursor in the curves."""
        self.query_one(CurvesPlot).focus()

    def action_x_unit(self) -> None:
        """The curves over steps, tokens or time."""
        self.query_one(CurvesPlot).next_x_unit()

    def action_refresh(self) -> None:
        """Reads the folder again."""
        self._read_list()

    # ---- actions on a run

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enter opens a sweep and watches a run."""
        if action in ("attach", "open_sweep") and self.is_mounted:
            return isinstance(self.table.pointed, SweepRow) == (action == "open_sweep")
        return super().check_action(action, parameters)

    def action_open_sweep(self) -> None:
        """Lists the runs of the sweep under the cursor, or no longer."""
        self.table.action_select_cursor()

    @on(RunTable.SweepOpened)
    def _sweep_opened(self, message: RunTable.SweepOpened) -> None:
        message.stop()
        (self._opened.add if message.open else self._opened.discard)(message.sweep)
        self._show_rows(point=message.sweep)

    @on(RunTable.Chosen)
    def _chosen(self, message: RunTable.Chosen) -> None:
        message.stop()
        self.action_attach()

    def action_attach(self) -> None:
        """Shows the run on the Train screen."""
        if row := self.table.pointed:
            self.workbench.settings.remember("run", row.name)
            if row.training and row.here:
                self.app.switch_mode("train")
            else:
                self.workbench.attach_run(row.run)

    def action_chat(self) -> None:
        """Chats with the run's best val checkpoint, or with the live weights of this process's training."""
        row = self.table.pointed
        if isinstance(row, SweepRow):
            row = row.best_first[0]
        if row:
            if row.training and row.here:
                self.workbench.open_chat(None)
            elif not row.summary.checkpoints:
                self._say(f"{row.name} has no checkpoint to chat with")
            else:
                self.workbench.settings.remember("run", row.name)
                self.workbench.open_chat(str(row.run.folder))

    def action_resume(self) -> None:
        """Resumes the run from its newest checkpoint."""
        row, self._to_resume = self.table.pointed, None
        if row is None:
            return
        if isinstance(row, SweepRow):
            self._say(f"point at one of its runs; to resume all of the sweep: {resume_command(row.run)}")
            return
        contents = self.reader.library.contents(row)
        if row.training:
            self._say(f"{row.name} is being trained {'here' if row.here else 'by another process'}")
        elif contents is None:  # `_contents_read` resumes it then
            self._to_resume = row.name
            self._read_needed()
        elif not contents.checkpoints:
            self._say(f"{row.name} has no checkpoint to resume from")
        elif contents.preset is None:
            self.workbench.show_error("This run cannot be resumed", "\n".join(contents.problems))
        elif row.finished_all_steps:
            steps = counted(row.summary.step, "step")
            self._say(f"{row.name} finished all {steps}. To train it longer: {longer_command(row)}")
        else:
            name = str(contents.info.get("preset", row.name))
            loaded = LoadedPreset(name, contents.preset, (row.run.preset_file,))
            self.workbench.start_training(loaded, resume=row.run)

    @property
    def _chosen_rows(self) -> list[RunRow]:
        """The marked runs, else the one under the cursor."""
        pointed = self.table.pointed
        return [row for row in self._rows if row.name in self._marks] or runs_of([pointed] if pointed else [])

    def action_copy(self) -> None:
        """Copies the commands that repeat the marked runs, or the one under the cursor."""
        commands = [repeat_command(row.run) for row in self._chosen_rows]
        if commands:
            self.app.copy_to_clipboard("\n".join(commands))
            self._say(f"copied: {commands[0] if len(commands) == 1 else counted(len(commands), 'command')}")

    def action_delete(self) -> None:
        """Deletes the marked runs, or the one under the cursor, after asking; never one that some process trains."""
        rows = self._chosen_rows
        training = [row.name for row in rows if row.training]
        if training:
            self._say(f"{', '.join(training[:3])}: being trained; stop it first, or remove its mark")
            return
        if not rows:
            return
        what = rows[0].name if len(rows) == 1 else counted(len(rows), "run")
        names = [str(row.run.folder) if len(rows) == 1 else row.name for row in rows]
        if len(names) > LISTED_NAMES:
            names[LISTED_NAMES:] = [f"and {len(names) - LISTED_NAMES} more"]
        size = byte_size(sum(row.summary.bytes for row in rows))
        saved = counted(sum(row.summary.checkpoints for row in rows), "checkpoint")
        it = "It" if len(rows) == 1 else "They"
        text = "\n".join(names) + f"\n\n{size} with {saved} and all events. {it} cannot be brought back."

        def answered(choice: str | None) -> None:
            if choice == "!Delete":
                self._delete_in_thread(rows)

        self.app.push_screen(ConfirmDialog(f"Delete {what}?", text, "Keep", "!Delete"), answered)

    @work(thread=True, group="deleting", exit_on_error=False)
    def _delete_in_thread(self, rows: list[RunRow]) -> None:
        try:
            for row in rows:
                delete_run(row.run)
        finally:
            self.post_message(RunsChanged())

    @work(group="columns", exclusive=True)
    async def action_columns(self) -> None:
        """Asks which columns the table has; remembered."""
        columns = await self.app.push_screen_wait(ColumnsDialog(self._columns))
        if columns is not None:
            self._columns = columns
            self.workbench.settings.remember("runs_columns", ",".join(columns))
            self._show_rows()

    def _say(self, text: str) -> None:
        self.notify(sanitize(text, keep_newlines=False), markup=False)
