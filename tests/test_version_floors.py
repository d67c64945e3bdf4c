"""The lowest versions that pyproject.toml allows have none of the vulnerabilities known to us."""

import re
import tomllib
from pathlib import Path

import pytest

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
FIXED = {
    "torch": (
        "2.11",
        "weights_only=True ran code (CVE-2025-32434, CVE-2026-24747); 2.10.0 is the last of PYSEC-2026-139",
    ),
    "filelock": ("3.20.3", "a link named as the lock was followed (CVE-2025-68146, CVE-2026-22701)"),
    "aiohttp": ("3.14.1", "requests could use up the memory of the server (CVE-2025-69228, CVE-2026-22815, others)"),
    "datasets": ("4", "a data set could run the code in its repository"),
}


def parts(version):
    return tuple(map(int, version.split(".")))


@pytest.mark.parametrize("name", FIXED)
def test_the_floor_has_no_known_hole(name):
    fixed, hole = FIXED[name]
    lines = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["serve"]]
    floors = [re.search(r">=([\d.]+)", line)[1] for line in lines if re.match(rf"{name}\b", line)]
    assert floors, name
    assert all(parts(floor) >= parts(fixed) for floor in floors), hole
