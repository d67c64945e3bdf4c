"""The Presets screen: choose a preset, edit it in a form, see its costs, save it, train it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Button, Input, OptionList

from gpt2tui.errors import Gpt2TuiError
from gpt2tui.preset.files import LoadedPreset, PresetSource
from gpt2tui.preset.settings import differences
from gpt2tui.system.terminal_text import printable, sanitize
from gpt2tui.tui.base import ModeScreen
from gpt2tui.tui.presets import library as preset_library
from gpt2tui.tui.presets import questions as preset_questions
from gpt2tui.tui.presets.cost_panel import CostPanel
from gpt2tui.tui.presets.document import FIRST_PRESET, OpenPresets, PresetDocument
from gpt2tui.tui.presets.field import SettingField
from gpt2tui.tui.presets.form import FormPane
from gpt2tui.tui.presets.library import PresetScan, ScannedPreset
from gpt2tui.tui.presets.list import DifferenceDialog, PresetComparison, PresetList
from gpt2tui.tui.presets.questions import Question
from gpt2tui.tui.presets.values import Checked
from gpt2tui.tui.widgets.field_input import FieldInput
from gpt2tui.tui.widgets.key_footer import KeyFooter
from gpt2tui.tui.widgets.mode_bar import ModeBar

FILTER_SECONDS = 0.15  # without typing, before the list is filtered
CHECK_SECONDS = 0.08  # without typing, before the values are validated and the costs updated
REMEMBER_SECONDS = 0.5  # on a preset, before it is stored as the one to open at the next start
SCAN_SECONDS = 2.0  # between scans of the preset folders


@dataclass
class Scanned(Message):
    """The preset folders were scanned."""

    presets: Sequence[ScannedPreset]


class PresetsScreen(ModeScreen):
    """A list, a form and the costs. Each preset keeps its unsaved edits while others are shown."""

    HELP = """\
