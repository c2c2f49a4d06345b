"""Keeps the libraries' progress bars and known-harmless notices out of our output."""

from __future__ import annotations

import logging

from transformers.utils import logging as transformers_logging


def quiet_libraries() -> None:
    """Keep progress bars and one known-harmless warning of the libraries out of our output."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    # INT8 tells at every product that it casts its inputs, which is what LLM.int8 does.
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(_is_not_cast_notice)


def _is_not_cast_notice(entry: logging.LogRecord) -> bool:
    return not str(entry.msg).startswith("MatMul8bitLt: inputs will be cast")
