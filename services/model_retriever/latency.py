"""How long a model takes to answer on a CPU, from the number of its weights alone.

    milliseconds = 32 tokens written x (2.5 + 0.05 per million weights)

An answer here is 32 tokens written after 128 read, one at a time, greedily, in 32 bits, on two cores. A token written
costs one pass through the weights, most of which wait for memory, and what the program around it takes whatever the
model. The two constants are a least-squares fit, in proportion, to nine models of 7 to 738 million weights
(`python -m bench.answer_latency`); encoder-decoders pass through the decoder's half for each token and through the
encoder's once, so one number for all kinds is right within a factor of two. The evaluator measures the one that was
trained.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

TOKENS_READ, TOKENS_WRITTEN = 128, 32
TOKEN_MS, TOKEN_MS_PER_MILLION = 2.5, 0.05


def cpu_latency_ms(parameters: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Milliseconds of an answer, for each number of weights; 0 where that is 0, which is unknown."""
    weights = np.asarray(parameters, np.float64)
    return np.where(weights > 0, TOKENS_WRITTEN * (TOKEN_MS + TOKEN_MS_PER_MILLION * weights / 1e6), 0.0)
