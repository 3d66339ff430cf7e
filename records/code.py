"""The code of a run, so that a number is never taken for that of another program.

What decides a result besides its settings and data, as config.json has it under `code`:

    task          the task's entry in tasks.TASKS
    layers        what each layer of its network is (Network.layers_described)
    texts         a digest of SOURCES as they are: where it is the same, nothing need be parsed
    definitions   a digest of each of their top-level definitions, by name

A definition's digest is that of its syntax tree, without docstrings, annotations of arguments and
positions: comments, formatting and moves to another module are no change.
"""

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from tasks import TASKS

Code = dict[str, Any]

ROOT = Path(__file__).resolve().parent.parent
# Every module in which a change can change a result. tests/test_code.py compares this list with
# what training imports.
SOURCES = (
    "datasets/__init__.py",
    "datasets/batches.py",
    "datasets/cifar10.py",
    "datasets/contrast.py",
    "datasets/hdf5.py",
    "datasets/mat.py",
    "datasets/mnist.py",
    "datasets/own.py",
    "datasets/parts.py",
    "datasets/svhn.py",
    "datasets/svhn_source.py",
    "datasets/svhn_split.py",
    "evaluation.py",
    "format.py",
    "layer.py",
    "layers.py",
    "model.py",
    "ranges.py",
    "snapshots.py",
    "steps.py",
    "streams.py",
    "tasks.py",
    "trainer.py",
    "xla/__init__.py",
    "xla/convolution.py",
    "xla/convolution_by_rows.py",
    "xla/convolution_by_xla.py",
    "xla/device.py",
    "xla/finite.py",
    "xla/graphs.py",
    "xla/layout.py",
    "xla/masks.py",
    "xla/ops.py",
    "xla/pooling.py",
    "xla/products.py",
    "xla/programs.py",
    "xla/rounding.py",
    "xla/statistics.py",
)
# Read when the program starts: what is written there later is not what runs.
TEXTS = {name: (ROOT / name).read_bytes() for name in SOURCES}
INSIDE = {name.split("/")[0].removesuffix(".py") for name in SOURCES}
COMPARED_BY_VALUE = ("TASKS",)  # and for the run's own task only
NO_MATTER = ("paper", "segment")  # of a task: results do not depend on them
MOST_NAMED = 6


def facts(task: str, layers: list[dict[str, Any]] | None, known: Code | None = None) -> Code:
    """The code that runs now.

    Parameters
    ----------
    layers
        Network.layers_described of the task; None if no network has been made.
    known
        The code of a run: where the texts are the same, its definitions are taken.
    """
    if known and known["texts"] == texts_digest():
        defined = known["definitions"]
    else:
        defined = definitions()
    code = {"task": asdict(TASKS[task]), "texts": texts_digest(), "definitions": defined}
    if layers is not None:
        code["layers"] = layers
    return json.loads(json.dumps(code))  # with lists for tuples, as it will be read


def check(config: Mapping[str, Any]) -> None:
    """ValueError, TypeError, LookupError or AttributeError unless its code can be used, if any."""
    earlier = config.get("earlier_code", [])
    texts = [entry["config_sum"] for entry in earlier]
    for code in (entry["code"] for entry in (config, *earlier) if "code" in entry):
        texts += [code["texts"], *code["task"], *code["definitions"], *code["definitions"].values()]
        texts += [layer["name"] for layer in code["layers"]]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("code is damaged")


def digest(code: Code) -> str:
    """All its definitions in one digest, as the arrays of a run have it."""
    return _digest("\n".join(sorted(map(" ".join, _told(code)))))[:16]


def digest_of(*names: str) -> str:
    """Of the definitions in some of the SOURCES; it is kept with what they have made."""
    found: dict[str, str] = {}
    for name in names:
        found |= definitions_of(name, TEXTS[name])
    return _digest(json.dumps(found, sort_keys=True))[:16]


