"""Run folders as main.py leaves them, made without training."""

import json

from settings import Settings

DFXP = {
    "format": "DFXP",
    "initial_range": 5,
    "prop_bits": 9,
    "up_bits": 11,
    "range_update_frequency": 100,
    "max_overflow": 0.0001,
    "init_epochs": 2,
}


def fake_run(folder, error, epochs=800, epoch=None, sample=False, config=None, **settings):
    """A run of so many epochs, finished or stopped after `epoch`, without parameters."""
    own = {"task": "PI_MNIST", "format": "FLP", "epochs": None if epochs == 800 else epochs}
    facts = {
        "settings": Settings(**(own | settings)).as_json(),
        "epochs": epochs,
        "data": {},
        "sample": sample,
        "device": "cpu: cpu",
    }
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(facts | (config or {})))
    last = epochs if epoch is None else epoch
    records = [fake_record(e, error, settings.get("format")) for e in sorted({0, 1, last})]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))


def fake_record(epoch, error, number_format=None):
    """What is known after an epoch."""
    record = {
        "epoch": epoch,
        "validation_error": 2.0,
        "test_error": error,
        "best_epoch": 0,
        "best_validation_error": 2.0,
        "best_test_error": error,
        "seconds": 36.0,
    }
    if number_format == "DFXP":
        record["ranges"] = [[k + epoch % 3 for k in range(10)]] * 3
        if epoch:
            record["overflow_rates"] = [[0.0, 0.01, *[0.001] * 8]] * 3
    return record


def change(run, how):
    """Make the records of a run how(record) of each, but for those that are then empty."""
    metrics = run / "metrics.jsonl"
    records = [how(json.loads(line)) for line in metrics.read_text().splitlines()]
    metrics.write_text("".join(json.dumps(record) + "\n" for record in records if record))
