"""Uploads to the Hugging Face hub, through its own client."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from zoo_lightning.errors import ConfigError


def check_hub() -> None:
    """See that the user is logged in, before anything is written.

    Raises:
        ConfigError: not so.
    """
    if get_token() is None:
        raise ConfigError(
            "--push-to-hub needs a login: run `hf auth login`, or set HF_TOKEN to an access token"
        )


def push_to_hub(folder: Path, repository: str, private: bool = False) -> str:
    """Upload an exported folder, making the repository if there is none.

    Args:
        folder: that an export wrote.
        repository: ``ORG/REPO``.
        private: of a new repository.

    Returns:
        Where it is now.

    Raises:
        ConfigError: the hub refused it; the folder is still there.
    """
    api = HfApi(library_name="zoo_lightning")
    try:
        url = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=url.repo_id, folder_path=folder, commit_message="Add a model of zoo_lightning"
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise ConfigError(
            f"the Hugging Face hub did not take {repository}: {error}. The export itself is in "
            f"{folder}"
        ) from error
    return f"uploaded to {url}"
