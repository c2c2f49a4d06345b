"""What children that train need, imported once: their fork server imports this module."""

from lorascope.machine.libraries import import_uncollected

import_uncollected("lorascope.quantizers", "lorascope.training.run")
