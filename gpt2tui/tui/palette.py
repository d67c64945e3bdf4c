"""The command palette: the action of every key, and commands for each preset and run."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from textual.actions import parse
from textual.binding import ActiveBinding, Binding
from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content

from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.base import Workbench, workbench_of
from gpt2tui.tui.widgets.mode_bar import MODES

# Textual's own bindings, which every screen has.
SKIPPED = ("screen.copy_text", "app.focus_next", "app.focus_previous")


@dataclass(frozen=True)
class Entry:
    """A line of the palette."""

    title: str
    help: str
    act: Callable[[], object]
    listed_at_once: bool = True
    """Whether the palette lists it before the user types; presets and runs may be many."""


class WorkbenchCommands(Provider):
    """The commands of the workbench."""

    async def startup(self) -> None:
        """Reads the names of presets and runs from disk."""
        self._names = await asyncio.to_thread(_names)

    async def discover(self) -> Hits:
        """The commands listed before the user types."""
        for entry in self._entries():
            if entry.listed_at_once:
                yield DiscoveryHit(Content(entry.title), entry.act, text=entry.title, help=entry.help)

    async def search(self, query: str) -> Hits:
        """The commands that match the query."""
        matcher = self.matcher(query)
        for entry in self._entries():
            score = matcher.match(entry.title)
            if score > 0:
                yield Hit(score, matcher.highlight(entry.title), entry.act, text=entry.title, help=entry.help)

    @property
    def _workbench(self) -> Workbench:
        return workbench_of(self.app)

    def _entries(self) -> Iterator[Entry]:
        yield from self._key_entries()
        yield from self._mode_entries()
        yield from self._training_entries()
        presets, run_names = self._names
        for name in presets:
            yield from self._preset_entries(name)
        for name in run_names:
            yield from self._run_entries(name)

    def _key_entries(self) -> Iterator[Entry]:
        """Each binding of the screen in front that has a description, also letters that a focused input would take."""
        seen: set[str] = set()
        active_bindings = list(self.screen.active_bindings.values())
        active_bindings += [self._screen_entries(binding) for binding in Binding.make_bindings(self.screen.BINDINGS)]
        for active in active_bindings:
            binding, node = active.binding, active.node
            of_textual = type(node).__module__.startswith("textual.") or binding.action in SKIPPED
            if not binding.description or binding.description in seen or not active.enabled:
                continue
            if node is self.app or of_textual:
                continue
            seen.add(binding.description)

            async def act(action: str = binding.action, node: object = node) -> None:
                await self.app.run_action(action, node)  # type: ignore[arg-type]

            yield Entry(
                sanitize(binding.description, keep_newlines=False),
                f"{binding.tooltip or 'on this screen'} · {self.app.get_key_display(binding)}",
                act,
            )

    def _screen_entries(self, binding: Binding) -> ActiveBinding:
        enabled = bool(self.screen.check_action(*parse(binding.action)[1:]))
        return ActiveBinding(self.screen, binding, enabled, binding.tooltip)

    def _mode_entries(self) -> Iterator[Entry]:
        for number, (mode, label) in enumerate(MODES.items(), start=1):

            def act(mode: str = mode) -> None:
                self._workbench.action_go(mode)

            yield Entry(f"Go to {label}", f"switch to {label} · {number}", act)

    def _training_entries(self) -> Iterator[Entry]:
        app = self._workbench
        session = app.session
        if session.state == "training":
            yield Entry("Training: pause", "wait after this step", session.pause)
        if session.state in ("pausing", "paused"):
            yield Entry("Training: resume", "end the pause", session.resume)
        if session.state in ("training", "pausing", "paused"):
            yield Entry("Training: save a checkpoint now", "after this step", lambda: session.request("checkpoint"))
            yield Entry(
                "Training: evaluate now", "the validation loss, after this step", lambda: session.request("evaluate")
            )
            yield Entry("Training: write a sample now", "after this step", lambda: session.request("sample"))
            yield Entry("Training: chat with the live weights", "while it trains", lambda: app.open_chat(None))
        if session.active:
            yield Entry("Training: stop and save", "it can be resumed later", session.stop)

    def _preset_entries(self, name: str) -> Iterator[Entry]:
        shown = sanitize(name, keep_newlines=False)
        yield Entry(f"Train {shown}", "a new run of this preset", lambda: self._workbench.train_preset(name), False)
        yield Entry(f"Edit preset {shown}", "in the form", lambda: self._workbench.open_preset(name), False)

    def _run_entries(self, name: str) -> Iterator[Entry]:
        app, shown = self._workbench, sanitize(name, keep_newlines=False)
        yield Entry(f"Show run {shown}", "on the Train screen", lambda: app.act_on_run(name, "attach"), False)
        yield Entry(f"Chat with run {shown}", "its best val checkpoint", lambda: app.act_on_run(name, "chat"), False)
        yield Entry(f"Resume run {shown}", "from its newest checkpoint", lambda: app.act_on_run(name, "resume"), False)


def _names() -> tuple[list[str], list[str]]:
    """Presets and runs, the newest run first."""
    from gpt2tui.preset import files as preset_files
    from gpt2tui.run import folder as runs  # late: only the palette needs them

    return [source.name for source in preset_files.available()], [run.name for run in reversed(runs.all_runs())]
