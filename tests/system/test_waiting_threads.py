"""How threads wait is chosen before torch is loaded, unless the user has chosen."""

import os
import subprocess
import sys

import pytest

from gpt2tui.system.waiting_threads import wait_briefly

AT_IMPORT = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("torch loads with", os.environ.get("GOMP_SPINCOUNT"))
sys.meta_path.insert(0, Watch())
from gpt2tui.__main__ import main
sys.exit(main(["--headless", "--preset", "test", "--dry-run"]))
"""


@pytest.mark.parametrize(
    "variable", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY"], ids=str.lower
)
def test_what_the_user_has_set_stays(variable):
    environment = {variable: "3"}
    wait_briefly(environment)
    assert environment == {variable: "3"}


def test_threads_sleep_soon():
    environment = {"OMP_NUM_THREADS": "2"}
    wait_briefly(environment)
    assert environment == {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}


@pytest.mark.parametrize(("set_before", "seen"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_a_command_chooses_before_it_loads_torch(set_before, seen):
    others = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "KMP_BLOCKTIME")}
    done = subprocess.run(
        [sys.executable, "-c", AT_IMPORT], env=others | set_before, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"torch loads with {seen}\n" in done.stdout
