"""What is installed is complete: presets and vocabulary are inside, and nothing else comes along."""

import json
import os
import subprocess
import sys
import zipfile

import pytest


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, pytestconfig):
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=pytestconfig.rootpath, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_has_the_packages_the_presets_and_the_vocabulary_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {"gpt2tui/presets/small.toml", "gpt2tui/assets/gpt2.tiktoken.gz", "gpt2tui/model/gpt2.py"} <= set(names)
    assert "gpt2tui/py.typed" in names
    assert {name.split("/")[0] for name in names} == {"gpt2tui", "gpt2tui-0.1.0.dist-info"}
    assert {"gpt2tui-0.1.0.dist-info/licenses/LICENSE", "gpt2tui-0.1.0.dist-info/licenses/NOTICE"} <= set(names)


@pytest.mark.slow
def test_it_works_outside_of_the_repository(wheel, tmp_path):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = """
import gpt2tui, json
from gpt2tui.data import tokenizers
from gpt2tui.preset.files import available, load
names = [source.name for source in available() if source.shipped and load([source.name])]
print(json.dumps([gpt2tui.__file__, names, list(tokenizers.gpt2().encode("hello world"))]))
"""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    where, names, tokens = json.loads(result.stdout)
    assert where.startswith(str(site))
    assert {"test", "small", "default", "gpt2-124m"} <= set(names)
    assert tokens == [31373, 995]
