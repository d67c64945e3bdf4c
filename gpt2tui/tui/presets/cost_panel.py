"""The cost estimate and the Train button. The device and the corpus are looked up in threads, each once."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Button

from gpt2tui.preset.files import LoadedPreset
from gpt2tui.system.device_speed import DeviceSpeed
from gpt2tui.tui.base import in_own_thread, workbench_of
from gpt2tui.tui.presets import costs as preset_costs
from gpt2tui.tui.presets.costs import CorpusKey, DeviceKey, Found
from gpt2tui.tui.presets.estimator import Estimator, is_strip

if TYPE_CHECKING:
    from gpt2tui.data.readiness import DataState

FIRST_LOOK_SECONDS = 1.0  # the first lookup imports torch, which must not delay the first keys of the user
LOOK_SECONDS = 0.4
RETRY_SECONDS = 5.0
MAX_CORPORA = 64
WHILE_TRAINING: Found[DeviceSpeed] = Found(None, "measured after the training")
log = logging.getLogger(__name__)


@dataclass
class DeviceFound(Message):
    """A device was measured; `undisturbed` says that no training ran at the same time."""

    key: DeviceKey
    found: Found[DeviceSpeed]
    undisturbed: bool


@dataclass
class CorpusFound(Message):
    """A corpus was looked up."""

    key: CorpusKey
    found: "Found[DataState]"


class CostPanel(Vertical):
    """Shows the costs of a preset; numbers that are not known yet follow when a thread has found them."""

    DEFAULT_CSS = """
    CostPanel { border: round $foreground 20%; border-title-color: $text-primary; layout: vertical; }
    CostPanel Button { width: 1fr; margin: 0 1; height: 1; }
    CostPanel.-strip {
        layout: horizontal; border: none; border-top: round $foreground 20%;
        & Estimator { width: 1fr; }
        & Button { width: 11; height: 3; margin: 0 1 0 0; }
    }
    """

    def __init__(self) -> None:
        super().__init__()
        self.border_title = "Estimate"
        self._loaded: LoadedPreset | None = None
        self._devices: dict[DeviceKey, Found[DeviceSpeed]] = {}
        self._corpora: dict[CorpusKey, Found[DataState]] = {}
        self._outdated: set[CorpusKey] = set()
        self._lookups: set[str] = set()
        self._timer: Timer | None = None
        self._delay = FIRST_LOOK_SECONDS

    def compose(self) -> ComposeResult:
        """The estimate above the button."""
        yield Estimator()
        yield Button("Train  ^t", variant="success", id="train", compact=True)

    def show(self, loaded: LoadedPreset) -> None:
        """Shows the known costs of a valid preset at once, and the rest soon."""
        self._loaded = loaded
        self.query_one("#train", Button).disabled = False
        self._draw()
        if self._is_incomplete():
            self._look_soon(self._delay)

    def show_mistakes(self, keys: Sequence[str]) -> None:
        """Shows that the preset is not valid and disables the button."""
        self._loaded = None
        self.query_one("#train", Button).disabled = True
        self.query_one(Estimator).show_mistakes(keys)

    def clear(self) -> None:
        """Removes the last preset's costs, before another preset is shown."""
        self._loaded = None
        self.query_one(Estimator).clear()

    def recheck_corpora(self) -> None:
        """Looks the corpora up again, because they may have been prepared since."""
        self._outdated = set(self._corpora)
        if self._loaded is not None:
            self._look_soon(self._delay)

    def on_resize(self) -> None:
        """Puts the button beside the numbers where the panel is wide and low."""
        self.set_class(is_strip(self.outer_size.width, self.outer_size.height), "-strip")

    @on(DeviceFound)
    def device_found(self, message: DeviceFound) -> None:
        """Draws with the device's speed; one measured during a training is not kept."""
        self._lookups.discard("device")
        if message.undisturbed:
            self._devices[message.key] = message.found
        self._update()

    @on(CorpusFound)
    def corpus_found(self, message: CorpusFound) -> None:
        """Draws with the size of the corpus."""
        self._lookups.discard("corpus")
        while len(self._corpora) >= MAX_CORPORA:
            del self._corpora[next(iter(self._corpora))]
        self._corpora[message.key] = message.found
        self._outdated.discard(message.key)
        self._update()

    def _update(self) -> None:
        self._draw()
        if self._is_incomplete():
            self._look_soon(LOOK_SECONDS)

    def _draw(self) -> None:
        if self._loaded is not None:
            preset = self._loaded.preset
            device = self._devices.get(preset_costs.device_key(preset), WHILE_TRAINING if self._training else None)
            corpus = self._corpora.get(preset_costs.corpus_key(preset))
            self.query_one(Estimator).show(preset, preset_costs.costs(preset, device, corpus))

    def _is_incomplete(self) -> bool:
        if self._loaded is None:
            return False
        preset = self._loaded.preset
        device, corpus = preset_costs.device_key(preset), preset_costs.corpus_key(preset)
        return device not in self._devices or not self._is_known(corpus)

    def _is_known(self, corpus: CorpusKey) -> bool:
        return corpus in self._corpora and corpus not in self._outdated

    def _look_soon(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(seconds, self._look)

    def _look(self) -> None:
        """Starts the lookups of what is not known, one thread at most for each kind."""
        if self._loaded is None or not self.is_mounted or self.screen is not self.app.screen:
            return
        self._delay = LOOK_SECONDS
        loaded, preset = self._loaded, self._loaded.preset
        corpus, device = preset_costs.corpus_key(preset), preset_costs.device_key(preset)
        if "corpus" not in self._lookups and not self._is_known(corpus):
            self._lookups.add("corpus")
            self._find(lambda: preset_costs.look_at_corpus(loaded), lambda found: CorpusFound(corpus, found))
        if "device" not in self._lookups and device not in self._devices:
            if self._training:  # measuring would slow it down, and get a wrong speed
                self._draw()
                self._look_soon(RETRY_SECONDS)
                return
            self._lookups.add("device")
            session = workbench_of(self.app).session
            before = session.launch

            def measured(found: Found[DeviceSpeed]) -> Message:
                return DeviceFound(device, found, not session.active and session.launch is before)

            self._find(lambda: in_own_thread(lambda: preset_costs.measure_device(preset), "measure"), measured)

    @property
    def _training(self) -> bool:
        return workbench_of(self.app).session.active

    @work(thread=True)
    def _find(self, look: Callable[[], Found[Any]], to_message: Callable[[Found[Any]], Message]) -> None:
        try:
            found = look()
        except Exception as error:  # a bug: it is logged, and the estimate names what is missing
            log.exception("a lookup for the estimate failed")
            found = Found(None, f"not known: {type(error).__name__}")
        self.post_message(to_message(found))
