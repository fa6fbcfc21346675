"""A new version of the index while a service answers 50 searches a second."""

from __future__ import annotations

from bench.index_swap import measure


async def test_a_swap_costs_no_search() -> None:
    """No search fails while the index is replaced, the new one answers within seconds, and hardly any search waits.

    The bound, a p99 of less than twice the steady one, is measured by bench/index_swap.py on a quiet machine; here half
    a second is forgiven, far less than opening an index in the way of searches would cost them.
    """
    figures = await measure(entries=3_000, rate=50.0, seconds=4.0)
    assert figures["failed"] == 0 and figures["searches"] == 400
    assert 0 < figures["new_after_s"] < 3.0
    assert figures["swap_p99_ms"] < 2 * figures["steady_p99_ms"] + 500
