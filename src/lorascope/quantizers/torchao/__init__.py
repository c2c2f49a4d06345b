"""torchao's grids of whole numbers: symmetric and asymmetric weights of 8, 4 and 2 bits."""

import logging

# torchao tells at import which CUDA kernels it does not find, and how torch will change: no harm.
logging.getLogger("torchao").setLevel(logging.ERROR)
