"""What the package uses of other packages that they do not promise to keep: each with the reason, and still there.

A minor release may break any of these. The bounds in pyproject.toml are widened when this file has passed.
"""

import ast
import importlib
import inspect
import pkgutil
import re
import tomllib
from pathlib import Path

import pytest

import gpt2tui

ROOT = Path(__file__).parent.parent
OURS = {"gpt2tui"}
PINNED = {
    # (module, name): (owner, distribution, why no public way does it)
    ("gpt2tui.training.distributed", "_get_backend"): (
        "torch.distributed:ProcessGroup",
        "torch",
        "abort() of a backend closes connections that another rank waits on; destroy_process_group waits for it first",
    ),
    ("gpt2tui.tui.app", "_handle_exception"): (
        "textual.app:App",
        "textual",
        "every failed worker and every bug goes through it: the first becomes a dialog, both are logged",
    ),
    ("gpt2tui.tui.chat.screen", "_forward_event"): (
        "textual.screen:Screen",
        "textual",
        "a key event that a screen posts on arrives behind keys typed later; only here is it passed on in order",
    ),
    ("gpt2tui.tui.widgets.key_footer", "textual.widgets._footer"): (
        "textual.widgets._footer:FooterKey",
        "textual",
        "textual.widgets exports Footer without the keys in it, whose widths say how many fit",
    ),
    ("gpt2tui.commands.serve", "_make_app"): (
        "textual_serve.server:Server",
        "textual-serve",
        "the one place to put a middleware in front of every handler: pages of other sites are refused",
    ),
    ("gpt2tui.training.muon", "_foreach_lerp"): (
        "torch",
        "torch",
        "one kernel for all matrices on a GPU; torch's own optimizers use it, and nothing public does it",
    ),
    ("gpt2tui.training.muon", "_foreach_lerp_"): ("torch", "torch", "as _foreach_lerp, in place"),
    ("gpt2tui.training.muon", "_foreach_add_"): ("torch", "torch", "as _foreach_lerp"),
    ("gpt2tui.training.muon", "_foreach_mul_"): ("torch", "torch", "as _foreach_lerp"),
}


def private(name):
    return re.match(r"_[a-zA-Z]", name) is not None


def modules():
    for found in pkgutil.walk_packages(gpt2tui.__path__, "gpt2tui."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def of_others(base):
    return base.__module__.partition(".")[0] not in {*OURS, "builtins", "typing", "abc", "enum"}


def used_privately(module):
    """The private names of other packages in a module: imported, taken from an object, overridden, or through self."""
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] not in OURS:
            if any(private(part) for part in node.module.split(".")):
                yield node.module
            yield from (alias.name for alias in node.names if private(alias.name))
        elif isinstance(node, ast.Attribute) and private(node.attr):
            of_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if not of_self and ast.unparse(node) != "os._exit":  # which is documented
                yield node.attr
        elif isinstance(node, ast.ClassDef) and inspect.isclass(cls := getattr(module, node.name, None)):
            bases = [base for base in cls.__mro__ if of_others(base)]
            names = {n.name for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
            names |= {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
            yield from (name for name in names if private(name) and any(hasattr(base, name) for base in bases))


@pytest.mark.slow
def test_private_names_of_others_are_those_with_a_reason():
    used = {(module.__name__, name) for module in modules() for name in used_privately(module)}
    assert used == set(PINNED), "use public API, or give the reason here"


@pytest.mark.parametrize(("module", "name"), PINNED)
def test_a_pinned_name_is_still_there(module, name):
    owner, distribution, _ = PINNED[module, name]
    if distribution == "textual-serve":
        pytest.importorskip("textual_serve")
    found = pkgutil.resolve_name(owner)
    assert name.startswith(f"{distribution}.") or hasattr(found, name)


@pytest.mark.parametrize("distribution", sorted({pinned[1] for pinned in PINNED.values()}))
def test_what_has_pinned_names_has_an_upper_bound(distribution):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["serve"]]
    (line,) = [line for line in lines if re.match(r"[\w-]+", line)[0] == distribution]
    assert "<" in line
