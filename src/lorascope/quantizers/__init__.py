"""How a base's linear layers are stored: `kinds` says which ways there are."""

import logging

# bitsandbytes warns at import that kernels which it could download are absent: no harm. INT8 tells
# at every product that it casts its inputs, which is what LLM.int8 does.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
logging.getLogger("bitsandbytes.autograd._functions").addFilter(
    lambda entry: not str(entry.msg).startswith("MatMul8bitLt: inputs will be cast")
)
