"""utilities/replay_trace.py: recorded traces, and our own, through the compiled programs."""

import json
from pathlib import Path

import make_reference
import numpy as np
import numpy_reference as ref
import pytest

from utilities.replay_trace import main

OWN = Path(__file__).parent / "reference"
RECORDED = Path(__file__).parent.parent.parent / "shared" / "reference"
NO_RECORDS = "the recorded numbers are not here; they lie in shared/reference beside the project"
# One for each format, the run with range initialisation being in DFXP.
# The others take their minutes in `soak`.
QUICK = ["PI48_FLP", "PI48warm_HFLP", "PI48warm_FXPmixed_9_11", "initrange_shuffle_examples"]
OTHERS = [
    "PI48_FXP_5_19_19",
    "PI48dyadic_DFXP_5_9_11_mo1e-4_f3",
    "PI48warm_FLP",
    "PI48warm_DFXPmixed_9_11_mo1e-2_f2",
    "MNIST_FLP",
    "MNISTwarm_FXPmixed_9_11",
    "MNISTwarm_DFXPmixed_9_11_mo1e-2_f2",
    "CIFAR10_HFLP",
    "CIFAR10warm_DFXPmixed_9_11_mo1e-2_f2",
]


def arrays_of(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def recorded(name):
    path = RECORDED / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"{NO_RECORDS} ({name}.npz)")
    return path


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.soak) for name in OTHERS)]
)
def test_recorded_traces(name, capsys):
    assert main([str(recorded(name)), "--quiet"]) == 0
    assert capsys.readouterr().out.strip().endswith("everything within tolerance")


def test_no_recorded_trace_is_forgotten():
    if not RECORDED.exists():
        pytest.skip(NO_RECORDS)
    present = {
        path.stem for path in RECORDED.glob("*.npz") if "mask/L0/packed" in np.load(path).files
    }
    assert present <= {*QUICK, *OTHERS}


OURS = sorted(
    path.stem for path in OWN.glob("*.npz") if path.stem.split("_")[0] not in ("inputs", "format")
)


def test_there_is_a_trace_of_our_own_for_every_format():
    assert {
        json.loads(arrays_of(OWN / f"{name}.npz")["meta_json"].item())["format"] for name in OURS
    } == {"FLP", "HFLP", "FXP", "DFXP"}
    assert any(name.startswith("MNIST") for name in OURS)


@pytest.mark.parametrize("name", OURS)
def test_own_traces(name, capsys):
    assert main([str(OWN / f"{name}.npz"), "--quiet"]) == 0
    assert "everything within tolerance" in capsys.readouterr().out


def test_own_traces_are_what_their_program_makes(tmp_path, monkeypatch):
    """The files in tests/reference come from tests/make_reference.py.

    float32 to its last bits, the rest exactly.
    """
    monkeypatch.setattr(make_reference, "FOLDER", tmp_path)
    make_reference.main()
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in OWN.glob("*.npz")}
    for path in tmp_path.iterdir():
        made = arrays_of(path)
        kept = arrays_of(OWN / path.name)
        assert made.keys() == kept.keys()
        for name, array in kept.items():
            if array.dtype.kind != "f" or "_FXP" in path.name or "_DFXP" in path.name:
                np.testing.assert_array_equal(made[name], array, err_msg=f"{path.name} {name}")
            else:
                np.testing.assert_allclose(
                    made[name], array, rtol=1e-5, atol=1e-7, err_msg=f"{path.name} {name}"
                )


