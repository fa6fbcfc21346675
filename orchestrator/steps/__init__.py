"""What each stage of a run asks of its service, and what of the answer the run keeps: a module for each.

    parse ─┬─ datasets ─┐
           ├─ generate ─┼─ prepare ── train ── evaluate
           └─ models ───┘

A step takes the outcomes of earlier ones and gives its own: plain JSON values, so that they can be stored. A stage that
cannot help is SKIPPED with the reason; one that must succeed raises. What they have in common is in `step`; the export
is in `orchestrator.exports`, the report in `orchestrator.outcome`.
"""