def difference(there: Code, here: Code) -> str:
    """What differs, in words, values before definitions; "" if nothing does."""
    words = _values(there["task"], here["task"], NO_MATTER)
    if "layers" in here:
        layers = [{layer["name"]: layer for layer in code["layers"]} for code in (there, here)]
        for name in sorted({*layers[0], *layers[1]}):
            then, now = layers[0].get(name), layers[1].get(name)
            if then is None or now is None:
                words.append(f"{name} only {'here' if then is None else 'there'}")
            else:
                words += [f"{name}: {text}" for text in _values(then, now, ())]
    words = _some(words)
    changed = {name for name, _ in _told(there) ^ _told(here)}
    names = {name for code in (there, here) for name in code["definitions"]}
    defined = sorted(name for name in names if _bare(name) in changed)
    if defined:
        words.append("changed: " + ", ".join(_some(defined)))
    return "; ".join(words)


def _values(there: Mapping[str, Any], here: Mapping[str, Any], but: Iterable[str]) -> list[str]:
    return [
        f"{name} {there.get(name)} there, {here.get(name)} here"
        for name in dict.fromkeys([*there, *here])
        if there.get(name) != here.get(name) and name not in but
    ]


def _some(words: list[str]) -> list[str]:
    """The first few."""
    more = len(words) - MOST_NAMED
    return words if more <= 0 else [*words[:MOST_NAMED], f"and {more} more"]


def _told(code: Code) -> set[tuple[str, str]]:
    """(name, digest) of its definitions, wherever they are."""
    return {(_bare(name), value) for name, value in code["definitions"].items()}


def _bare(name: str) -> str:
    return name.rpartition(".")[2]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def texts_digest() -> str:
    """Of all sources, as they were when the program started."""
    return hashlib.sha256(b"\0".join(TEXTS.values())).hexdigest()


@cache
def definitions() -> dict[str, str]:
    """Those of TEXTS."""
    found: dict[str, str] = {}
    for name, text in TEXTS.items():
        found |= definitions_of(name, text)
    return found


def definitions_of(path: str, text: bytes) -> dict[str, str]:
    """The definitions of a module: its name and theirs -> digest.

    What it takes from elsewhere under a name counts, too. Statements that define nothing are
    one, `statements`.
    """
    module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    forms: dict[str, list[str]] = {}
    for node in ast.parse(text).body:
        for name, form in _defined(node):
            forms.setdefault(f"{module}.{name}", []).append(form)
    return {name: _digest("\n".join(form))[:12] for name, form in forms.items()}


def _defined(node: ast.stmt) -> list[tuple[str, str]]:
    """(name, form) of what a top-level statement defines."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return _imported(node)
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [(node.name, form(node))]
    if _is_text(node) or isinstance(node, ast.If) and form(node.test) == form(TYPE_CHECKING):
        return []
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    name = names[0] if names else "statements"
    return [] if name in COMPARED_BY_VALUE else [(name, form(node))]


TYPE_CHECKING = ast.Name("TYPE_CHECKING")


def _imported(node: ast.Import | ast.ImportFrom) -> list[tuple[str, str]]:
    """From a module of ours only what gets another name: where it is does not matter."""
    source = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    found = []
    for alias in node.names:
        name = alias.asname or alias.name
        if (source or alias.name).split(".")[0] not in INSIDE:
            found.append((name.replace(".", "/"), f"import {source}{alias.name}"))
        elif alias.asname:
            found.append((name, f"import {_bare(alias.name)}"))
    return found


def _is_text(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str)


IGNORED = ("ctx", "kind", "type_comment", "returns")


@cache
def _fields(kind: str, fields: tuple[str, ...]) -> tuple[str, ...]:
    annotation = ("annotation",) if kind == "arg" else ()
    return tuple(name for name in fields if name not in (*IGNORED, *annotation))


def form(node: Any) -> str:
    """The syntax tree as text, the same in every version of Python."""
    if isinstance(node, ast.AST):
        kind = type(node).__name__
        parts = [kind, "("]
        for name in _fields(kind, node._fields):
            value = getattr(node, name, None)
            if value is not None and value != []:
                parts += (name, "=", form(value), " ")
        return "".join(parts) + ")"
    if isinstance(node, list):
        return f"[{' '.join([form(item) for item in node if not _is_text(item)])}]"
    return repr(node)
