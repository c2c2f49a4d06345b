"""A folder on its way to the Hugging Face hub: first what would be sent, and only then sent."""

from __future__ import annotations

from dataclasses import dataclass
from glob import escape
from pathlib import Path

from lorascope.errors import ConfigError, LorascopeError
from lorascope.files.exported import files_of

LONGEST_TOLD = 400
"""Characters of an error that is not ours."""


@dataclass(frozen=True)
class Push:
    """What would be sent where."""

    repository: str
    """owner/name"""
    private: bool
    folder: Path
    files: dict[str, int]
    """Name in the repository -> bytes."""


def planned_push(folder: Path, repository: str, private: bool) -> Push:
    """All files of `folder` as a new model repository.

    Raises:
        ConfigError: the hub takes no such name.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repository)
        problem = None if repository.count("/") == 1 else "it is no owner/name"
    except HFValidationError as error:
        problem = " ".join(str(error).split())
    if problem is not None:
        raise ConfigError("push", repository, problem, "Write push=owner/name.")
    files = {name: path.stat().st_size for name, path in files_of(folder).items()}
    return Push(repository, private, folder, files)


def send(push: Push, message: str, endpoint: str | None = None) -> str:
    """Make the repository, which must be new, and upload the files; its address.

    Args:
        endpoint: address of the hub; None for what huggingface_hub is set to.

    Raises:
        LorascopeError: the hub cannot be reached, knows no such user, or has that repository.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(endpoint=endpoint)
    # Its library for HTTP, which raises where there is no network, changes from release to release:
    # what else is raised is told as that.
    try:
        made = api.create_repo(
            push.repository, private=push.private, repo_type="model", exist_ok=False
        )
    except HfHubHTTPError as error:
        raise LorascopeError(
            f"push={push.repository}: the hub refused it ({_in_one_line(error)}). {_remedy(error)}"
        ) from error
    except Exception as error:
        raise LorascopeError(
            f"push={push.repository}: the hub was not reached ({_in_one_line(error)}). Log in with "
            "`hf auth login`, leave HF_HUB_OFFLINE unset, and see that there is a network."
        ) from error
    try:
        api.upload_folder(
            repo_id=made.repo_id, folder_path=push.folder, repo_type="model",
            commit_message=message, allow_patterns=[escape(name) for name in push.files],
        )  # fmt: skip
    except Exception as error:
        raise LorascopeError(
            f"push={push.repository}: the upload failed ({_in_one_line(error)}). {made} was made, "
            "and is empty or lacks files: delete it there, then push again."
        ) from error
    return str(made)


def _in_one_line(error: Exception) -> str:
    """What the hub says stands in the last of several lines."""
    return " ".join(str(error).split())[:LONGEST_TOLD] or type(error).__name__


def _remedy(error: object) -> str:
    response = getattr(error, "response", None)
    if getattr(response, "status_code", None) == 409:
        return (
            "A repository of that name exists and is left as it is: choose another name, or delete "
            "it there."
        )
    return "Log in with `hf auth login` as someone who may write there."
