"""lorascope: which LoRA rank, alpha and quantization mode to ship, with evidence."""

__version__ = "0.1.0"
