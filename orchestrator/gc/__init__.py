"""Removing what no run refers to any more: mark, grace, sweep.

    mark      every blob that no run of the database and no stored result names is written down, with the time
    grace     a day by default: what a stage has stored and not yet recorded is not garbage, though nobody names it yet
    sweep     what was written down a grace ago, is unnamed still and was not stored again since, is removed

    command       `p2m gc`: the plan, the removal, what it tells
    retention     what is kept how long, by kind
    references    which runs name which objects
    reservations  rows by which a run that begins and a removal keep out of each other's way
    marks         what was found unnamed, and since when
    sweep         the removal itself, with `services.kit.keeping`

It can be stopped at any point: what was written down stays so, and the next one goes on.
"""
