"""Keeps the libraries' progress bars and known-harmless notices out of our output."""

from __future__ import annotations

import logging
import sys
import warnings

from transformers.utils import logging as transformers_logging


def quiet_libraries() -> None:
    """Keep notices that nobody can act on out of our output, and progress bars out of files."""
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    # INT8 tells at every product that it casts its inputs, which is what LLM.int8 does.
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(_is_not_cast_notice)
    # PEFT reads an attribute, and the Trainer a setting, that transformers 6 will rename.
    for name in ("is_gradient_checkpointing", "gradient_checkpointing"):
        warnings.filterwarnings("ignore", f"`{name}` is deprecated", FutureWarning)
    # A pack's gradients lie in one matrix, on purpose.
    warnings.filterwarnings("ignore", "grad and param do not obey the gradient layout", UserWarning)


def _is_not_cast_notice(entry: logging.LogRecord) -> bool:
    return not str(entry.msg).startswith("MatMul8bitLt: inputs will be cast")
