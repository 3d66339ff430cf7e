"""The reader of networks in integers: words, arithmetic, damaged folders, and taken elsewhere."""

import json
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy_reference
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from records.networks import SavedNetwork
from settings import Settings
from utilities import integer_folder, integer_form, integer_layers, integer_network
from utilities.integer_layers import Grid, Layer
from utilities.integer_words import Words, fixed_point, hexadecimal, pack


@given(st.integers(2, 33), st.data())
def test_words_are_packed_and_unpacked(bits, data):
    top = 2 ** (bits - 1)
    values = data.draw(st.lists(st.integers(-top, top - 1), max_size=50))
    words = Words(np.array(values, "int64"), bits)
    content = pack(words)
    assert len(content) == -(-len(values) * bits // 8)
    assert integer_network.unpack(content, len(values), bits).tolist() == values
    stream = int.from_bytes(content, "little")  # as the manifest has it
    assert [stream >> bits * k & 2**bits - 1 for k in range(len(values))] == [
        value % 2**bits for value in values
    ]
    lines = hexadecimal(words).decode().split("\n")
    assert [int(line, 16) for line in lines[:-1]] == [value % 2**bits for value in values]
    assert {len(line) for line in lines[:-1]} <= {-(-bits // 4)} and lines[-1] == ""


def test_packing_of_more_than_a_block():
    values = np.random.RandomState(0).randint(-2048, 2048, (3, 70_001))
    assert np.array_equal(
        integer_network.unpack(pack(Words(values, 12)), values.size, 12), values.ravel()
    )


@given(
    st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=20),
    st.integers(1, 31),
    st.integers(-250, 200),
    st.integers(-126, 100),
)
def test_rounding_of_integers(values, bits, exponent, to):
    grid = Grid(bits, to)
    found = grid.nearest(np.array(values), exponent)
    assert found.dtype == "int64"
    assert found.tolist() == [nearest(Fraction(v) * Fraction(2) ** exponent, grid) for v in values]


def nearest(value, grid):
    """The integer of a grid that is nearest to a fraction."""
    steps = abs(value) / Fraction(2) ** grid.exponent
    size = min(int(steps + Fraction(1, 2)), grid.largest)
    return size if value >= 0 else -size


@given(
    st.lists(st.floats(-(2.0**40), 2.0**40, width=32), min_size=1, max_size=20),
    st.integers(1, 31),
    st.integers(-40, 40),
)
def test_rounding_of_floats_is_the_programs(values, bits, noib):
    found = Grid(bits, noib - bits).nearest_to(np.array(values))
    expected = numpy_reference.fixed_point(np.array(values, "float32"), bits, noib)
    assert np.array_equal(found * 2.0 ** (noib - bits), expected)
    words = fixed_point(expected, bits, noib)
    assert np.array_equal(words.integers, found)
    assert (
        np.array_equal(fixed_point(expected, bits, noib + 1, drift=1).grid, words.grid)
        or (abs(found) % 2 == 0).all()
    )


@settings(max_examples=60)
@given(st.data())
def test_layers_are_what_pythons_integers_give(data):
    """Also where int64 is too narrow."""

    def draw(n, grid):
        some = st.integers(-grid.largest, grid.largest)
        return np.array(data.draw(st.lists(some, min_size=n, max_size=n)), "int64")

    grids = [
        Grid(bits, noib - bits)
        for bits, noib in data.draw(
            st.lists(st.tuples(st.integers(1, 31), st.integers(-30, 30)), min_size=5, max_size=5)
        )
    ]
    below, w_grid, b_grid, z_grid, y_grid = grids
    W, b, x = draw(12, w_grid).reshape(3, 4), draw(4, b_grid), draw(6, below).reshape(2, 3)
    layer = Layer("l", "DenseMaxout", W, b, below, w_grid, b_grid, z_grid, y_grid, -1, (3,), 2)
    z = layer.z(x)
    for i in range(2):
        for j in range(4):
            total = sum(
                Fraction(int(x[i, k]) * int(W[k, j]))
                * Fraction(2) ** (below.exponent + w_grid.exponent)
                for k in range(3)
            ) + Fraction(int(b[j])) * Fraction(2) ** int(b_grid.exponent)
            assert abs(total) / 2 <= layer.largest_sum * Fraction(2) ** layer.sum_exponent
            assert z[i, j] == nearest(total / 2, z_grid)
    for i, row in enumerate(z):
        for unit, most in enumerate((max(row[:2]), max(row[2:]))):
            value = Fraction(int(most)) * Fraction(2) ** z_grid.exponent
            assert layer.y(z)[i, unit] == nearest(value, y_grid)


def test_correlation_and_pooling():
    rng = np.random.RandomState(0)
    x, W = rng.randint(-9, 9, (2, 3, 7, 6)), rng.randint(-9, 9, (4, 3, 3, 2))
    expected = numpy_reference.correlate(x, W, 0)
    assert np.array_equal(integer_layers.correlate(x, W), expected)
    for pool, stride in ((2, 2), (3, 2), (4, 1), (1, 1)):
        pooled = numpy_reference.max_pool(expected, pool, stride)
        assert np.array_equal(integer_layers.max_pool(expected, pool, stride), pooled)


# ------------------------------------------------------------------------------ damaged folders


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder with a network that is quick to read."""
    folder = tmp_path_factory.mktemp("small")
    rng = np.random.RandomState(1)
    described = [
        {
            "name": "layer0",
            "kind": "ConvMaxout",
            "input_size": 25,
            "input_shape": (1, 5, 5),
            "output_shape": (2, 2, 2),
            "scale": 1.0,
            **{"pieces": 2, "pad": 0, "pool": 2, "stride": 2},
        },
        {"name": "layer1", "kind": "Softmax", "input_size": 8, "output_shape": (10,), "scale": 0.5},
    ]
    arrays, vectors = {}, {"x": rng.rand(3, 25).astype("float32"), "labels": np.arange(3)}
    for k, shape, biases in ((0, (4, 1, 2, 2), 4), (1, (8, 10), 10)):
        arrays[f"layer{k}/ranges"] = np.zeros(10, "int32")
        for name, size in (("W", shape), ("b", biases)):
            arrays[f"layer{k}/{name}"] = rng.randint(-9, 9, size).astype("float32") / 2**11
    for name, shape in (
        ("layer0/z", (3, 4, 2, 2)),
        ("layer0/y", (3, 8)),
        ("layer1/z", (3, 10)),
        ("layer1/y", (3, 10)),
    ):
        vectors[name] = rng.randint(-9, 9, shape).astype("float32") / 2**9
    there = Settings("PI_MNIST", "FXP", 0, 9, 11)
    network = SavedNetwork(Path("x.npz"), arrays, there, 1, 1.0, 2.0, {}, True)
    integer_folder.write(folder / "out", integer_form.contents(network, described, vectors))
    return folder / "out"


def readable(folder):
    """Whether a folder can be read and computed; one line if not."""
    try:
        network = integer_network.read(folder)
    except integer_network.Unreadable as error:
        assert "\n" not in str(error) and str(folder) in str(error)
        return False
    if network.vectors:
        list(integer_network.compared(network))
    return True


def test_damaged_folders(small, tmp_path):
    assert readable(small)
    rng = np.random.RandomState(0)
    names = sorted(str(p.relative_to(small)) for p in small.rglob("*") if p.is_file())
    for k in range(300):
        copy = tmp_path / str(k)
        shutil.copytree(small, copy)
        path = copy / names[rng.randint(len(names))]
        content = bytearray(path.read_bytes())
        place = rng.randint(len(content))
        how = k % 4
        if how == 0:
            content[place] ^= 1 << rng.randint(8)
        elif how == 1:
            del content[place:]
        elif how == 2:
            content[place:place] = rng.bytes(rng.randint(1, 9))
        path.unlink()
        if how != 3:
            path.write_bytes(content)
        good = readable(copy)
        if good:  # white space of the manifest
            assert path.name == "manifest.json"
            assert json.loads(content) == json.loads((small / "manifest.json").read_bytes())
        shutil.rmtree(copy)


def places(value, path=()):
    """The paths of everything in a JSON value."""
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def test_foreign_manifests(small, tmp_path):
    """Whose sum is right: they are refused, or are another network."""
    copy = tmp_path / "copy"
    shutil.copytree(small, copy)
    manifest = json.loads((small / "manifest.json").read_bytes())
    others = [None, -1, 0, 1, 3, 10**20, 1.5, "x", [], {}, [1], True]
    rng = np.random.RandomState(0)
    paths = [p for p in places(manifest) if p and p[0] not in ("rules", "sha256")]
    for place in paths:
        changed = json.loads(json.dumps(manifest))
        inner = changed
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = others[rng.randint(len(others))]
        changed["sha256"] = integer_network.manifest_sum(changed)
        (copy / "manifest.json").write_text(json.dumps(changed))
        readable(copy)
    for text in ("", "[]", "null", "[" * 100_000, '{"form": 1}', "\x00", "{}"):
        (copy / "manifest.json").write_text(text)
        assert not readable(copy)
    assert not readable(tmp_path / "nowhere")


def test_the_reader_needs_nothing_else(small, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name in ("integer_layers.py", "integer_network.py"):
        shutil.copy(ROOT / "utilities" / name, folder)
    code = (
        "import sys\nfrom elsewhere import integer_network\n"
        "status = integer_network.main(sys.argv[1:])\n"
        "print(status, sorted({'jax', 'pytensor', 'scipy', 'files', 'errors'} & set(sys.modules)))"
    )
    for argument, last in ((str(small), "0 []"), ("nowhere", "2 []")):
        done = subprocess.run(
            [sys.executable, "-c", code, argument],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout.splitlines()[-1] == last, done.stderr
        assert done.stderr.count("\n") == (last == "2 []")
