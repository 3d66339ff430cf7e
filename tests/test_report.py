"""The page about runs."""

import html.parser
import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from endings import status_of
from fake_runs import DFXP, change, fake_run

from files import write_npz
from utilities import report, report_charts
from utilities.report_html import SCRIPT, VOID, Html, tag

NASTY = """</script><script>alert('1')</script><img src=x onerror="alert(2)">&lt;"""
BROWSER = next(
    filter(
        None,
        [os.environ.get("CHROMIUM")]
        + [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")],
    ),
    None,
)


class Page(html.parser.HTMLParser):
    """The elements of a page, (name, attributes), and its text; it must be well-formed."""

    def __init__(self, content):
        super().__init__()
        self.elements = []
        self.words = []
        self.open = []
        self.feed(content)
        self.close()
        assert not self.open

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.elements.append((name, dict(attributes)))

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, text):
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(text)

    def all(self, name):
        return [attributes for of, attributes in self.elements if of == name]

    @property
    def text(self):
        return " ".join(self.words)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The report of runs of all kinds: (folder of the runs, file)."""
    folder = tmp_path_factory.mktemp("report")
    runs = folder / "runs"
    fake_run(runs / "flp", 2.0, epochs=20, config={"machine": {"processor": NASTY, "cores": 2}})
    for bits in (8, 9, 10):
        own = DFXP | {"prop_bits": bits, "up_bits": 31}
        fake_run(runs / f"fig2_{bits}", 20.0 / bits, epochs=20, **own)
    fake_run(runs / "dfxp", 2.5, epochs=20, config={"versions": {NASTY: NASTY}}, **DFXP)
    W = np.random.default_rng(0).normal(size=(784, 1200)).astype("float32")
    write_npz(runs / "dfxp" / "best.npz", {"layer0/W": W})
    change(runs / "dfxp", lambda r: r | {"training_error": 1.25, "training_loss": 0.0625})
    fake_run(runs / NASTY.replace("/", "|"), 3.0, epoch=7, format="HFLP")
    fake_run(runs / "sample", 50.0, sample=True, epochs=3, **DFXP)
    change(runs / "sample", lambda r: r | {"ranges": [[0] * 10] * 3})
    own = {"data": {"t10k-images-idx3-ubyte": "another sum"}, "started": NASTY}
    fake_run(runs / "own", 10.0, config=own)
    (runs / "damaged").mkdir()
    (runs / "damaged" / "config.json").write_text("{}")
    out = folder / "new" / "report.html"
    assert report.main([str(runs), "-o", str(out)]) == 0
    return runs, out


def test_the_page_is_whole_and_needs_nothing_else(made):
    content = made[1].read_text()
    page = Page(content)
    for attributes in (attributes for _, attributes in page.elements):
        for name, value in attributes.items():
            assert not name.startswith("on") and name not in ("srcset", "action", "background")
            if name in ("src", "href", "xlink:href"):
                assert value.startswith(("data:image/", "#"))
    assert "@import" not in content and "url(" not in content
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {n for n, _ in page.elements}
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids) == 8
    assert {attributes["href"][1:] for attributes in page.all("a")} == set(ids)
    assert all(attributes.get("alt") for attributes in page.all("img"))
    assert any(m.get("name") == "viewport" for m in page.all("meta"))
    assert "@media print" in content and len(content) < 1_000_000


def test_what_is_in_files_is_text(made):
    page = Page(made[1].read_text())
    assert len(page.all("script")) == 1 and page.all("script") == [{}]
    policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert policy.startswith("default-src 'none'") and "script-src 'sha256-" in policy
    # The processor, twice; a version and its name; when it was started; the folder.
    assert page.text.count("<script>alert('1')") == 6
    assert "</script" not in SCRIPT
    assert tag("p", "<b>", title='"<') == '<p title="&quot;&lt;">&lt;b&gt;</p>'
    assert tag("p", Html("<b>")) == "<p><b></p>"


def test_the_page_says_what_runs_are_not_the_papers(made):
    runs, out = made
    text = Page(out.read_text()).text
    for said in (
        "on the generated sample",
        "Trained on own data",
        "PI MNIST: runs of 3, 20 epochs instead of 800",
        "20 epochs instead of 800.",
        "Stopped after epoch 7 of 800.",
        "the ranges never moved",
        "not come to the last epoch: 1 run",
        f"{runs}/damaged/config.json cannot be read",
        "main.py MNIST FLP",  # missing
    ):
        assert said in text, said


def test_each_run_has_its_curves_ranges_filters_and_settings(made):
    page = Page(made[1].read_text())
    titles = [attributes["aria-label"] for attributes in page.all("svg")]
    assert titles.count("errors (%)") == 8
    assert titles.count("training loss (nats), under dropout") == 1
    for k in range(3):
        assert titles.count(f"ranges of layer {k} (bits)") == 5
        assert titles.count(f"overflow rates of layer {k} (%)") == 5
    alts = [attributes["alt"] for attributes in page.all("img")]
    assert alts == [
        "learning curves, PI MNIST",
        "fig2: test error against the bit-width of the propagations, without sign",
        "filters of the first layer",
    ]
    assert "The first 60 of 1200 filters" in page.text
    assert page.text.count("the folder has no best.npz") == 7
    assert "1.25 %, loss 0.0625, in the last epoch" in page.text
    assert page.text.count("RANGE_UPDATE_FREQ") == 5 and page.text.count("git revision") == 8
    assert "limit 0.01 %" in page.text


def test_columns_are_sorted_by_numbers(made):
    page = Page(made[1].read_text())
    cells = [attributes for attributes in page.all("td") if "data-sort" in attributes]
    assert len(cells) > 8 * 6
    keys = {cell["data-sort"] for cell in cells}
    assert {"2.5", "20.0", "1234"} <= keys  # an error, epochs, a seed


def test_records_that_are_strange_are_left_out_of_the_charts(tmp_path):
    for name, strange in (
        ("words", {"ranges": "x", "training_error": "<b>", "training_loss": [1]}),
        ("empty", {"ranges": []}),
        ("shapes", {"ranges": [[1, 2]]}),
        ("infinite", {"overflow_rates": [[float("inf")] * 10] * 3, "test_error": 0.0}),
        ("nan", {"training_loss": float("nan"), "training_error": None}),
    ):
        fake_run(tmp_path / name, 2.0, epochs=3, **DFXP)
        change(tmp_path / name, lambda r, strange=strange: r | strange)
    out = tmp_path / "report.html"
    assert report.main([str(tmp_path), "-o", str(out)]) == 0
    page = Page(out.read_text())
    titles = [attributes["aria-label"] for attributes in page.all("svg")]
    assert titles.count("errors (%)") == 5 and titles.count("ranges of layer 0 (bits)") == 1
    assert page.text.count("has ranges or overflow rates that are none") == 4
    for attributes in page.all("path"):
        assert not re.search("nan|inf", attributes["d"])


def test_charts_have_gaps_dots_and_an_edge():
    x = np.arange(1.0, 7)
    y = np.array([1.0, np.nan, 2.0, 3.0, np.nan, 99.0])
    drawn = report_charts.chart("title", [report_charts.Series("<i>", x, y, "#000000")], (0.0, 4.0))
    page = Page(drawn)
    (line,) = [p["d"] for p in page.all("path") if "stroke-width" in p]
    assert line.count("M") == 1 and len(line[1:].split()) == 4
    dots = page.all("circle")
    assert [dot["cx"] for dot in dots] == ["46", "268"] and dots[1]["cy"] == "20"
    assert "<i>" in page.text


@pytest.mark.parametrize("words", [["nothing"], ["flp", "-o", "x.htm"], []])
def test_what_cannot_be_reported_gives_one_line(words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fake_run(tmp_path / "flp", 2.0)
    assert status_of(report.main, words) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["flp"]


def browse(page, width, folder, *options):
    """What a headless Chromium makes of a page of so many pixels: its DOM, or by options."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000"]
    command += [f"--user-data-dir={folder}/profile", f"--window-size={width},900"]
    done = subprocess.run(
        [*command, *(options or ["--dump-dom"]), page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert not done.returncode, done.stderr
    return done.stdout


# Each column of each table is sorted up and down; how wide the page is.
LOOK = """<script>
const values = (table, column) =>
  [...table.tBodies[0].rows].map((row) => row.cells[column].dataset.sort
    ?? row.cells[column].textContent);
const seen = [];
for (const table of document.querySelectorAll("table"))
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const own = [];
    for (const how of ["ascending", "descending"]) {
      head.querySelector("button").click();
      own.push([how, head.ariaSort, values(table, column)]);
    }
    seen.push(own);
  });
const out = document.createElement("pre");
out.id = "seen";
out.textContent = JSON.stringify({seen, wide: document.documentElement.scrollWidth,
  inner: innerWidth, broken: [...document.images].filter((i) => !i.naturalWidth).length});
document.body.append(out);
</script>"""


@pytest.mark.soak
@pytest.mark.skipif(not BROWSER, reason="there is no Chromium")
@pytest.mark.parametrize("width", [1280, 500])
def test_in_a_browser(width, made, tmp_path):
    """Its own script may run, an added one may not; tables are sorted; nothing is too wide."""
    content = made[1].read_text()
    page = tmp_path / "page.html"
    page.write_text(content.replace("</body>", f"{LOOK}</body>"))
    dom = browse(page, width, tmp_path)
    assert "<button" in dom and 'id="seen"' not in dom
    meta = re.search(r"<meta http-equiv[^>]*>", content)[0]
    page.write_text(content.replace(meta, "").replace("</body>", f"{LOOK}</body>"))
    dom = Page(browse(page, width, tmp_path).split("<!DOCTYPE html>")[-1])
    found = json.loads(next(text for text in dom.words if text.startswith('{"seen"')))
    assert found["wide"] <= found["inner"] == width and found["broken"] == 0
    assert len(found["seen"]) == 16
    for column in found["seen"]:
        for how, said, values in column:
            known = [value for value in values if value]
            assert said == how and values == known + [""] * (len(values) - len(known))
            numbers = all(re.fullmatch(r"-?[0-9.]+", value) for value in known)
            if numbers:
                known = [float(value) for value in known]
                assert known == sorted(known, reverse=how == "descending")
    picture = tmp_path / "page.pdf"
    browse(made[1], width, tmp_path, f"--print-to-pdf={picture}")
    assert picture.read_bytes().startswith(b"%PDF")
