"""The estimator and the button that trains. It finds out in threads what the estimate stands on, each thing once."""

import logging
from collections.abc import Callable
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

FIRST_LOOK_SECONDS = 1.0  # the first look imports torch, which must not delay what a person does first
LOOK_SECONDS = 0.4
LATER: Found[DeviceSpeed] = Found(None, "measured after the training")
RETRY_SECONDS = 5.0
MOST_CORPORA = 64
log = logging.getLogger(__name__)


@dataclass
class DeviceFound(Message):
    """A device has been measured, while no training disturbed it or (`undisturbed` is false) perhaps beside one."""

    key: DeviceKey
    found: Found[DeviceSpeed]
    undisturbed: bool


@dataclass
class CorpusFound(Message):
    """A corpus has been looked at."""

    key: CorpusKey
    found: "Found[DataState]"


class CostPanel(Vertical):
    """Shows the costs of the preset it is given; what is not known yet follows when a thread has found it."""

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
        self._doubtful: set[CorpusKey] = set()
        self._looking: set[str] = set()
        self._soon: Timer | None = None
        self._delay = FIRST_LOOK_SECONDS

    def compose(self) -> ComposeResult:
        """The numbers over the button."""
        yield Estimator()
        yield Button("Train  ^t", variant="success", id="train", compact=True)

    def show(self, loaded: LoadedPreset) -> None:
        """Shows what is known of a valid preset's costs at once, and soon the rest."""
        self._loaded = loaded
        self.query_one("#train", Button).disabled = False
        self._draw()
        if self._wanted():
            self._look_soon(self._delay)

    def show_mistakes(self, number: int) -> None:
        """The preset is not valid: it cannot be trained, and what it would cost is not known."""
        self._loaded = None
        self.query_one("#train", Button).disabled = True
        self.query_one(Estimator).show_mistakes(number)

    def clear(self) -> None:
        """Another preset comes: nothing of the last one stays."""
        self._loaded = None
        self.query_one(Estimator).clear()

    def forget_corpora(self) -> None:
        """They may have been prepared since."""
        self._doubtful = set(self._corpora)
        if self._loaded is not None:
            self._look_soon(self._delay)

    def on_resize(self) -> None:
        """Wide and low: the button stands beside the numbers."""
        self.set_class(is_strip(self.outer_size.width, self.outer_size.height), "-strip")

    @on(DeviceFound)
    def device_found(self, message: DeviceFound) -> None:
        """Draws with the device's speed; one measured beside a training is nothing that lasts."""
        self._looking.discard("device")
        if message.undisturbed:
            self._devices[message.key] = message.found
        self._found()

    @on(CorpusFound)
    def corpus_found(self, message: CorpusFound) -> None:
        """Draws with the corpus's size."""
        self._looking.discard("corpus")
        while len(self._corpora) >= MOST_CORPORA:
            del self._corpora[next(iter(self._corpora))]
        self._corpora[message.key] = message.found
        self._doubtful.discard(message.key)
        self._found()

    def _found(self) -> None:
        self._draw()
        if self._wanted():
            self._look_soon(LOOK_SECONDS)

    def _draw(self) -> None:
        if self._loaded is not None:
            preset = self._loaded.preset
            device = self._devices.get(preset_costs.device_key(preset), LATER if self._training else None)
            corpus = self._corpora.get(preset_costs.corpus_key(preset))
            self.query_one(Estimator).show(preset, preset_costs.costs(preset, device, corpus))

    def _wanted(self) -> bool:
        if self._loaded is None:
            return False
        preset = self._loaded.preset
        device, corpus = preset_costs.device_key(preset), preset_costs.corpus_key(preset)
        return device not in self._devices or not self._is_known(corpus)

    def _is_known(self, corpus: CorpusKey) -> bool:
        return corpus in self._corpora and corpus not in self._doubtful

    def _look_soon(self, seconds: float) -> None:
        if self._soon is not None:
            self._soon.stop()
        self._soon = self.set_timer(seconds, self._look)

    def _look(self) -> None:
        """Starts what is not known and not under way; a second thread for the same thing never runs."""
        if self._loaded is None or not self.is_mounted:
            return
        if self.screen is not self.app.screen:
            return
        self._delay = LOOK_SECONDS
        loaded, preset = self._loaded, self._loaded.preset
        corpus, device = preset_costs.corpus_key(preset), preset_costs.device_key(preset)
        if "corpus" not in self._looking and not self._is_known(corpus):
            self._looking.add("corpus")
            self._find(lambda: preset_costs.look_at_corpus(loaded), lambda found: CorpusFound(corpus, found))
        if "device" not in self._looking and device not in self._devices:
            if self._training:  # measuring would disturb it, and measure its neighbour's leftovers
                self._draw()
                self._look_soon(RETRY_SECONDS)
                return
            self._looking.add("device")
            session = workbench_of(self.app).session
            before = session.launch

            def measured(found: Found[DeviceSpeed]) -> Message:
                return DeviceFound(device, found, not session.active and session.launch is before)

            self._find(lambda: in_own_thread(lambda: preset_costs.measure_device(preset), "measure"), measured)

    @property
    def _training(self) -> bool:
        return workbench_of(self.app).session.active

    @work(thread=True)
    def _find(self, look: Callable[[], Found[Any]], tell: Callable[[Found[Any]], Message]) -> None:
        try:
            found = look()
        except Exception as error:  # a bug: it is in the log, and the estimate says what is missing
            log.exception("the estimator could not look")
            found = Found(None, f"not known: {type(error).__name__}")
        self.post_message(tell(found))
