"""The first import of the fork server: whatever it forks sees no GPU.

Libraries that it imports touch CUDA where they find it, and a forked child cannot use it any more.
Children that need CUDA start afresh.
"""

from lorascope.machine.environment import hide_gpus

hide_gpus()