Every preset keeps its unsaved changes, marked *, until you leave the workbench. A shipped preset is read-only: you can
change and train it, and save it under another name.
An error is shown below its field. A preset with errors cannot be saved or trained. Settings marked – have no effect
beside the others.
parameters: all trained weights, the tied embedding counted once. tokens per step: batch_size x gradient_accumulation x
sequence_length. memory: on one device at the end of a forward pass. time: training steps only, from a measured speed.
Chinchilla optimum: about 20 tokens per parameter give the lowest loss for the compute (Hoffmann et al. 2022).
"""
    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (60, "-narrow"), (110, "-wide"), (150, "-huge")]  # noqa: RUF012 - as Screen has it
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (16, "-short"), (20, "-low"), (30, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+t", "train", "Train", key_display="^t", tooltip="trains the values in the form, saved or not"),
        Binding("ctrl+s", "save", "Save", key_display="^s"),
        Binding("ctrl+z", "undo", "Undo", key_display="^z", priority=True),
        Binding("ctrl+y", "redo", "Redo", key_display="^y", priority=True, show=False),
        Binding("v", "difference", "Diff", tooltip="shows the differences from the saved and the shipped preset"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("w", "save_as", "Save as", show=False),
        Binding("d", "duplicate", "Duplicate", show=False),
        Binding("r", "rename", "Rename", show=False),
        Binding("delete,D", "delete", "Delete", show=False, key_display="Del"),
        Binding("u", "revert", "Revert", show=False, tooltip="restores the saved values; undo restores your changes"),
        Binding("enter", "edit", "Edit", show=False, tooltip="moves into the form"),
        Binding("f8", "next_mistake", "Next error", show=False),
        Binding("escape", "back", "Back", show=False, tooltip="moves back: from the form or the filter to the list"),
    ]
    CSS_PATH = "screen.tcss"

    def __init__(self) -> None:
        super().__init__()
        self.open_presets = OpenPresets()
        """All presets, and the documents of those that were opened."""
        self._scan = PresetScan()
        self._current: PresetDocument | None = None
        self._checked = Checked(None)
        self._check_soon: Timer | None = None
        self._filter_soon: Timer | None = None
        self._remember_soon: Timer | None = None
        self._scanning = False
        self._handled_changes: set[tuple[Path, object]] = set()

    def compose(self) -> ComposeResult:
        """The list, the form and the costs, between the mode bar and the footer."""
        yield ModeBar()
        with Container(id="presets-body"):
            with Vertical(id="preset-pane", classes="pane") as pane:
                pane.border_title = "Presets"
                yield FieldInput(placeholder="/ filter", id="preset-filter", compact=True)
                yield PresetList(id="preset-list")
            yield FormPane(id="form-pane", classes="pane")
            yield CostPanel()
        yield KeyFooter()

    # ---- opening

    def on_mount(self) -> None:
        """Opens the preset of the command line, else the last one used, and starts scanning the folders."""
        self.open_presets.refresh_names()
        self._refresh_list()
        preselected = self.workbench.preselected
        if preselected is not None:
            self._open(self.open_presets.open_loaded(preselected))
        else:
            self.select_preset(self.workbench.settings.preset or FIRST_PRESET)
        self.query_one(PresetList).focus()
        self.set_interval(SCAN_SECONDS, self._start_scan)
        self._start_scan()

    @on(events.ScreenResume)
    def refresh_after_return(self) -> None:
        """Looks again at corpora, which a training may have prepared, and at files, which may have changed."""
        self.query_one(CostPanel).recheck_corpora()
        if self._current is not None:
            self._start_scan()

    def select_preset(self, name: str) -> None:
        """Shows a preset, given its name or the path of its file, else the first preset."""
        source = self.open_presets.find(name, fallback=FIRST_PRESET)
        if source is not None:
            self._open(self.open_presets.document(source))

    def unsaved_changes(self) -> str | None:
        """What would be lost on leaving the workbench, in words; None when nothing would."""
        names = [document.name for document in self.open_presets.documents if document.changed]
        if not names:
            return None
        shown = ", ".join(printable(name, 40) for name in names[:5])
        return f"unsaved changes of the preset{'s' if len(names) > 1 else ''} {shown}"

    @on(events.DescendantFocus)
    @on(events.DescendantBlur)
    def mark_pane(self) -> None:
        """Marks the pane with the focus. `:focus-within` would restyle the whole form at each change of focus."""
        for pane in self.query(".pane"):
            if pane.has_class("-active") != pane.has_focus_within:
                pane.set_class(pane.has_focus_within, "-active", update=False)
                self.app.stylesheet.update_nodes([pane])

    # ---- the list

    @property
    def _filter(self) -> Input:
        return self.query_one("#preset-filter", Input)

    @on(OptionList.OptionHighlighted, "#preset-list")
    def choose(self, event: OptionList.OptionHighlighted) -> None:
        """Opens the preset under the cursor."""
        source = next((s for s in self.open_presets.sources if str(s.path) == event.option_id), None)
        if source is not None and (self._current is None or self._current.source.path != source.path):
            self._open(self.open_presets.document(source))

    @on(OptionList.OptionSelected, "#preset-list")
    def enter_form(self) -> None:
        """Enter moves from the list into the form."""
        self.action_edit()

    @on(Input.Changed, "#preset-filter")
    def filter_changed(self) -> None:
        """Filters the list, after the typed letter is drawn."""
        if self._filter_soon is not None:
            self._filter_soon.stop()
        self._filter_soon = self.set_timer(FILTER_SECONDS, self._refresh_list)

    @on(Input.Submitted, "#preset-filter")
    def filter_done(self) -> None:
        """Enter opens the first preset in the filtered list."""
        rows = self.open_presets.rows(self._filter.value)
        if rows and (self._current is None or str(self._current.source.path) not in {row.id for row in rows}):
            self.select_preset(rows[0].id)
        self.query_one(PresetList).focus()

    def _refresh_list(self) -> None:
        self.query_one(PresetList).show(self.open_presets.rows(self._filter.value))

    # ---- the files

    def _start_scan(self) -> None:
        if self.app.screen is self and not self._scanning:
            self._scanning = True
            self._scan_folders([document.source for document in self.open_presets.documents])

    @work(thread=True, group="preset-scan")
    def _scan_folders(self, extra: Sequence[PresetSource]) -> None:
        try:
            presets = self._scan.scan(extra)
        finally:
            self._scanning = False
        self.post_message(Scanned(presets))

    @on(Scanned)
    def show_scanned(self, message: Scanned) -> None:
        """Updates the list, and handles files that other programs have changed."""
        self.open_presets.update(message.presets)
        self._refresh_list()
        for document in self.open_presets.documents:
            if document.changed_on_disk:
                self._handle_changed_file(document)

    def _handle_changed_file(self, document: PresetDocument) -> None:
        """Reloads the file where nothing is unsaved, else asks; each change is handled once."""
        stamp = preset_library.file_stamp(document.source.path)
        name = printable(document.name)
        if (document.source.path, stamp) in self._handled_changes:
            return
        if stamp is None:
            self._handled_changes.add((document.source.path, stamp))
            if document.unreadable or (not document.changed and document is not self._current):
                neighbour = self.open_presets.neighbour(document)
                self.open_presets.remove(document)
                if document is self._current:
                    self.notify(f"{name} was deleted on disk", markup=False)
                    self.select_preset(neighbour or FIRST_PRESET)
            else:
                self.notify(f"{name} was deleted on disk; saving writes it again", severity="warning", markup=False)
        elif not document.changed:
            document.reload()
            self.notify(f"{name} has changed on disk and was reloaded", markup=False)
            if document is self._current:
                self._show_document()
        elif document is self._current and self.app.screen is self:
            self._handled_changes.add((document.source.path, stamp))
            self._ask(preset_questions.reconcile_with_disk)

    # ---- the form and the costs

    def _open(self, document: PresetDocument) -> None:
        self._current = document
        self.query_one(PresetList).choose(str(document.source.path))
        if self._remember_soon is not None:
            self._remember_soon.stop()
        self._remember_soon = self.set_timer(REMEMBER_SECONDS, self._remember)
        self._show_document()

    def _remember(self) -> None:
        if self._current is not None:
            reference = self.open_presets.reference(self._current)
            self.workbench.settings.remember("preset", reference)

    def _show_document(self) -> None:
        if self._current is not None:
            self.query_one(CostPanel).clear()
            self.query_one(FormPane).show(self._current)
            self._show_values()

    def _show_values(self) -> None:
        self._validate()
        pane = self.query_one(FormPane)
        field = pane.focused_field
        pane.show_help(field.setting if field else None)

    def _validate(self) -> None:
        """Validates the values and shows their mistakes and costs."""
        document = self._current
        if document is None:
            return
        self._checked = document.check() if not document.unreadable else Checked(None)
        self.query_one(FormPane).show_values(self._checked)
        panel = self.query_one(CostPanel)
        if self._checked.preset is not None:
            panel.show(LoadedPreset(document.name, self._checked.preset, (document.source.path,)))
        else:
            panel.show_mistakes(list(self._checked.mistakes) or ["the file"])
        self._refresh_list()

    @on(SettingField.Changed)
    def changed(self, message: SettingField.Changed) -> None:
        """Takes a changed setting at once, and validates shortly after."""
        if self._current is None:
            return
        self._current.editing.set(message.key, message.value)
        self.query_one(FormPane).show_help(message.field.setting)
        if self._check_soon is not None:
            self._check_soon.stop()
        self._check_soon = self.set_timer(CHECK_SECONDS, self._validate)

    # ---- keys

    def action_edit(self) -> None:
        """Moves into the form."""
        self.query_one(FormPane).form.focus_field()

    def action_back(self) -> None:
        """Moves from the form to the list, or clears the filter."""
        if self._filter.has_focus or not self.query_one("#preset-pane").has_focus_within:
            if self._filter.has_focus:
                self._filter.value = ""
            self.query_one(PresetList).focus()
        else:
            self._filter.value = ""

    def action_filter(self) -> None:
        """Moves to the filter of the list."""
        self.set_focus(self._filter)  # at once: `focus` would come after keys that wait already

    def action_undo(self) -> None:
        """Undoes the last change of this preset."""
        if self._current is not None and self._current.editing.undo():
            self._show_values()
        else:
            self.notify("nothing to undo", timeout=2, markup=False)

    def action_redo(self) -> None:
        """Redoes the change that was undone last."""
        if self._current is not None and self._current.editing.redo():
            self._show_values()
        else:
            self.notify("nothing to redo", timeout=2, markup=False)

    def action_revert(self) -> None:
        """Restores the saved values, as one step that can be undone."""
        if self._current is not None and self._current.changed:
            self._current.editing.replace(self._current.editing.saved)
            self._show_values()
            self.notify("reverted; ^z to undo", timeout=4, markup=False)

    def action_next_mistake(self) -> None:
        """Moves to the next field with a mistake."""
        self.query_one(FormPane).focus_next_mistake()

    def action_difference(self) -> None:
        """Shows the differences from the saved preset and from the nearest shipped one."""
        document = self._current
        if document is None:
            return
        values = document.editing.values
        saved = differences(document.editing.saved, values)
        comparisons = [PresetComparison(f"from the saved {document.name}", saved)]
        shipped = preset_library.nearest_shipped(document.name, values)
        if shipped is not None and not (document.source.shipped and shipped[0] == document.name):
            comparisons.append(PresetComparison(f"from the shipped {shipped[0]}", differences(shipped[1], values)))
        self.app.push_screen(DifferenceDialog("Differences", comparisons))

    @on(Button.Pressed, "#train")
    def action_train(self) -> None:
        """Trains the preset in the form."""
        loaded = self._valid_preset("trained")
        if loaded is not None:
            self.workbench.start_training(loaded)

    def action_save(self) -> None:
        """Saves the preset; a shipped preset under another name."""
        document = self._current
        if document is None or self._valid_preset("saved") is None:
            return
        if not document.source.shipped and not document.changed and not document.changed_on_disk:
            self.notify("nothing to save: the file has these values", timeout=3, markup=False)
        else:
            self._ask(preset_questions.save)

    def action_save_as(self) -> None:
        """Saves under another name, as a user's preset."""
        if self._valid_preset("saved") is not None:
            self._ask(preset_questions.save_as)

    def action_duplicate(self) -> None:
        """Copies the preset's file unchanged, with its comments."""
        self._ask(preset_questions.duplicate)

    def action_rename(self) -> None:
        """Renames a user's preset."""
        if self._is_own("renamed"):
            self._ask(preset_questions.rename)

    def action_delete(self) -> None:
        """Deletes a user's preset after a confirmation."""
        if self._is_own("deleted"):
            self._ask(preset_questions.delete)

    @work
    async def _ask(self, question: Question) -> None:
        """Runs a file operation with its dialogs, and shows the resulting preset."""
        if self._current is None:
            return
        try:
            reference = await question(self.app, self.open_presets, self._current)
        except Gpt2TuiError as error:
            self.workbench.show_error("Nothing was changed", str(error))
            return
        if reference is not None:
            self.select_preset(reference)
            self._refresh_list()
            self._start_scan()

    def _valid_preset(self, action: str) -> LoadedPreset | None:
        """The preset in the form; while it is not valid, None, with a message that it cannot be `action`."""
        document = self._current
        if document is None:
            return None
        self._validate()
        loaded = document.loaded()
        if loaded is None:
            reason = "\n".join(f"{key}: {text}" for key, text in list(self._checked.mistakes.items())[:5])
            if document.unreadable:
                reason = f"the file cannot be read: {document.unreadable}"
            self.notify(sanitize(reason), title=f"Not {action}", severity="error", markup=False)
            self.action_next_mistake()
        return loaded

    def _is_own(self, action: str) -> bool:
        """Whether it is a user's preset; for a shipped one, shows a message that it cannot be `action`."""
        own = self._current is not None and not self._current.source.shipped
        if not own:
            self.notify(f"a shipped preset cannot be {action}; duplicate it", severity="warning", markup=False)
        return own
