"""How an evidence page is set: its style sheet, and the small parts that its sections are made of.

It knows HTML, not the case: sections, tables, figures. On paper the page
is light whatever the screen is, no heading stands alone at a foot, and on a phone each figure is drawn narrow.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.charts.svg import NARROW, Line, chart

CSS = """
:root{color-scheme:light dark;color:#1d2733;font:16px/1.5 Georgia,'Times New Roman',serif}
body{max-width:56rem;margin:0 auto;padding:1rem 1.2rem 3rem;background:#fff}
h1,h2,th,.tile,figcaption,.meta{font-family:Helvetica,Arial,sans-serif}
h1{font-size:1.6rem;line-height:1.25;margin:.6rem 0}h2{font-size:1.15rem;margin:2.2rem 0 .5rem;
border-bottom:1px solid #c9d2da;padding-bottom:.2rem}
.meta{color:#51606f;font-size:.85rem}.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(10.5rem,1fr));
gap:.7rem;margin:1rem 0}.tile{border:1px solid #c9d2da;border-radius:.4rem;padding:.6rem .8rem;font-size:.8rem;
color:#51606f}.tile b{display:block;font-size:1.3rem;color:#1d2733;line-height:1.3}
table{border-collapse:collapse;width:100%;font-size:.92rem}th,td{text-align:left;padding:.3rem .5rem;vertical-align:top;
border-bottom:1px solid #e3e8ed}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.scroll{overflow-x:auto}figure{margin:1rem 0}svg{width:100%;height:auto;display:block}
figcaption{font-size:.82rem;color:#51606f}code{overflow-wrap:anywhere}pre{font-size:.72rem;white-space:pre-wrap;overflow-wrap:anywhere;
background:#f6f8fa;padding:.6rem}.bar{display:inline-block;height:.7rem;background:#2f5d8a;vertical-align:middle;margin-right:.4rem}
.v{font-family:Helvetica,Arial,sans-serif;font-weight:bold}.against{color:#2e6b3a}.open{color:#b03a2e}
.note{background:#fbf6e6;border-left:.25rem solid #d6b656;padding:.6rem .9rem}
figure .narrow{display:none}
@media screen and (max-width:560px){figure .wide{display:none}figure .narrow{display:block}h1{font-size:1.35rem}
table{font-size:.85rem}th.n{white-space:normal}}
@media screen and (prefers-color-scheme:dark){:root{color:#e4e9ee}
body,svg>rect:first-of-type{background:#14191f;fill:#14191f}
.meta,.tile,figcaption{color:#a9b5c0}.tile b{color:#e4e9ee}h2,.tile{border-color:#3a4653}th,td{border-color:#2b353f}
pre{background:#1c232b}.note{background:#2a2617;border-color:#b0903a}.against{color:#7cc28c}.open{color:#f0877b}
a{color:#8dbce8}.bar{background:#7fb0dd}[fill="#1d2733"]{fill:#e4e9ee}[fill="#51606f"]{fill:#a9b5c0}[stroke="#e3e8ed"]{stroke:#2b353f}
[stroke="#9aa7b4"]{stroke:#5c6a77}[stroke="#2f5d8a"]{stroke:#7fb0dd}[stroke="#b03a2e"]{stroke:#f0877b}
[stroke="#6b7885"]{stroke:#a9b5c0}[fill="#b03a2e"]{fill:#f0877b}[fill="#6b7885"]{fill:#a9b5c0}}
@media print{:root{color-scheme:light}body{max-width:none;padding:0;font-size:10.5pt}p,li{orphans:3;widows:3}
h2,thead{break-after:avoid}figure,tr,.tile,.note,pre,ul{break-inside:avoid}pre{break-before:avoid}
section>h2+p,section>h2+figure,section>h2+div{break-before:avoid}.scroll{overflow:visible}
.tiles{grid-template-columns:repeat(4,1fr)}.tile b{font-size:1.05rem}
a.raw{display:none}}
@page{size:A4;margin:16mm 15mm}
"""


def section(title: str, *parts: str) -> str:
    """A heading and what belongs to it."""
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def figure(title: str, x: NDArray[np.float64], lines: list[Line], *, caption: str = "", **options: Any) -> str:
    """A chart drawn twice, for a page and for a phone; the style sheet shows what fits. `options` are `chart`'s."""
    wide = chart(title, x, lines, **options)
    narrow = chart(title, x, lines, frame=NARROW, **options)
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><div class="wide">{wide}</div><div class="narrow">{narrow}</div>{words}</figure>'


def table(head: Iterable[tuple[str, bool]], rows: Iterable[Iterable[str]]) -> str:
    """A table; `head` is each column's title and whether it holds numbers, `rows` are cells of HTML."""
    head = list(head)
    cells = "".join(f"<th{' class=n' if number else ''}>{escape(text)}</th>" for text, number in head)
    lines = "".join(
        "<tr>"
        + "".join(f"<td{' class=n' if n else ''}>{c}</td>" for c, (_, n) in zip(row, head, strict=True))
        + "</tr>"
        for row in rows
    )
    # A wide table scrolls by itself, for a keyboard, too.
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table></div>'
    )
