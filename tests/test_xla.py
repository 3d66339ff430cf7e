"""xla/: what it may import, and who may import what it is about."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = {path.stem for path in ROOT.glob("*.py")} | {
    path.parent.name for path in ROOT.glob("*/__init__.py")
}


def imported(path):
    """The top-level modules that a source imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_xla_knows_nothing_of_the_programs_built_on_it():
    for path in (ROOT / "xla").glob("*.py"):
        assert imported(path) & OURS <= {"xla", "errors", "files"}, path.name


def test_nothing_else_knows_jax():
    folders = [folder for folder in ROOT.iterdir() if folder.name not in ("xla", "tests")]
    sources = [*ROOT.glob("*.py"), *(path for folder in folders for path in folder.glob("*.py"))]
    assert len(sources) > 30
    for path in sources:
        assert not imported(path) & {"jax", "jaxlib"}, path
