"""lorascope: which LoRA rank, alpha and quantization mode to ship, with evidence."""

__version__ = "0.1.0"

import lorascope.quantizers  # noqa: F401 (keeps what it imports later quiet)
