"""HTML in which every text from a file is only text: what is no Html yet is escaped."""

import base64
import hashlib
import html
from collections.abc import Iterable

from errors import printable

VOID = ("img", "meta")
DRAWN = ("circle", "path")  # of SVG, closed at once


class Html(str):
    """Text that is HTML, and not escaped again."""


def escaped(content: object) -> Html:
    """What is HTML as it is, anything else as text on one line."""
    return content if isinstance(content, Html) else Html(html.escape(printable(content)))


def tag(name: str, /, *content: object, **attributes: object) -> Html:
    """An element; `_` in the names of attributes is `-`, and left out at their end."""
    words = [name]
    for key, value in attributes.items():
        if value is not None:
            words.append(f'{key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"')
    if name in DRAWN:
        words.append("/")
    start = f"<{' '.join(words)}>"
    return Html(start if name in (*VOID, *DRAWN) else f"{start}{join(content)}</{name}>")


def join(content: Iterable[object]) -> Html:
    """Contents one after another."""
    return Html("".join(map(escaped, content)))


def picture(content: bytes, kind: str, alt: str, **attributes: object) -> Html:
    """A picture that is in the page itself."""
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return tag("img", src=source, alt=alt, **attributes)


def table(head: Iterable[str], rows: Iterable[Iterable[tuple[object, float | str | None]]]) -> Html:
    """A table that can be sorted: cells are (content, what it is sorted by; None: its text)."""
    columns = [tag("th", name, scope="col") for name in head]
    lines = [
        tag("tr", *(tag("td", content, data_sort=key) for content, key in row)) for row in rows
    ]
    inner = tag("thead", tag("tr", *columns)), tag("tbody", *lines)
    return tag("div", tag("table", *inner, class_="sortable"), class_="wide", tabindex="0")


def facts(pairs: Iterable[tuple[str, object]]) -> Html:
    """Names and what they are."""
    parts = [join((tag("dt", name), tag("dd", value))) for name, value in pairs]
    return tag("dl", *parts)


STYLE = """
:root { color-scheme: light; --line: #d5d5d5; --grey: #555; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; color: #111; background: #fff;
  font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; }
h3 { font-size: 1.05rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
a { color: #0050a0; }
.note { border-left: .3rem solid #e08a00; padding: .1rem 0 .1rem .8rem; margin: .5rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .6rem .3rem 0; text-align: left;
  vertical-align: top; }
th button { font: inherit; font-weight: bold; color: inherit; background: none; border: 0;
  padding: .2rem 0; cursor: pointer; text-align: left; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
figure { margin: 1rem 0; overflow-x: auto; } figure img { max-width: 100%; height: auto; }
figcaption { color: var(--grey); font-size: .9rem; }
section.run { border-top: 2px solid var(--line); padding: 1.2rem 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr));
  gap: .8rem; }
.charts svg { width: 100%; height: auto; display: block; }
svg text { font: 10px system-ui, sans-serif; fill: #333; }
svg .title { font-weight: bold; fill: #111; }
svg path, svg line { fill: none; vector-effect: non-scaling-stroke; }
.pixels { image-rendering: pixelated; width: 100%; max-width: 36rem; height: auto; }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .15rem 1rem;
  margin: .6rem 0; font-size: .9rem; }
dt { color: var(--grey); } dd { margin: 0; overflow-wrap: anywhere; }
code { font-size: .92em; overflow-wrap: anywhere; }
@media (max-width: 40rem) { body { padding: .6rem; } dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .4rem; } figure img:not(.pixels) { max-width: none; width: 36rem; }
  td, th { padding-right: .4rem; } td code { overflow-wrap: normal; }
  table { font-size: .8rem; } }
@media print { body { max-width: none; padding: 0; font-size: 9pt; }
  .wide { overflow: visible; } table { font-size: 7pt; }
  .charts { grid-template-columns: repeat(3, 1fr); }
  .charts svg, figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
  th button::after { content: none !important; } a { color: inherit; text-decoration: none; } }
"""

SCRIPT = """
"use strict";
const key = (row, column) => {
  const cell = row.cells[column];
  return "sort" in cell.dataset ? cell.dataset.sort : cell.textContent;
};
const compare = (a, b) => {
  if (a === "" || b === "") return (a === "") - (b === "");
  const difference = Number(a) - Number(b);
  return Number.isNaN(difference) ? a.localeCompare(b) : difference;
};
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      const body = table.tBodies[0];
      const rows = [...body.rows];
      rows.sort((a, b) => {
        const one = key(a, column), other = key(b, column);
        const empty = one === "" || other === "";
        return down && !empty ? compare(other, one) : compare(one, other);
      });
      body.append(...rows);
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
    });
  });
}
"""


def document(title: str, *content: object) -> Html:
    """A whole page. Nothing but its own script may run in it, and nothing is fetched."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    own = f"style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    policy = f"default-src 'none'; img-src data:; {own}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Html(STYLE)),
    )
    body = tag("body", tag("main", *content), tag("script", Html(SCRIPT)))
    return Html(f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n")
