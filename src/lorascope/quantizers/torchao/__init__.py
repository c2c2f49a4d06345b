"""torchao's grids of whole numbers: symmetric and asymmetric weights of 8, 4 and 2 bits."""

import logging

# At import torchao tells which CUDA kernels it lacks, and torch what will change in it: no harm.
logging.getLogger("torchao").setLevel(logging.ERROR)
logging.getLogger("torch.utils._pytree").addFilter(
    lambda entry: "KernelPreference" not in entry.getMessage()
)
