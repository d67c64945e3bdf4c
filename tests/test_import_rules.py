"""Imports point one way, and what a person waits for imports nothing heavy."""

import ast
import functools
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "gpt2tui"
SCREENS = ("presets", "train", "chat", "runs")
SCREEN = {"textual", "plotext"}
HEAVY = {"torch", "datasets", "transformers", "wandb"}


def imported_by(code):
    program = f"{code}\nimport sys\nprint(' '.join(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


@pytest.mark.slow
def test_the_engine_needs_no_screen():
    names = imported_by("import gpt2tui.training.trainer, gpt2tui.commands.train, gpt2tui.tracking.console")
    assert not names & SCREEN
    assert "torch" in names  # the check looks at the right process


@pytest.mark.slow
def test_loading_weights_waits_for_no_compiler():
    """torch imports its compiler, and sympy with it, to draw normal numbers on the meta device."""
    code = """
from gpt2tui.model.config import GPT2Config
from gpt2tui.model.gpt2 import network_without_weights
network_without_weights(GPT2Config(vocab_size=8))"""
    names = imported_by(code)
    assert "torch" in names
    assert "sympy" not in names


STARTS_AT_ONCE = (
    "gpt2tui",
    "gpt2tui.api",
    "gpt2tui.cli",
    "gpt2tui.preset.schema",
    "gpt2tui.preset.files",
    "gpt2tui.estimate",
    "gpt2tui.run.folder",
    "gpt2tui.run.summary",
    "gpt2tui.commands.presets",
    "gpt2tui.commands.runs",
    "gpt2tui.tracking.console",
    "gpt2tui.tui.start",
    "gpt2tui.tui.app",
    "gpt2tui.tui.presets.screen",
    "gpt2tui.tui.train.screen",
    "gpt2tui.tui.chat.screen",
    "gpt2tui.tui.runs.screen",
)


@pytest.mark.slow
def test_what_starts_at_once_imports_nothing_heavy():
    """One process imports all, in this order: the first that fetches something heavy is named."""
    code = f"""
import importlib, sys
for name in {STARTS_AT_ONCE}:
    importlib.import_module(name)
    heavy = {HEAVY} & sys.modules.keys()
    if heavy:
        sys.exit(f"{{name}} imports {{heavy}}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@functools.cache
def syntax_tree(text):
    return ast.parse(text)


def parsed(path):
    """The syntax tree of a file, kept: every test looks at all of them."""
    return syntax_tree(path.read_text(encoding="utf-8"))


NEEDS = {
    "wandb": {"tracking/wandb.py"},
    "datasets": {"data/hub.py"},
    "textual_serve": {"commands/serve.py"},
    "gguf": {"export/gguf.py"},
    "tensorboard": {"tracking/tensorboard.py"},
    "matplotlib": {"commands/figure.py"},
    "sacrebleu": {"evaluation/text_scores.py"},
    "rouge_score": {"evaluation/text_scores.py"},
    "onnx": {"export/onnx.py", "export/onnx_graph.py"},
    "onnxruntime": {"export/onnx.py", "export/onnx_quantization.py", "export/onnx_runtime.py"},
    "onnxruntime_genai": {"export/onnx.py"},
}


@pytest.mark.parametrize("heavy", NEEDS)
def test_what_few_need_is_imported_by_those_alone_and_late(heavy):
    """Late: inside a function, which runs when the thing is asked for."""

    def imports(node):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        return any(name.partition(".")[0] == heavy for name in names)

    found = set()
    for path in PACKAGE.rglob("*.py"):
        tree = parsed(path)
        everywhere = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom) and imports(n)]
        if not everywhere:
            continue
        found.add(path.relative_to(PACKAGE).as_posix())
        functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        late = {inner for function in functions for inner in ast.walk(function)}
        typed = {inner for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test)
                 for inner in ast.walk(n)}  # fmt: skip
        assert set(everywhere) <= late | typed, f"{path} imports {heavy} at once"
    assert found == NEEDS[heavy]


def modules_of(package):
    """Module to its file. The network's folder is linked into the package, and `rglob` does not follow links."""
    paths = [*package.rglob("*.py"), *(package / "model").rglob("*.py")]
    names = {path: path.relative_to(package.parent).with_suffix("").parts for path in paths}
    return {".".join(parts[:-1] if parts[-1] == "__init__" else parts): path for path, parts in names.items()}


def import_graph(package):
    """Module to the modules of `package` that it imports: anywhere in it, in functions and for types too."""
    files = modules_of(package)
    graph = {}
    for module, path in files.items():
        imported = set()
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Import):
                imported.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: imports are written in full"
                for alias in node.names:
                    submodule = f"{node.module}.{alias.name}"
                    imported.add(submodule if submodule in files else node.module)
        graph[module] = (imported & files.keys()) - {module}
    return graph


