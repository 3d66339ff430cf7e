"""What main.py prints of an epoch."""

import json

import pytest
from conftest import ROOT

from reports import Report

RANGES = [[3, -3, 3, -3, -1, -1, -3, -2, -7, -6], [0] * 10]
RECORD = {
    "epoch": 8,
    "LR": 0.0492125,
    "M": 0.507,
    "validation_error": 2.15,
    "test_error": 2.18,
    "best_epoch": 7,
    "best_validation_error": 2.11,
    "best_test_error": 2.2,
    "seconds": 4.234,
    "images_per_second": 11904.3,
}
LINE = (
    "epoch 8: validation  2.15 %, test  2.18 %, best 2.20 % in 7; LR 0.04921, M 0.507; "
    "4.2 s, 11,904 images/s\n"
)
LAYERS = [
    "z 3, dEdz -3, y 3, dEdy -3, w -1, b -1, dEdw -3, dEdb -2, update_w -7, update_b -6\n",
    "z 0, dEdz 0, y 0, dEdy 0, w 0, b 0, dEdw 0, dEdb 0, update_w 0, update_b 0\n",
]
ALL = "".join(f"  layer {k} ranges: {words}" for k, words in enumerate(LAYERS))
# What was printed of every epoch before it was a line.
PUBLISHED = """epoch 8:
  learning rate 0.0492125
  momentum 0.507
  validation error 2.15 %
  test error 2.18 %
  best epoch 7
  best validation error 2.11 %
  its test error 2.20 %
"""


def test_an_epoch_is_a_line(capsys):
    report = Report("line", False, 9)
    report(RECORD)
    assert capsys.readouterr().out == LINE
    assert len(LINE) <= 105
    report({k: v for k, v in RECORD.items() if k != "seconds"} | {"images_per_second": None})
    assert capsys.readouterr().out == LINE.split("; 4.2")[0] + "\n"  # the untrained network's


def test_ranges_are_printed_when_they_change(capsys):
    report = Report("line", False, 9)
    moved = [[4, *RANGES[0][1:]], RANGES[1]]
    expected = [ALL, "", "  layer 0 ranges: z 4\n", ""]
    for ranges, text in zip((RANGES, RANGES, moved, moved), expected, strict=True):
        report(RECORD | {"ranges": ranges})
        assert capsys.readouterr().out == LINE + text


def test_ranges_are_printed_always_if_so_told(capsys):
    report = Report("line", True, 9)
    for _ in range(2):
        report(RECORD | {"ranges": RANGES})
        assert capsys.readouterr().out == LINE + ALL


@pytest.mark.parametrize("ranges", [False, True])
def test_the_published_block_is_what_it_was(ranges, capsys):
    report = Report("published", ranges, 800)
    report(RECORD)
    assert capsys.readouterr().out == PUBLISHED
    for _ in range(2):
        report(RECORD | {"ranges": RANGES})
        lines = [f"  ranges of layer {k}: {words}" for k, words in enumerate(LAYERS)]
        assert capsys.readouterr().out == PUBLISHED + "".join(lines)


def test_what_the_pages_show_is_what_is_printed(capsys):
    """Of the run that they name."""
    path = ROOT / "results" / "PI_MNIST_DFXP_5_9_11_100_0.0001_2" / "metrics.jsonl"
    records = [json.loads(text) for text in path.read_text().splitlines()[:9]]
    for kind in ("line", "published"):
        report = Report(kind, False, 8)
        for record in records:
            report(record)
    lines = capsys.readouterr().out.splitlines()
    second = lines.index("epoch 0:")
    last = lines[second - 7 : second]  # two epochs
    for page, shown in (("README.md", last[:4]), ("docs/running.md", last)):
        assert indented(shown) in (ROOT / page).read_text(), page
    assert indented(lines[-11:]) in (ROOT / "docs/running.md").read_text()


def indented(lines):
    return "".join(f"    {line}\n" for line in lines)


def test_a_run_that_goes_on_says_from_where(capsys):
    Report("line", False, 9).resuming("after epoch 2")
    Report("published", False, 9).resuming("after epoch 2")
    assert capsys.readouterr().out == "resuming after epoch 2\n"
