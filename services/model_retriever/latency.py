"""How long a model takes to answer on a CPU, from the number of its weights alone.

    milliseconds = 8 tokens written x (3.1 + 0.256 per million weights)

An answer here is short: 8 tokens written after 64 read, greedily, one at a time, in 32 bits, by one thread. A token
written costs a pass through the weights, most of which wait for memory, and what the program around it takes whatever
the model. The two constants are a least-squares fit, in proportion, to eight T5, BART and GPT-2 models of 16 to 738
million weights (`python -m bench.answer_latency`); it is off by a factor of 1.5 at most there, since encoder-decoders
pass through their decoder alone for each token. Another machine is another factor: what is ranked and left out by it
are models against each other. A longer answer takes longer in proportion to its tokens.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

TOKENS_READ, TOKENS_WRITTEN = 64, 8
TOKEN_MS, TOKEN_MS_PER_MILLION = 3.1, 0.256


def cpu_latency_ms(parameters: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Milliseconds of an answer, for each number of weights; 0 where that is 0, which is unknown."""
    weights = np.asarray(parameters, np.float64)
    return np.where(weights > 0, TOKENS_WRITTEN * (TOKEN_MS + TOKEN_MS_PER_MILLION * weights / 1e6), 0.0)
