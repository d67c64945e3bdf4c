"""The Presets screen: choose a preset, change it in a form, see what it costs, save it, train it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Button, Input, OptionList, Static

from gpt2tui import preset_files
from gpt2tui.errors import Gpt2TuiError
from gpt2tui.preset_files import LoadedPreset, PresetSource, Setting
from gpt2tui.printable import printable
from gpt2tui.terminal_text import sanitize
from gpt2tui.tui import preset_library
from gpt2tui.tui.preset_difference import flat
from gpt2tui.tui.preset_document import PresetDocument
from gpt2tui.tui.preset_editing import Checked, differences
from gpt2tui.tui.preset_scan import PresetScan, ScannedPreset
from gpt2tui.tui.screen_bases import ModeScreen
from gpt2tui.tui.setting_text import as_override
from gpt2tui.tui.widgets.cost_panel import CostPanel
from gpt2tui.tui.widgets.dialogs import ConfirmDialog, TextDialog
from gpt2tui.tui.widgets.difference_dialog import Comparison, DifferenceDialog
from gpt2tui.tui.widgets.key_footer import KeyFooter
from gpt2tui.tui.widgets.mode_bar import ModeBar
from gpt2tui.tui.widgets.preset_form import PresetForm
from gpt2tui.tui.widgets.preset_list import PresetList, PresetRow
from gpt2tui.tui.widgets.setting_field import SettingField

FIRST_PRESET = "small"
CHECK_SECONDS = 0.08  # typing goes on; what is right and what it costs follows
REMEMBER_SECONDS = 0.5  # what the cursor only passes over is not written down
LOOK_SECONDS = 2.0  # how often the folders are looked at


@dataclass
class Scanned(Message):
    """The folders of presets have been looked at."""

    presets: Sequence[ScannedPreset]


class PresetsScreen(ModeScreen):
    """A list, a form and the costs. Each preset keeps its edits while one looks at others."""

    HELP = """\