def loop_in(graph):
    """One import loop, None where there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return None


def test_no_import_loops():
    graph = import_graph(PACKAGE)
    loop = loop_in(graph)
    assert loop is None, f"an import loop, which may be one of types only: {' <- '.join(loop)}"


def test_a_loop_is_found(tmp_path):
    package = tmp_path / "house"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "one.py").write_text("def late():\n    from house.two import x\n")
    (package / "two.py").write_text("if TYPE_CHECKING:\n    from house import one\n")
    assert set(loop_in(import_graph(package))) == {"house.one", "house.two"}
    (package / "two.py").write_text("")
    assert loop_in(import_graph(package)) is None


@functools.cache
def everything_imported():
    """Module to all full names that it imports, other packages' too; in functions and for types as well."""
    imported = {}
    for module, path in modules_of(PACKAGE).items():
        names = imported.setdefault(module, set())
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return imported


# A room imports from its own row and from those below it.
LAYERS = [
    {"tui"},
    {"cli", "__main__", "commands", "api"},
    {"launch", "benchmark", "sweep"},
    {"tracking", "training"},
    {"generation", "evaluation", "export"},
    {"data", "estimate", "device", "memory_advice", "model_files"},
    {"run", "preset"},
    {"system", "errors", "version"},
    {"model"},
]


def layer_of(name):
    return next((number for number, names in enumerate(LAYERS) if name in names), None)


def room_of(module):
    """The first part below gpt2tui; None for the package itself and for what is not ours."""
    parts = module.split(".")
    return parts[1] if parts[0] == "gpt2tui" and len(parts) > 1 else None


def test_imports_point_downwards():
    inside = {module: room_of(module) for module in everything_imported() if room_of(module)}
    homeless = {room for room in inside.values() if layer_of(room) is None}
    assert not homeless, "add each room to the layer where it belongs"
    upward = [
        f"{module} imports {name}"
        for module, room in inside.items()
        for name in everything_imported()[module]
        if room_of(name) and name != "gpt2tui.__version__" and layer_of(room_of(name)) < layer_of(room)
    ]
    assert not upward


def importers_of(*prefixes):
    """The modules that import something that begins with one of the prefixes."""
    return {
        module
        for module, names in everything_imported().items()
        if any(f"{name}.".startswith(f"{prefix}.") for name in names for prefix in prefixes)
    }


def below(*prefixes):
    return {
        module for module in everything_imported() if any(f"{module}.".startswith(f"{prefix}.") for prefix in prefixes)
    }


def test_the_rules_see_what_is_there():
    assert "gpt2tui.training.trainer" in importers_of("torch")
    assert "gpt2tui.tui.app" in importers_of("textual")
    assert "gpt2tui.tui.chat.screen" in below("gpt2tui.tui.chat")


def test_the_network_knows_nothing_of_the_program():
    network = below("gpt2tui.model")
    assert "gpt2tui.model.gpt2" in network
    assert all(room_of(name) in (None, "model") for module in network for name in everything_imported()[module])


def test_only_the_screens_draw_with_textual_and_plotext():
    assert importers_of("textual", "plotext") <= below("gpt2tui.tui")


def test_a_screen_may_import_torch_but_presets_and_the_system_may_not():
    assert not importers_of("torch") & below("gpt2tui.preset", "gpt2tui.system") - MEASURES_THE_DEVICE


# It multiplies matrices to see how fast that is: torch is imported when somebody asks for that.
MEASURES_THE_DEVICE = {"gpt2tui.system.device_speed"}


def test_nobody_below_asks_a_command():
    assert importers_of("gpt2tui.commands") <= below("gpt2tui.cli", "gpt2tui.__main__", "gpt2tui.commands")


@pytest.mark.parametrize("screen", SCREENS)
def test_the_four_screens_do_not_know_each_other(screen):
    others = [f"gpt2tui.tui.{other}" for other in SCREENS if other != screen]
    assert not importers_of(*others) & below(f"gpt2tui.tui.{screen}")


def test_what_screens_share_knows_no_screen_and_has_more_than_one_user():
    widgets = below("gpt2tui.tui.widgets")
    screens = [f"gpt2tui.tui.{screen}" for screen in SCREENS]
    assert not importers_of(*screens) & widgets
    for widget in widgets - {"gpt2tui.tui.widgets"}:
        rooms = {module.rpartition(".")[0] for module in importers_of(widget)}
        assert len(rooms) > 1 or "gpt2tui.tui.widgets" in rooms, (
            f"{widget} belongs to {rooms}, the only room that uses it"
        )