@pytest.mark.parametrize(
    ("name", "batches"),
    [
        ("PI48warm_FXPmixed_9_11", 12),
        ("PI48warm_DFXPmixed_9_11_mo1e-2_f2", 12),
        pytest.param("MNISTwarm_DFXPmixed_9_11_mo1e-2_f2", 6, marks=pytest.mark.soak),
        pytest.param("MNISTwarm_FXPmixed_9_11", 6, marks=pytest.mark.soak),
    ],
)
def test_the_numpy_evaluation_follows_the_records(name, batches):
    """What the tests here compare with is itself equal to the published program."""
    trace = arrays_of(recorded(name))
    meta = json.loads(trace["meta_json"].item())
    data = arrays_of(
        RECORDED / f"inputs_{meta['task']}_dyadic_b{meta['batch_size']}_n{meta['n_batches']}.npz"
    )
    rng = np.random.RandomState(1234)
    layers = ref.pi_mnist(rng, 48, 5) if meta["task"] == "PI_MNIST" else ref.mnist(rng)
    make_reference.warm(meta["task"], layers)
    for layer, ranges in zip(layers, meta["initial_ranges"], strict=True):
        layer.ranges = dict(zip(ref.SIGNALS, ranges, strict=True))
    masks = [
        np.unpackbits(trace[f"mask/L{k}/packed"], axis=1)[:, :n]
        for k, n in enumerate(meta["mask_widths"])
    ]
    for b in range(batches):
        rows = slice(b * meta["batch_size"], (b + 1) * meta["batch_size"])
        ref.training_step(
            layers,
            meta["format"],
            data["x_train"][rows],
            data["y_train"][rows],
            [m[rows] for m in masks],
            meta["LR"],
            meta["M"],
            9,
            11,
            meta["max_overflow"],
            trace["range_update_called_with"][b],
        )
        for k, layer in enumerate(layers):
            for what in make_reference.STATE:
                label = f"after{b:02d}/L{k}/{what}"
                mine = make_reference.sample(getattr(layer, what))
                np.testing.assert_array_equal(mine, trace[f"{label}/sample"], err_msg=label)
            assert list(layer.ranges.values()) == trace["ranges_after"][b, k].tolist()
            if meta["format"] == "DFXP":
                expected = [trace["overflow"][b, k], trace["overflow_1"][b, k]]
                np.testing.assert_allclose(
                    np.transpose(list(layer.counted.values())), expected, rtol=0, atol=1e-6
                )


# --- what it reports


@pytest.fixture
def copied(tmp_path):
    """copied(name, change): a copy of a trace, its arrays changed, its inputs beside it."""

    def copy(name, change=lambda arrays: None):
        arrays = arrays_of(OWN / f"{name}.npz")
        meta = json.loads(arrays["meta_json"].item())
        change(arrays)
        np.savez(tmp_path / "copy.npz", **arrays)
        inputs = f"inputs_{meta['task']}_dyadic_b{meta['batch_size']}_n{meta['n_batches']}.npz"
        (tmp_path / inputs).write_bytes((OWN / inputs).read_bytes())
        return tmp_path / "copy.npz"

    return copy


def altered(name, index, by):
    def change(arrays):
        arrays[name] = arrays[name].copy()
        arrays[name].ravel()[index] += by

    return change


def test_one_altered_number_is_found(copied, capsys):
    change = altered("after01/L2/update_W/sample", 17, 1e-6)
    assert main([str(copied("PI4_FLP", change)), "--quiet"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.endswith("OUT OF TOLERANCE") for line in lines] == [True, False]
    assert lines[1].endswith("1 comparisons out of tolerance")


def test_an_altered_mask_is_found(copied, capsys):
    def change(arrays):
        arrays["mask/L1/packed"] = arrays["mask/L1/packed"] ^ 0x80

    assert main([str(copied("PI4_FLP", change)), "--quiet"]) == 1
    assert "OUT OF TOLERANCE" in capsys.readouterr().out


def test_other_initial_weights_are_refused(copied, capsys):
    def change(arrays):
        meta = json.loads(arrays["meta_json"].item())
        arrays["meta_json"] = np.bytes_(json.dumps(meta | {"seed": 4321}))

    assert main([str(copied("PI4_FLP", change))]) == 2
    assert "initial weights of layer 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", [b"", b"no zip at all", b"PK\x03\x04 cut short", "npz", "npy", None]
)
def test_a_file_that_is_no_trace(tmp_path, capsys, content):
    path = tmp_path / "other.npz"
    if content == "npz":
        np.savez(path, x=np.arange(3))
    elif content == "npy":
        with open(path, "wb") as file:
            np.save(file, np.arange(3))
    elif content is not None:
        path.write_bytes(content)
    assert main([str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and str(path) in err


@pytest.mark.parametrize(
    "change",
    [
        {"n_hidden": 0},
        {"batch_size": 0},
        {"comp_precision": 2**40},
        {"range_update_frequency": 2**70},
        {"initial_ranges": [[10**30] * 10] * 3},
        {"LR": 10**400},
    ],
)
def test_numbers_that_no_trace_has(copied, capsys, change):
    def changed(arrays):
        meta = json.loads(arrays["meta_json"].item())
        arrays["meta_json"] = np.bytes_(json.dumps(meta | change))

    assert main([str(copied("PI4_FLP", changed))]) == 2
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1


def test_missing_inputs(copied, capsys):
    path = copied("PI4_FLP")
    next(path.parent.glob("inputs_*")).unlink()
    assert main([str(path)]) == 2
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1 and "inputs_PI_MNIST_dyadic_b10_n3.npz" in err
