"""The sign and the theme colour of each state, the same on all screens. The signs differ, so that none needs colour."""

from gpt2tui.run.state import RunState
from gpt2tui.tui.session import SessionState

SIGNS: dict[SessionState | RunState, tuple[str, str]] = {
    "idle": ("○", "foreground-muted"),
    "empty": ("○", "foreground-muted"),
    "loading": ("◌", "foreground-muted"),
    "unknown": ("?", "foreground-muted"),
    "preparing": ("◌", "text-primary"),
    "training": ("●", "text-primary"),
    "evaluating": ("◆", "text-primary"),
    "saving": ("▼", "text-primary"),
    "cancelling": ("◌", "text-warning"),
    "pausing": ("◐", "text-warning"),
    "paused": ("‖", "text-warning"),
    "finished": ("✓", "text-success"),
    "stopped": ("■", "foreground"),
    "failed": ("✗", "text-error"),
    "crashed": ("!", "text-warning"),
}
"""Green is success, amber asks for attention, red is an error."""

ELSEWHERE = "◉"
"""In place of the sign of a run that another process trains."""
