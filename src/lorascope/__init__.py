"""lorascope: which LoRA rank, alpha and quantization mode to ship, with evidence."""

__version__ = "0.1.0"

import logging

# bitsandbytes warns at import that kernels which it could download are absent: no harm.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
