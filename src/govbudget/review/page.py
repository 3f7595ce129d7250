"""The matrix as one HTML page that stands alone: no scripts, no network, made to be printed."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import TYPE_CHECKING

from govbudget.review.meaning import INVARIANTS, find_idle_lines

if TYPE_CHECKING:
    from govbudget.authz.table import DecisionTable
    from govbudget.review.render import Cells

STYLE = """
body { font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
       color: #1a1a1a; background: #fff; }
table { border-collapse: collapse; margin: 1.5rem 0; width: 100%; }
caption { text-align: left; font-weight: 600; padding-bottom: .5rem; }
th, td { border: 1px solid #767676; padding: .4rem .6rem; text-align: left; vertical-align: top; }
th { background: #f0f0f0; }
.allow { background: #e3f4e3; font-weight: 600; }
.forbid { background: #fbe3e3; font-weight: 600; }
.lines { display: block; font: .85rem ui-monospace, monospace; color: #333; font-weight: 400; }
code { font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
@media print { body { margin: 0; max-width: none; font-size: 10pt; }
               tr { break-inside: avoid; } .allow, .forbid, th { print-color-adjust: exact; } }
"""


def render_html(table: DecisionTable, cells: Cells) -> str:
    """Write the page: a row a role, a column an object and action; invariants and idle lines."""
    style_hash = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'sha256-{style_hash}'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Policy matrix</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>Policy matrix</h1>
<p>Every decision of the policy with the digest <code>{escape(table.digest)}</code>.
<b>allow</b>: a line allows it. <b>deny</b>: no line allows it; another role may.
<b>forbid</b>: a line denies it, whatever else the caller holds.</p>
{_write_matrix(table, cells)}
<h2>Invariants</h2>
{_write_invariants(table)}
<h2>Idle lines</h2>
{_write_idle_lines(table)}
</main>
</body>
</html>
"""


def _write_matrix(table: DecisionTable, cells: Cells) -> str:
    columns = list(dict.fromkeys((obj, action) for _, obj, action in cells))
    rows = []
    for role in dict.fromkeys(role for role, _, _ in cells):
        row = f'<th scope="row">{escape(role)}</th><td>{table.scopes[role]}</td>'
        for obj, action in columns:
            cell = table.cell(role, obj, action)
            lines = ", ".join(escape(name) for name in cell.decision.lines)
            where = f'<span class="lines">{lines}</span>' if lines else ""
            row += f'<td class="{cell.verdict}">{cell.verdict}{where}</td>'
        rows.append(row)
    caption = "What each role may do, held in its scope, and the lines that decide"
    heads = ["role", "held in", *(f"{obj}<br>{action}" for obj, action in columns)]
    return _write_table(caption, heads, rows)


def _write_invariants(table: DecisionTable) -> str:
    rows = []
    for invariant in INVARIANTS:
        examples = "; ".join(escape(example) for _, example in invariant.find(table))
        state = f"broken: {examples}" if examples else "holds"
        rows.append(f'<th scope="row">{escape(invariant.statement)}</th><td>{state}</td>')
    return _write_table("What must hold of every policy", ["invariant", "state"], rows)


def _write_table(caption: str, heads: list[str], rows: list[str]) -> str:
    head = "".join(f'<th scope="col">{title}</th>' for title in heads)
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return f"""<table><caption>{caption}</caption>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody></table>"""


def _write_idle_lines(table: DecisionTable) -> str:
    idle = [f"<li>{escape(str(finding))}</li>" for finding in find_idle_lines(table)]
    return f"<ul>{''.join(idle)}</ul>" if idle else "<p>None: every line changes a decision.</p>"
