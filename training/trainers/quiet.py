"""Settings that torch's libraries read while they are imported, and the noise that they make. Imports none of them."""

from __future__ import annotations

import logging
import os
import warnings

NOISY = ("bitsandbytes", "transformers", "peft", "accelerate", "huggingface_hub", "httpx")


def quiet(*, offline: bool, threads: int) -> None:
    """Call before the first import of torch, transformers, peft or bitsandbytes in this process.

    `offline` forbids every look at the model hub (bitsandbytes would otherwise ask it for a kernel while importing).
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS; without it its sums vary
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    # LLM.int8 on a CPU says this once per layer and step; the cast is what we want.
    warnings.filterwarnings("ignore", message="MatMul8bitLt: inputs will be cast", category=UserWarning)
