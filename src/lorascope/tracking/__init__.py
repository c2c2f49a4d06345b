"""The mirror of the records in MLflow. Only this room imports mlflow, and only inside functions.

The records are the truth. The mirror can be lost and refilled, so publishing is idempotent, and a
store that cannot be reached is a reason in a record, never the end of a run.
"""

from lorascope.tracking.connection import TrackingError, require_database, store_uri
from lorascope.tracking.content import StartedTrial
from lorascope.tracking.live import LivePack, LiveTracking
from lorascope.tracking.pages import page_addresses, ui_command
from lorascope.tracking.publication import Publication, publish, try_publish
from lorascope.tracking.study_content import BareBase, StudyContent

__all__ = [
    "BareBase",
    "LivePack",
    "LiveTracking",
    "Publication",
    "StartedTrial",
    "StudyContent",
    "TrackingError",
    "page_addresses",
    "publish",
    "require_database",
    "store_uri",
    "try_publish",
    "ui_command",
]  # fmt: skip
