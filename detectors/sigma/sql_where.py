"""The tree as a ClickHouse expression, node by node.

`frame` says what a tree means on the stream; here is the same for the stored events, so that one
rule has one answer. Every leaf is made 0 where it is NULL, before any ``NOT``. No value ever stands
in the text: all are bound by the server (``{name:Type}``).

Letters are folded by ``lowerUTF8`` (full Unicode mapping, ICU), which agrees with polars letter by
letter. The two small sigmas count as one (`search.lower`).
"""

from __future__ import annotations

from detectors.sigma.frame import UNJUDGED
from detectors.sigma.sql_leaf import leaf_sql
from detectors.sigma.sql_text import Sql, Table, Writer
from detectors.sigma.tree import And, Node, Not, Or


def where(tree: Node, table: Table) -> Sql:
    """The tree as an expression over a row of ``table``, 0 or 1 and never NULL. Raises NoSql."""
    writer = Writer(table)
    return writer.done(condition(tree, writer))


def condition(tree: Node, writer: Writer) -> str:
    """The tree within a larger statement. Records that no map recognised are judged by no rule."""
    return f"(event_type != {writer.bind('String', UNJUDGED)} AND {_node(tree, writer)})"


def _node(node: Node, writer: Writer) -> str:
    match node:
        case Or(items=()):
            return "0"
        case And(items=items):
            return f"({' AND '.join(_node(item, writer) for item in items)})"
        case Or(items=items):
            return f"({' OR '.join(_node(item, writer) for item in items)})"
        case Not(item=item):
            return f"(NOT {_node(item, writer)})"
    return leaf_sql(node, writer)
