"""Make tests/reference/*.npz with the plain NumPy evaluation: python tests/make_reference.py

format.npz has quantizers and overflow rates; the others are traces in the form that
utilities/replay_trace.py reads. Needed again only if numpy_reference.py changes, and
then the numbers must not.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import numpy_reference as ref

FOLDER = Path(__file__).parent / "reference"
STATE = ("W", "b", "update_W", "update_b")
INSIDE = (
    "fixed_W",
    "fixed_b",
    "fixed_x",
    "z",
    "fixed_z",
    "u",
    "fixed_u",
    "y",
    "fixed_y",
    "fixed_dEdy",
    "fixed_dEdz",
    "fixed_dEdW",
    "fixed_dEdb",
)
RANGES = np.array(
    [3, -3, 2, -2, 0, -1, 1, 4, -4, -5]
)  # of the ten signals in the first layer of a `mixed` trace
WARM_FACTORS = {"PI_MNIST": (2, 2), "MNIST": (2, 4, 4)}


def save(name, arrays):
    np.savez_compressed(FOLDER / f"{name}.npz", **arrays)
    print(f"{name}.npz: {(FOLDER / f'{name}.npz').stat().st_size / 1000:.0f} kB")


def formats():
    rng = np.random.RandomState(7)
    params = [(nob, noib) for nob in (1, 5, 9, 11, 19, 31) for noib in (-10, -1, 0, 1, 5, 12)]
    x = []
    for nob, noib in params:
        step = 2.0 ** (noib - nob)
        ties = (rng.randint(-40, 40, 16) + 0.5) * step
        wide = rng.normal(size=20) * 2.0**noib
        x.append(
            np.concatenate(
                [ties, wide, rng.normal(size=8) * 4 * step, [2.0**noib, -(2.0**noib), 0, np.inf]]
            )
        )
    x = np.array(x, "f4")
    y = np.array([ref.fixed_point(v, nob, noib) for v, (nob, noib) in zip(x, params, strict=True)])
    widths = [(nob, noib) for nob in (5, 9, 31) for noib in (-3, -2, 0, 1)]
    v = np.array([ref.fixed_point(rng.normal(size=(6, 7)) * 0.5, *width) for width in widths])
    v[1::2] = v[::2]  # the same tensor at neighbouring ranges
    rates = [ref.overflow_rate(one, *width) for one, width in zip(v, widths, strict=True)]
    h = (rng.normal(size=200) * 10.0 ** rng.randint(-9, 6, 200)).astype("f4")
    save(
        "format",
        {
            "fixed_point/params_nob_noib": np.array(params),
            "fixed_point/x": x,
            "fixed_point/y_half_away_from_zero": y,
            "overflow/x": v,
            "overflow/params_nob_noib": np.array(widths),
            "overflow/rate": np.array(rates),
            "float16/x": h,
            "float16/y": ref.half(h),
        },
    )


def inputs(task, batch_size, n_batches):
    """Blurred random strokes of 28 x 28, k/256, and random labels."""
    rng = np.random.RandomState(11)

    def examples(n):
        x = np.zeros((n, 28, 28), int)
        labels = rng.randint(0, 10, n)
        for image, label in zip(x, labels, strict=True):
            row = 4 + label
            column = 20 - label
            image[row : row + 8, column : column + 3] += rng.randint(100, 256)
            image[row + 2 : row + 5, 4:18] += rng.randint(0, 256, (3, 14)) // 2
        return (np.minimum(x, 255).reshape(n, 784) / 256).astype("f4"), np.eye(10, dtype="f4")[
            labels
        ]

    x_train, y_train = examples(n_batches * batch_size)
    x_test, y_test = examples(2 * batch_size)
    arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    save(f"inputs_{task}_dyadic_b{batch_size}_n{n_batches}", arrays)
    return arrays


def sample(array):
    flat = np.ravel(array)
    return (
        flat
        if flat.size <= 2000
        else flat[np.sort(np.random.RandomState(777).randint(0, flat.size, 2000))]
    )


def statistics(array):
    a = array.astype("f8")
    return np.array([a.mean(), a.std(), np.sqrt((a * a).sum()), a.min(), a.max(), np.abs(a).sum()])


def warm(task, layers):
    rng = np.random.RandomState(2024)
    for k, layer in enumerate(layers):
        if layer is layers[-1]:
            layer.W = rng.uniform(-0.5, 0.5, layer.W.shape).astype("f4")
        else:
            layer.W = layer.W * np.float32(WARM_FACTORS[task][k])
        layer.b = rng.uniform(-0.25, 0.25, layer.b.shape).astype("f4")
        for name in ("update_W", "update_b"):
            shape = getattr(layer, name).shape
            setattr(layer, name, (np.rint(rng.normal(0, 0.01, shape) * 1024) / 1024).astype("f4"))


LR = 0.046875
M = 0.625
MASKS = 99  # the seed of the masks


def trace(
    name,
    task,
    number_format,
    data,
    *,
    warm_start=False,
    mixed=False,
    frequency=0,
    max_overflow=0.0,
    inside=(),
    bits=(9, 11),
):
    """Write a trace of the form that the README of the recorded numbers describes."""
    layers = ref.pi_mnist(np.random.RandomState(1234), 4, 2)
    if task == "MNIST":
        layers = ref.mnist(np.random.RandomState(1234))
    if warm_start:
        warm(task, layers)
    for k, layer in enumerate(layers):
        ranges = RANGES + k % 2 if mixed else [0] * 10
        layer.ranges = dict(zip(ref.SIGNALS, map(int, ranges), strict=True))
    batch_size = len(data["x_test"]) // 2
    meta = {
        "name": name,
        "task": task,
        "format": number_format,
        "comp_precision": bits[0],
        "update_precision": bits[1],
        "initial_range": 0,
        "initial_ranges": ranges_of(layers),
        "range_update_frequency": frequency,
        "max_overflow": max_overflow,
        "n_batches": len(data["x_train"]) // batch_size,
        "batch_size": batch_size,
        "n_hidden": 4,
        "LR": LR,
        "M": M,
        "p": [layer.p for layer in layers],
        "scale": [layer.scale for layer in layers],
        "seed": 1234,
        "W_shapes": [layer.W.shape for layer in layers],
        "mask_widths": [layer.input_size for layer in layers],
        "range_names": ref.SIGNALS,
        "full_state_after_batches": (),
        "intermediates_at_batches": inside,
        "x": "dyadic",
        "warm": warm_start,
        "init_W_sha256": [hashlib.sha256(layer.W.tobytes()).hexdigest() for layer in layers],
    }
    arrays = {"meta_json": np.bytes_(json.dumps(meta))}
    arrays |= steps(meta, layers, data) | tested(meta, layers, data)
    save(name, arrays)


def steps(meta, layers, data):
    """The masks of all batches, the state after each, and what passed through in some."""
    rng = np.random.RandomState(MASKS)
    B = meta["batch_size"]
    arrays = {}
    masks = [
        [rng.uniform(size=(B, layer.input_size)) < layer.p for layer in layers]
        for _ in range(meta["n_batches"])
    ]
    for k, of_layer in enumerate(zip(*masks, strict=True)):
        arrays[f"mask/L{k}/packed"] = np.packbits(np.concatenate(of_layer), axis=1)
    used = []
    after = []
    counted = []
    called = []
    for b, drawn in enumerate(masks):
        rows = slice(b * B, (b + 1) * B)
        used.append(ranges_of(layers))
        frequency = meta["range_update_frequency"]
        update_after = frequency if frequency and (b + 1) % frequency == 0 else None
        x = data["x_train"][rows]
        t = data["y_train"][rows]
        rest = (meta["comp_precision"], meta["update_precision"], meta["max_overflow"])
        rest = (LR, M, *rest, update_after)
        seen = ref.training_step(layers, meta["format"], x, t, drawn, *rest)
        after.append(ranges_of(layers))
        called.append(update_after or 0)
        counted.append(counted_by(layers, meta["format"]))
        for k, layer in enumerate(layers):
            arrays |= state_after(b, k, layer)
            arrays |= inside_of(b, k, seen[k]) if b in meta["intermediates_at_batches"] else {}
    overflow, overflow_1 = np.moveaxis(np.array(counted), -1, 0)
    return arrays | {
        "ranges_used": np.array(used),
        "ranges_after": np.array(after),
        "overflow": overflow,
        "overflow_1": overflow_1,
        "range_update_called_with": np.array(called),
    }


def state_after(b, k, layer):
    arrays = {}
    for what in STATE:
        arrays[f"after{b:02d}/L{k}/{what}/sample"] = sample(getattr(layer, what))
        arrays[f"after{b:02d}/L{k}/{what}/stats"] = statistics(getattr(layer, what))
    return arrays


def inside_of(b, k, seen):
    arrays = {}
    for what in INSIDE:
        if what in seen:
            suffix = "/sample" if seen[what].size > 2000 else ""
            whole = seen[what]
            arrays[f"inter{b:02d}/L{k}/{what}{suffix}"] = sample(whole) if suffix else whole
    return arrays


def tested(meta, layers, data):
    """The test-time pass."""
    halves = np.split(data["x_test"], 2)
    outputs = [ref.test_pass(layers, meta["format"], x, meta["comp_precision"]) for x in halves]
    arrays = {f"test/L{k}/y": np.concatenate(y) for k, y in enumerate(zip(*outputs, strict=True))}
    y = arrays[f"test/L{len(layers) - 1}/y"]
    wrong = y.argmax(axis=1) != data["y_test"].argmax(axis=1)
    errors = wrong.reshape(2, meta["batch_size"]).sum(axis=1)
    return arrays | {"test/y": y, "test/errors": errors}


def counted_by(layers, number_format):
    """What the accumulators held before a range update."""
    if number_format != "DFXP":
        return [[(0.0, 0.0) for _ in ref.SIGNALS] for _ in layers]
    return [[layer.counted[s] for s in ref.SIGNALS] for layer in layers]


def ranges_of(layers):
    return [[layer.ranges[s] for s in ref.SIGNALS] for layer in layers]


def main():
    FOLDER.mkdir(exist_ok=True)
    formats()
    data = inputs("PI_MNIST", 10, 3)
    warm_mixed = {"warm_start": True, "mixed": True}
    trace("PI4_FLP", "PI_MNIST", "FLP", data, inside=(0,))
    trace("PI4warm_HFLP", "PI_MNIST", "HFLP", data, warm_start=True)
    trace("PI4warm_FXPmixed_9_11", "PI_MNIST", "FXP", data, **warm_mixed)
    trace(
        "PI4warm_FXPmixed_19_19", "PI_MNIST", "FXP", data, bits=(19, 19), inside=(1,), **warm_mixed
    )
    moving = {"frequency": 2, "max_overflow": 0.01}
    name = "PI4warm_DFXPmixed_9_11_mo1e-2_f2"
    trace(name, "PI_MNIST", "DFXP", data, **moving, **warm_mixed)
    data = inputs("MNIST", 2, 1)
    trace("MNISTwarm_FXPmixed_9_11", "MNIST", "FXP", data, **warm_mixed)


if __name__ == "__main__":
    main()
