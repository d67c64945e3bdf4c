"""The states of the training that this process owns."""

from typing import Literal

SessionState = Literal["idle", "preparing", "running", "pausing", "paused", "stopping", "finished", "failed"]

ACTIVE: frozenset[SessionState] = frozenset({"preparing", "running", "pausing", "paused", "stopping"})
"""Those in which a thread trains, or is about to, and no second training may begin."""
