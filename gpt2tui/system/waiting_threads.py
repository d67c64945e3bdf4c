"""How torch's threads wait for each other."""

import os
from collections.abc import MutableMapping

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""The variables by which a user chooses."""


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Lets threads that wait for each other sleep after about ten microseconds. To be called before torch is loaded.

    They otherwise spin for milliseconds (libgomp) or 200 of them (the runtimes of Intel and LLVM), also while the
    thread they wait for has no core: beside another training, steps become 10 to 40 times as long. Nothing changes
    if the user has set any of these variables. Why 1,000 turns: docs/log.md.
    """
    if any(name in environment for name in WAITING):
        return
    environment["GOMP_SPINCOUNT"] = "1000"
    environment["KMP_BLOCKTIME"] = "1"  # ms; older ones take no smaller unit
