"""Which library multiplies matrices on a CPU.

    many_rows()     oneDNN, within the block: for a batch's inputs, read all at once
    few_rows()      the usual one, within the block: for outputs, written token by token

On an AMD processor oneDNN reads inputs 1.5 times as fast and writes 256 tokens 1.7 times as slowly: each step has other
shapes, which it prepares anew. It is asked for by letting it round factors to bfloat16, which it does only where there
are AMX units: with them the usual library is left in place, so that outputs are those of 32 bits everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager


def many_rows() -> AbstractContextManager[None]:
    """oneDNN, where it does not round."""
    import torch

    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return _precision("bf16" if capabilities.get("amx_tile") is False else "ieee")


def few_rows() -> AbstractContextManager[None]:
    """The usual library."""
    return _precision("ieee")


@contextmanager
def _precision(name: str) -> Iterator[None]:
    import torch

    products = torch.backends.mkldnn.matmul
    before = products.fp32_precision
    products.fp32_precision = name
    try:
        yield
    finally:
        products.fp32_precision = before