Every preset keeps its unsaved changes, marked *, until the workbench is left. A shipped preset can be changed and
trained, and saved under another name; its own file is never written.
A mistake stands under its field in the words of the command line; what is not valid is neither saved nor trained.
parameters: every trained number, the tied embedding counted once. tokens a step: batch_size x gradient_accumulation x
sequence_length. memory: on one device at the end of a forward pass. time: training steps only, from a measured speed.
Chinchilla's optimum: about 20 tokens for each parameter give the lowest loss for the compute (Hoffmann et al. 2022).
"""
    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (60, "-narrow"), (110, "-wide")]  # noqa: RUF012 - as Screen has it
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (16, "-low"), (30, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+t", "train", "Train", key_display="^t", tooltip="what is in the form, saved or not"),
        Binding("ctrl+s", "save", "Save", key_display="^s"),
        Binding("ctrl+z", "undo", "Undo", key_display="^z", priority=True),
        Binding("ctrl+y", "redo", "Redo", key_display="^y", priority=True, show=False),
        Binding("v", "difference", "Diff", tooltip="what differs from the saved and from the shipped preset"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("w", "save_as", "Save as", show=False),
        Binding("d", "duplicate", "Duplicate", show=False),
        Binding("r", "rename", "Rename", show=False),
        Binding("delete,D", "delete", "Delete", show=False, key_display="Del"),
        Binding("u", "revert", "Revert", show=False, tooltip="takes the saved values back; undo brings yours again"),
        Binding("enter", "edit", "Edit", show=False, tooltip="goes into the form"),
        Binding("f8", "next_mistake", "Next mistake", show=False),
        Binding("escape", "back", "Back", show=False, tooltip="one step: form, filter, list"),
    ]
    CSS_PATH = "presets.tcss"

    def __init__(self) -> None:
        super().__init__()
        self._scan = PresetScan()
        self._scanned: dict[Path, ScannedPreset] = {}
        self._documents: dict[Path, PresetDocument] = {}
        self._current: PresetDocument | None = None
        self._checked = Checked(None)
        self._check_soon: Timer | None = None
        self._titles = ("", "")
        self._looking = False
        self._remember_soon: Timer | None = None
        self._asked_about: set[tuple[Path, object]] = set()

    def compose(self) -> ComposeResult:
        """List, form and costs between the mode bar and the keys."""
        yield ModeBar()
        with Container(id="presets-body"):
            with Vertical(id="preset-pane", classes="pane") as pane:
                pane.border_title = "Presets"
                yield Input(placeholder="/ filter", id="preset-filter", compact=True)
                yield PresetList(id="preset-list")
            with Vertical(id="form-pane", classes="pane"):
                with Container(id="preset-tools"):
                    for label, action in (
                        ("Save as", "save_as"),
                        ("Duplicate", "duplicate"),
                        ("Rename", "rename"),
                        ("Delete", "delete"),
                        ("Revert", "revert"),
                    ):
                        button = Button(label, compact=True, action=f"screen.{action}", id=f"tool-{action}")
                        button.can_focus = False  # for the mouse; keys and the palette have them all
                        yield button
                yield Static("", id="preset-file", markup=False)
                yield PresetForm()
                yield Static("", id="setting-help", markup=False)
            yield CostPanel()
        yield KeyFooter()

    # ---- coming up

    def on_mount(self) -> None:
        """Opens the preset of the command line, else the one of last time, and begins to look at the folders."""
        self._show_list(preset_files.available())
        preselected = self.workbench.preselected
        if preselected is not None:
            self._open_loaded(preselected)
        else:
            self.select_preset(self.workbench.settings.preset or FIRST_PRESET)
        self.query_one(PresetList).focus()
        self.set_interval(LOOK_SECONDS, self._look)
        self._look()

    @on(events.ScreenResume)
    def come_back(self) -> None:
        """A training may have prepared the corpus, and files may have changed."""
        self.query_one(CostPanel).forget_corpora()
        if self._current is not None:
            self._look()

    def select_preset(self, name: str) -> None:
        """Shows a preset by name, or by the path of its file; else the first there is."""
        sources = self._sources(preset_files.available())
        named = [source for source in sources if name in (source.name, str(source.path))]
        if not named and name.endswith(".toml") and Path(name).is_file():
            named = [PresetSource(Path(name).stem, Path(name), shipped=False)]
        fallback = [source for source in sources if source.name == FIRST_PRESET]
        for source in (*named, *fallback, *sources)[:1]:
            self._open(self._document(source))

    def unsaved_changes(self) -> str | None:
        """What leaving the workbench would lose, in a sentence."""
        names = [document.name for document in self._documents.values() if document.changed]
        if not names:
            return None
        shown = ", ".join(printable(name, 40) for name in names[:5])
        return f"unsaved changes of the preset{'s' if len(names) > 1 else ''} {shown}"

    @on(events.DescendantFocus)
    @on(events.DescendantBlur)
    def mark_pane(self) -> None:
        """Shows which pane has the focus. With `:focus-within` each step in the form would restyle all of it."""
        for pane in self.query(".pane"):
            if pane.has_class("-active") != pane.has_focus_within:
                pane.set_class(pane.has_focus_within, "-active", update=False)
                self.app.stylesheet.update_nodes([pane])

    # ---- the list

    @on(OptionList.OptionHighlighted, "#preset-list")
    def choose(self, event: OptionList.OptionHighlighted) -> None:
        """The cursor is on another preset."""
        source = next((s for s in self._sources() if str(s.path) == event.option_id), None)
        if source is not None and (self._current is None or self._current.source.path != source.path):
            self._open(self._document(source))

    @on(OptionList.OptionSelected, "#preset-list")
    def enter_form(self) -> None:
        """Enter goes from the list into the form."""
        self.action_edit()

    @on(Input.Changed, "#preset-filter")
    def filter_changed(self) -> None:
        """Shows the presets whose name has what is typed."""
        self._refresh_list()

    @on(Input.Submitted, "#preset-filter")
    def filter_done(self) -> None:
        """Enter takes the first of them."""
        rows = self._rows()
        if rows and (self._current is None or str(self._current.source.path) not in {row.id for row in rows}):
            self.select_preset(rows[0].id)
        self.query_one(PresetList).focus()

    @on(Scanned)
    def show_scanned(self, message: Scanned) -> None:
        """The folders as they are now; what was written by others is taken, or asked about."""
        self._scanned = {preset.source.path: preset for preset in message.presets}
        self._refresh_list()
        for document in list(self._documents.values()):
            if document.moved_on:
                self._moved_on(document)

    def _look(self) -> None:
        if self.app.screen is self and not self._looking:
            self._looking = True
            self._scan_folders([document.source for document in self._documents.values()])

    @work(thread=True, group="preset-scan")
    def _scan_folders(self, extra: Sequence[PresetSource]) -> None:
        try:
            presets = self._scan.look(extra)
        finally:
            self._looking = False
        self.post_message(Scanned(presets))

    def _moved_on(self, document: PresetDocument) -> None:
        stamp = preset_library.stamp(document.source.path)
        name = sanitize(document.name, keep_newlines=False)
        if (document.source.path, stamp) in self._asked_about:
            return
        if stamp is None:
            self._asked_about.add((document.source.path, stamp))
            if not document.changed and document is not self._current:
                self._documents.pop(document.source.path, None)
            else:
                self.notify(f"{name} was deleted on disk; saving writes it again", severity="warning", markup=False)
        elif not document.changed:
            document.reload()
            self.notify(f"{name} has changed on disk and was read again", markup=False)
            if document is self._current:
                self._show_document()
        elif document is self._current and self.app.screen is self:
            self._asked_about.add((document.source.path, stamp))
            self._ask_moved_on(document)

    @work
    async def _ask_moved_on(self, document: PresetDocument) -> None:
        text = (
            f"{document.source.path} was written by another program, and here it has unsaved changes.\n\n"
            "Keep yours, and saving will write over the file; or take the file's, and undo brings yours back."
        )
        answer = await self.app.push_screen_wait(ConfirmDialog("Changed on disk", text, "Keep mine", "Take the file's"))
        if answer == "Take the file's":
            document.reload()
            if document is self._current:
                self._show_document()
        else:
            document.ignore_file()

    # ---- the form

    @on(SettingField.Changed)
    def changed(self, message: SettingField.Changed) -> None:
        """A setting was changed: keep it at once, judge it in a moment."""
        if self._current is None:
            return
        self._current.editing.set(message.key, message.value)
        self._show_setting(message.field.setting)
        if self._check_soon is not None:
            self._check_soon.stop()
        self._check_soon = self.set_timer(CHECK_SECONDS, self._show_checked)

    @on(PresetForm.FieldFocused)
    def field_focused(self, message: PresetForm.FieldFocused) -> None:
        """Explains the setting at the bottom; what is typed in it is a step of its own."""
        if self._current is not None:
            self._current.editing.end_step()
        self._show_setting(message.setting)

    # ---- actions

    def action_edit(self) -> None:
        """Goes into the form."""
        self.query_one(PresetForm).focus_field()

    def action_back(self) -> None:
        """One step back: from the form or a used filter to the list."""
        entry = self.query_one("#preset-filter", Input)
        if entry.has_focus or not self.query_one("#preset-pane").has_focus_within:
            if entry.has_focus:
                entry.value = ""
            self.query_one(PresetList).focus()
        else:
            entry.value = ""

    def action_filter(self) -> None:
        """Goes to the filter of the list."""
        self.query_one("#preset-filter", Input).focus()

    def action_undo(self) -> None:
        """Takes the last change of this preset back."""
        if self._current is not None and self._current.editing.undo():
            self._show_values()
        else:
            self.notify("nothing to undo", timeout=2, markup=False)

    def action_redo(self) -> None:
        """Takes an undo back."""
        if self._current is not None and self._current.editing.redo():
            self._show_values()
        else:
            self.notify("nothing to redo", timeout=2, markup=False)

    def action_revert(self) -> None:
        """Shows the saved values again, as a step that can be undone."""
        if self._current is not None and self._current.changed:
            self._current.editing.replace(self._current.editing.saved)
            self._show_values()
            self.notify("as it was saved; undo brings your changes back", timeout=4, markup=False)

    def action_next_mistake(self) -> None:
        """Goes to the next field that is wrong."""
        fields = self.query_one(PresetForm).fields()
        at = next((number for number, field in enumerate(fields) if field.has_focus_within), -1)
        wrong = [field for field in (*fields[at + 1 :], *fields[: at + 1]) if field.mistake]
        if wrong:
            wrong[0].editor.focus()

    def action_difference(self) -> None:
        """Shows what differs from the saved preset and from the nearest shipped one."""
        document = self._current
        if document is None:
            return
        values = document.editing.values
        comparisons = [
            Comparison(
                f"from {document.name} as it is saved",
                differences(document.editing.saved, values),
            )
        ]
        shipped = preset_library.nearest_shipped(document.name, values)
        if shipped is not None and not (document.source.shipped and shipped[0] == document.name):
            comparisons.append(Comparison(f"from the shipped {shipped[0]}", differences(shipped[1], values)))
        self.app.push_screen(DifferenceDialog("Differences", comparisons))

    def action_train(self) -> None:
        """Trains what is in the form."""
        loaded = self._valid("trained")
        if loaded is not None:
            self.workbench.start_training(loaded)

    def action_save(self) -> None:
        """Saves; a shipped preset under another name."""
        document = self._current
        if document is None or self._valid("saved") is None:
            return
        if document.source.shipped:
            self.action_save_as()
        elif not document.changed and not document.moved_on:
            self.notify("nothing to save: the file says the same", timeout=3, markup=False)
        else:
            self._save(document)

    @work
    async def _save(self, document: PresetDocument) -> None:
        if document.moved_on and preset_library.stamp(document.source.path) is not None:
            text = f"{document.source.path} was written by another program since it was read here."
            dialog = ConfirmDialog("Changed on disk", text, "Back", "!Write over it", "Save as …")
        elif document.lost:
            text = f"The file has {' and '.join(document.lost)}, which saving from the form does not keep."
            dialog = ConfirmDialog("Saving loses something", text, "Save as …", "!Save without", "Back")
        else:
            dialog = None
        answer = await self.app.push_screen_wait(dialog) if dialog else "!"
        if answer == "Save as …":
            self.action_save_as()
        elif answer and answer.startswith("!"):
            try:
                document.save()
            except Gpt2TuiError as error:
                self.workbench.show_error("Not saved", str(error))
                return
            self._saved(document)

    @work
    async def action_save_as(self) -> None:
        """Saves under another name, as a preset of the user's own."""
        document = self._current
        if document is None or self._valid("saved") is None:
            return
        suggested = preset_library.free_name(document.name)
        text = "The name of your own preset:"
        name = await self.app.push_screen_wait(
            TextDialog("Save as", text, suggested, validate=preset_library.why_not_a_name)
        )
        if name is None:
            return
        try:
            saved = document.save_as(preset_library.path_of(name))
        except Gpt2TuiError as error:
            self.workbench.show_error("Not saved", str(error))
            return
        self._documents[saved.source.path] = saved
        self._current = saved
        self._saved(saved)

    @work
    async def action_duplicate(self) -> None:
        """Copies the preset's file as it is, comments included."""
        document = self._current
        if document is None:
            return
        suggested = preset_library.free_name(document.name)
        note = " Unsaved changes stay where they are." if document.changed else ""
        name = await self.app.push_screen_wait(
            TextDialog("Duplicate", f"The name of the copy.{note}", suggested, validate=preset_library.why_not_a_name)
        )
        if name is not None and self._on_disk(lambda: preset_library.duplicate(document.source, name)):
            self._after_disk(name)

    @work
    async def action_rename(self) -> None:
        """Gives the user's own preset another name."""
        document = self._current
        if document is None or self._is_shipped(document, "renamed"):
            return
        name = await self.app.push_screen_wait(
            TextDialog(
                "Rename",
                "The new name:",
                document.name,
                validate=lambda name: preset_library.why_not_a_name(name, document.name),
            )
        )
        if name is None or name == document.name:
            return
        old, path = document.source.path, document.source.path.with_name(f"{name}.toml")
        if self._on_disk(lambda: preset_library.rename(document.source, name)):
            self._documents.pop(old, None)
            document.renamed(path)
            self._documents[path] = document
            self._after_disk(str(path))

    @work
    async def action_delete(self) -> None:
        """Deletes the user's own preset, when that is confirmed."""
        document = self._current
        if document is None or self._is_shipped(document, "deleted"):
            return
        text = f"{document.source.path} will be gone. Runs made with it keep their own copy."
        answer = await self.app.push_screen_wait(ConfirmDialog(f"Delete {document.name}?", text, "Keep it", "!Delete"))
        if answer == "!Delete" and self._on_disk(lambda: preset_library.delete(document.source)):
            self._documents.pop(document.source.path, None)
            self._current = None
            self._after_disk(document.name)  # a shipped one of its name comes to light

    # ---- showing

    def _document(self, source: PresetSource) -> PresetDocument:
        if source.path not in self._documents:
            self._documents[source.path] = PresetDocument(source)
        return self._documents[source.path]

    def _open_loaded(self, loaded: LoadedPreset) -> None:
        """A preset of several layers and overrides: the last layer's document, the rest as unsaved changes."""
        path = loaded.layers[-1].resolve()
        source = next((source for source in self._sources() if source.path.resolve() == path), None)
        document = self._document(source or PresetSource(path.stem, path, shipped=False))
        document.editing.replace(flat(loaded.preset))
        self._open(document)

    def _open(self, document: PresetDocument) -> None:
        self._documents[document.source.path] = document
        self._current = document
        self.query_one(PresetList).choose(str(document.source.path))
        if self._remember_soon is not None:
            self._remember_soon.stop()
        self._remember_soon = self.set_timer(REMEMBER_SECONDS, self._remember)
        self._show_document()

    def _remember(self) -> None:
        document = self._current
        if document is not None:
            named = any(source.path == document.source.path for source in preset_files.available())
            reference = document.name if named else str(document.source.path)
            self.workbench.settings.remember("preset", reference)

    def _show_document(self) -> None:
        document = self._current
        if document is None:
            return
        self.query_one(CostPanel).clear()
        lines = [document.unreadable] if document.unreadable else list(document.file_mistakes)
        notes = self.query_one("#preset-file", Static)
        notes.update(Content(sanitize("\n".join(lines))))
        notes.set_class(bool(lines), "-shown")
        form = self.query_one(PresetForm)
        form.disabled = bool(document.unreadable)
        form.display = not document.unreadable
        self._show_values()

    def _show_values(self) -> None:
        if self._current is not None:
            editing = self._current.editing
            self.query_one(PresetForm).show(editing.values, editing.changed_keys)
            self._show_checked()
            focused = self._focused_setting()
            self._show_setting(focused)

    def _show_checked(self) -> None:
        document = self._current
        if document is None:
            return
        form, panel = self.query_one(PresetForm), self.query_one(CostPanel)
        self._checked = document.check() if not document.unreadable else Checked(None)
        form.show(document.editing.values, document.editing.changed_keys)
        form.complain(self._checked.mistakes)
        if self._checked.preset is not None:
            panel.show(LoadedPreset(document.name, self._checked.preset, (document.source.path,)))
        else:
            panel.show_mistakes(max(1, len(self._checked.mistakes)))
        self._show_title()
        self._refresh_list()

    def _show_title(self) -> None:
        document, wrong = self._current, len(self._checked.mistakes)
        if document is None:
            return
        count = len(document.editing.changed_keys)
        words = [printable(document.name, 40)]
        words += ["shipped, read-only"] if document.source.shipped else []
        words += [f"{count} unsaved change{'s' if count > 1 else ''}"] if count else []
        state = Content.styled("valid", "$text-success")
        if document.unreadable:
            state = Content.styled("cannot be read", "$text-error")
        elif wrong:
            state = Content.styled(f"{wrong} mistake{'s' if wrong > 1 else ''} · F8 next", "$text-error")
        title = " · ".join(words)
        if (title, state.plain) == self._titles:
            return  # a new title draws all of the form again
        self._titles = title, state.plain
        pane = self.query_one("#form-pane")
        pane.border_title, pane.border_subtitle = Content(title), state
        for action in ("rename", "delete"):
            self.query_one(f"#tool-{action}").disabled = document.source.shipped
        self.query_one("#tool-revert").disabled = not count

    def _show_setting(self, setting: Setting | None) -> None:
        if self._current is None:
            return
        values = self._current.editing.values
        if setting is None:
            words = Content(" ".join(sanitize(str(values["description"])).split()))
        else:
            override = printable(as_override(setting.key, values[setting.key]), 200)
            allowed = setting.allowed + ("; may be left out" if setting.default is None else "")
            words = Content.assemble(
                setting.help, "\n", (override, "$text-accent"), (f"  {allowed}", "$foreground 45%")
            )
        # Its size is fixed: a layout of the whole screen at each key would be felt.
        self.query_one("#setting-help", Static).update(words, layout=False)

    def _focused_setting(self) -> Setting | None:
        fields = self.query_one(PresetForm).fields()
        return next((field.setting for field in fields if field.has_focus_within), None)

    def _sources(self, found: Sequence[PresetSource] | None = None) -> list[PresetSource]:
        """All presets there were at the last look, or that are `found` now, and those opened from elsewhere."""
        sources = found or [preset.source for preset in self._scanned.values()]
        paths = {source.path for source in sources}
        elsewhere = [d.source for d in self._documents.values() if d.source.path not in paths]
        return [*elsewhere, *sources]

    def _show_list(self, sources: Sequence[PresetSource]) -> None:
        self._scanned = {source.path: ScannedPreset(source) for source in sources}
        self._refresh_list()

    def _rows(self) -> list[PresetRow]:
        wanted = self.query_one("#preset-filter", Input).value.casefold()
        rows = []
        for source in self._sources():
            if wanted not in source.name.casefold():
                continue
            scanned, document = self._scanned.get(source.path), self._documents.get(source.path)
            rows.append(
                PresetRow(
                    id=str(source.path),
                    name=source.name,
                    shipped=source.shipped,
                    size=scanned.size if scanned else "",
                    changed=document.changed if document else False,
                    broken=bool(document.unreadable or document.file_mistakes)
                    if document
                    else bool(scanned and scanned.broken),
                )
            )
        return rows

    def _refresh_list(self) -> None:
        self.query_one(PresetList).show(self._rows())

    # ---- files

    def _valid(self, what: str) -> LoadedPreset | None:
        """The preset in the form; None, and a word about it, while it is not valid."""
        document = self._current
        if document is None:
            return None
        self._show_checked()
        loaded = document.loaded()
        if loaded is None:
            wrong = len(self._checked.mistakes)
            reason = "its file cannot be read" if document.unreadable else f"{wrong} mistake{'s' if wrong > 1 else ''}"
            self.notify(reason, title=f"Not {what}", severity="error", markup=False)
            self.action_next_mistake()
        return loaded

    def _is_shipped(self, document: PresetDocument, what: str) -> bool:
        if document.source.shipped:
            self.notify(f"a shipped preset is not {what}; duplicate it", severity="warning", markup=False)
        return document.source.shipped

    def _on_disk(self, act: "object") -> bool:
        try:
            act()  # type: ignore[operator]
        except Gpt2TuiError as error:
            self.workbench.show_error("Nothing was changed", str(error))
            return False
        return True

    def _after_disk(self, name: str) -> None:
        self._scanned = {source.path: ScannedPreset(source) for source in preset_files.available()}
        self.select_preset(name)
        self._look()

    def _saved(self, document: PresetDocument) -> None:
        self._after_disk(str(document.source.path))
        self.notify(f"saved {printable(document.name, 60)}", timeout=3, markup=False)

    @on(Button.Pressed, "#train")
    def train_pressed(self) -> None:
        """The button does what ctrl+t does."""
        self.action_train()
