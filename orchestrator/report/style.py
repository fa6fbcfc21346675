"""The report's style sheet: no font, no picture from elsewhere; light and dark by what the reader's screen wants.

COLOURS and SCORES are also the demo page's.
"""

# ruff: noqa: E501

from __future__ import annotations

COLOURS = """
:root { color-scheme: light dark;
  --paper: #fbfaf8; --card: #ffffff; --ink: #1d1c1a; --soft: #67635c; --line: #e4e0d9; --faint: #f3f0ea;
  --student: #1f6feb; --other: #8a857c; --teacher: #a0620a; --train: #9bbcf2; --validation: #d9730d; --test: #2f7d5b;
  --good: #17704a; --good-bg: #e3f3ea; --bad: #a8321f; --bad-bg: #fbe9e5; --unsure: #855b00; --unsure-bg: #fbf1d9; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #161513; --card: #1f1e1b; --ink: #ece9e3; --soft: #a39e94; --line: #35322d; --faint: #282622;
  --student: #6aa4ff; --other: #8f8a80; --teacher: #e0a449; --train: #4c6fa8; --validation: #f0964a; --test: #58b08a;
  --good: #7fd3a7; --good-bg: #17342a; --bad: #f2a093; --bad-bg: #3d1f1a; --unsure: #ecc565; --unsure-bg: #372c12; } }
"""

# The verdict and the score charts: the demo page shows them too.
SCORES = """
.verdict { border-radius: 12px; padding: 1.1rem 1.35rem; margin: 1.4rem 0 1.1rem; border: 1px solid transparent; }
.verdict strong { display: block; font-size: 1.35rem; line-height: 1.3; }
.verdict.ship { background: var(--good-bg); color: var(--good); } .verdict.no { background: var(--bad-bg); color: var(--bad); }
.verdict.unsure { background: var(--unsure-bg); color: var(--unsure); } .verdict p { color: var(--ink); margin: .3rem 0 0; }
svg { display: block; overflow: visible; }
svg text { fill: var(--soft); font-size: 11px; font-variant-numeric: tabular-nums; }
.grid { stroke: var(--line); stroke-width: 1; } .zero { stroke: var(--soft); stroke-width: 1.5; }
.interval .whisker { stroke: var(--other); stroke-width: 2; } .interval .dot { fill: var(--other); }
.interval.student .whisker { stroke: var(--student); } .interval.student .dot { fill: var(--student); }
.interval.teacher .whisker { stroke: var(--teacher); } .interval.teacher .dot { fill: var(--teacher); }
.interval.above .whisker { stroke: var(--good); } .interval.above .dot { fill: var(--good); }
.interval.below .whisker { stroke: var(--bad); } .interval.below .dot { fill: var(--bad); }
.score { display: grid; grid-template-columns: 11rem minmax(0, 1fr) 9.4rem; grid-template-areas: "who plot value"; gap: 0 .9rem;
  align-items: center; }
.score .who { grid-area: who; font-size: .92rem; } .score .plot { grid-area: plot; } .score .value { grid-area: value; }
.score .who.student { font-weight: 650; color: var(--student); }
.score .value { font-variant-numeric: tabular-nums; font-size: .92rem; white-space: nowrap; text-align: right; }
.score .value span { color: var(--soft); font-size: .84rem; }
"""

