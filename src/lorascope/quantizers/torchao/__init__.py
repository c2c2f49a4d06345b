"""torchao: weights as whole numbers of 8, 4 and 2 bits, and inputs of layers rounded to 8."""

import logging

# At import torchao tells which CUDA kernels it lacks, and torch what will change in it: no harm.
logging.getLogger("torchao").setLevel(logging.ERROR)
logging.getLogger("torch.utils._pytree").addFilter(
    lambda entry: "KernelPreference" not in entry.getMessage()
)
