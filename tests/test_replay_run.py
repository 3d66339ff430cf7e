"""utilities/replay_run.py: a recorded run whose batches are shuffled, and not the examples."""

import json

import make_reference
import numpy as np
import numpy_reference as ref

from utilities.replay_trace import main

B, PER_CHUNK, FREQUENCY, MAX_OVERFLOW = 4, 2, 2, 0.01
SIZE = {"n_train": 5 * B, "n_valid": 2 * B, "n_test": 2 * B}


def examples(rng, n):
    x = (rng.randint(0, 256, (n, 784)) * (rng.uniform(size=(n, 784)) < 0.2) / 256).astype("f4")
    return x, np.eye(10, dtype="f4")[rng.randint(0, 10, n)]


class Run:
    """The run, by the plain NumPy evaluation; `arrays` is what a recorded one holds."""

    def __init__(self):
        self.rng = np.random.RandomState(1234)
        self.layers = ref.pi_mnist(self.rng, 3, 2)
        for layer in self.layers:
            layer.ranges = dict.fromkeys(ref.SIGNALS, 3)
            self.rng.randint(999999)
        data = np.random.RandomState(3)
        self.data = {name: examples(data, SIZE[f"n_{name}"]) for name in ("train", "valid", "test")}
        self.mask_rng = np.random.RandomState(99)
        self.masks = [[] for _ in self.layers]
        self.events = []
        self.rows = []
        self.arrays = {}

    def event(self, kind, **info):
        self.events.append([kind, info])
        counted = [[layer.overflow[s] for s in ref.SIGNALS] for layer in self.layers]
        self.rows.append((make_reference.ranges_of(self.layers), counted))

    def state(self, stage):
        for k, layer in enumerate(self.layers):
            for name in make_reference.STATE:
                self.arrays[f"state_{stage}/L{k}/{name}"] = getattr(layer, name).copy()

    def errors(self):
        wrong = {}
        for name in ("valid", "test"):
            x, t = self.data[name]
            y = ref.test_pass(self.layers, "DFXP", x, 9)[-1]
            wrong[f"{name}_ER"] = 100 * float(np.mean(y.argmax(axis=1) != t.argmax(axis=1)))
        return wrong

    def batches(self):
        """The order of an epoch's batches: whole chunks shuffled, what is left over last."""
        whole, left = divmod(SIZE["n_train"] // B, PER_CHUNK)
        order = list(range(whole))
        self.rng.shuffle(order)
        for chunk in [*order, whole][: whole + bool(left)]:
            inside = list(range(PER_CHUNK if chunk < whole else left))
            self.rng.shuffle(inside)
            yield from (chunk * PER_CHUNK + i for i in inside)

    def epoch(self, bits):
        x, t = self.data["train"]
        for count, batch in enumerate(self.batches(), 1):
            drawn = []
            for k, layer in enumerate(self.layers):
                drawn.append(self.mask_rng.uniform(size=(B, layer.input_size)) < layer.p)
                self.masks[k].append(np.packbits(drawn[-1], axis=1))
            rows = slice(batch * B, (batch + 1) * B)
            rates = (0.05, 0.5, *bits, MAX_OVERFLOW, FREQUENCY * (count % FREQUENCY == 0))
            ref.training_step(self.layers, "DFXP", x[rows], t[rows], drawn, *rates)
            self.event("train_batch")

    def go(self):
        self.state("before_init_range")
        untrained = [(layer.W, layer.b) for layer in self.layers]
        at_start = self.errors()
        self.epoch((31, 31))
        for layer, (W, b) in zip(self.layers, untrained, strict=True):
            layer.W, layer.b = W, b
        self.state("after_init_range")
        self.event("init_end", **at_start)
        self.epoch((9, 11))
        self.state("after_epoch1")
        self.event("epoch_end", epoch=1, **self.errors())
        ranges, counted = zip(*self.rows, strict=True)
        overflow, overflow_1 = np.moveaxis(np.array(counted), -1, 0)
        self.arrays |= {"event/rng": ranges, "event/ov": overflow, "event/ov1": overflow_1}
        for name, (x, y) in self.data.items():
            self.arrays |= {f"x_{name}": x, f"y_{name}": y}
        for k, masks in enumerate(self.masks):
            self.arrays[f"mask/L{k}/packed"] = np.concatenate(masks)
        meta = {"batch_size": B, "initial_range": 3, "comp": 9, "upd": 11, "freq": FREQUENCY}
        meta |= {"max_overflow": MAX_OVERFLOW, "range_init_epoch": 1, "n_hidden": 3, "n_pieces": 2}
        meta |= {"shuffle_examples": False, "shuffle_batches": True, "gpu_batches": PER_CHUNK}
        meta["W_shapes"] = [layer.W.shape for layer in self.layers]
        meta["mask_widths"] = [layer.input_size for layer in self.layers]
        self.arrays["meta_json"] = np.bytes_(json.dumps(meta))
        self.arrays["events_json"] = np.bytes_(json.dumps(self.events))
        return self.arrays


def test_a_run_whose_batches_are_shuffled(tmp_path, capsys):
    np.savez(tmp_path / "run.npz", **Run().go())
    assert main([str(tmp_path / "run.npz"), "--quiet"]) == 0
    assert "everything within tolerance" in capsys.readouterr().out