_REST = """
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 0 0 .25rem; }
h3 { font-size: .95rem; margin: 1.5rem 0 .4rem; }
p { margin: .35rem 0 .7rem; } .soft { color: var(--soft); } .small { font-size: .86rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1.2rem 1.35rem 1.3rem; margin: 1.1rem 0; }
.lead { color: var(--soft); font-size: .92rem; margin: 0 0 1rem; max-width: 46rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .7rem; margin: 0 0 1.1rem; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: .7rem .95rem; }
.tile b { display: block; font-size: 1.35rem; font-weight: 620; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .83rem; display: block; line-height: 1.35; }
blockquote { margin: .6rem 0 0; padding: .1rem 0 .1rem .9rem; border-left: 3px solid var(--line); color: var(--soft);
  white-space: pre-wrap; overflow-wrap: anywhere; max-height: 14rem; overflow: auto; }
.losses path { fill: none; stroke-width: 2; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.losses path.train { stroke: var(--student); } .losses path.validation { stroke: var(--validation); stroke-dasharray: 5 4; }
.losses circle.train { fill: var(--student); } .losses circle.validation { fill: var(--validation); stroke: var(--card); stroke-width: 1.5; }
.losses .best { stroke: var(--soft); stroke-dasharray: 2 3; }
.front .front { stroke: var(--student); stroke-dasharray: 3 3; } .front .on { fill: var(--student); } .front .off, .key i.other { fill: var(--other); background: var(--other); }
.repeats .exact { fill: var(--student); opacity: .55; } .repeats .near { fill: var(--validation); opacity: .55; }
.stack .train { fill: var(--train); } .stack .validation { fill: var(--validation); } .stack .test { fill: var(--test); }
.key { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; font-size: .86rem; color: var(--soft); margin: .1rem 0 .6rem; padding: 0; list-style: none; }
.key i { display: inline-block; width: .75em; height: .75em; border-radius: 3px; margin-right: .4em; vertical-align: -.02em; }
.key i.train { background: var(--train); } .key i.validation, .key i.vloss { background: var(--validation); } .key i.test { background: var(--test); } .key i.tloss, .key i.exact { background: var(--student); } .key i.near { background: var(--validation); }
.table { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .4rem .9rem .4rem 0; vertical-align: top; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th { font-weight: 600; color: var(--soft); font-size: .82rem; white-space: nowrap; } tr:last-child td { border-bottom: 0; }
td.k { white-space: nowrap; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.chosen td { background: var(--faint); } tr.chosen td:first-child { font-weight: 650; }
.bar { display: grid; grid-template-columns: minmax(6rem, 17rem) minmax(0, 1fr) 8rem; grid-template-areas: "name plot value"; gap: 0 .9rem;
  align-items: center; font-size: .92rem; margin: .35rem 0; }
.bar .name { grid-area: name; overflow-wrap: anywhere; } .bar .plot { grid-area: plot; }
.bar .value { grid-area: value; text-align: right; font-size: .86rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
.example { border-top: 1px solid var(--line); padding: .75rem 0; } .example:first-of-type { border-top: 0; }
.example dl { display: grid; grid-template-columns: 9.5rem 1fr; gap: .15rem .8rem; margin: 0; font-size: .92rem; }
.example dt { color: var(--soft); } .example dd { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.example dd.right { color: var(--good); } .example dd.wrong { color: var(--bad); }
details > summary { cursor: pointer; color: var(--soft); font-size: .92rem; margin: .5rem 0; }
ul.notes { margin: .3rem 0; padding-left: 1.1rem; } ul.notes li { margin: .3rem 0; overflow-wrap: anywhere; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", monospace; font-size: .86em; overflow-wrap: anywhere; }
pre { background: var(--faint); border-radius: 8px; padding: .7rem .9rem; white-space: pre-wrap; margin: .4rem 0 1rem; }
footer { color: var(--soft); font-size: .84rem; margin-top: 2rem; }
"""

_PHONE = """
@media (max-width: 34rem) { main { padding: 1.1rem .8rem 3rem; } section { padding: 1rem .95rem; } h1 { font-size: 1.4rem; }
  .score { grid-template-columns: 1fr auto; grid-template-areas: "who value" "plot plot"; margin-bottom: .45rem; }
  .bar { grid-template-columns: 1fr auto; grid-template-areas: "name value" "plot plot"; margin-bottom: .7rem; }
  .example dl { grid-template-columns: 1fr; } .example dt { margin-top: .3rem; } }
@media print { body { background: #fff; } section, .tile { break-inside: avoid; } }
"""

_MINOR = """
.minor { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr)); gap: .2rem 2rem; }
.minor .score { grid-template-columns: 1fr auto; grid-template-areas: "who value" "plot plot"; }
"""

STYLE = COLOURS + _REST + SCORES + _MINOR + _PHONE
