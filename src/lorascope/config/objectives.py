"""Objectives by name, with the settings of conf/train that each has of its own."""

from __future__ import annotations

OF_PAIRS: dict[str, tuple[str, ...]] = {
    "dpo": ("beta", "label_smoothing", "reference_free"),
    "ipo": ("beta", "reference_free"),
    "orpo": ("beta",),
    "simpo": ("beta", "label_smoothing", "target_margin"),
}
"""Objectives that read pairs of replies."""
OWN_SETTINGS: dict[str, tuple[str, ...]] = {"completion": (), "classification": (), **OF_PAIRS}
"""Names of `objectives.kinds.OBJECTIVES`, which is above this room. Losses of one objective are on
one scale where these settings are equal."""
PREFERENCES = tuple(OF_PAIRS)
REFERENCED = tuple(name for name, own in OF_PAIRS.items() if "reference_free" in own)
"""Objectives that hold replies against what the bare base gives them."""
READ_BY = {
    setting: tuple(name for name, own in OWN_SETTINGS.items() if setting in own)
    for settings in OWN_SETTINGS.values()
    for setting in settings
}
"""Settings, with the objectives that read them."""
DECIDES_WORK = ("reference_free",)
"""Settings that trials of one pack share: whether the base's own pass is needed at all."""
