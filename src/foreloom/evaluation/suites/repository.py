"""A data set repository of the Hugging Face hub: its files at one commit, those that make one data set, their download.

huggingface_hub does all the talking and reads `HTTPS_PROXY`, `HF_TOKEN`, `HF_ENDPOINT` and `HF_HUB_OFFLINE`.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import posixpath
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from huggingface_hub import HfApi


class HubUnreachable(ValueError):
    """Nothing can be fetched: no network, no answer, or offline mode."""


class HubRefused(ValueError):
    """The hub answers, but does not give this repository."""


@dataclass(frozen=True)
class HubFile:
    """A file of a repository."""

    path: str
    num_bytes: int
    digest: str
    """As the hub states it, in hexadecimal: SHA-256 of large files (64 digits), git's SHA-1 of a blob (40)."""

    def flaw(self, path: Path, *, by_size: bool = False) -> str:
        """Why what lies at `path` is not this file, as a sentence; empty where it is. Reads all of it, or, `by_size`,
        nothing of it."""
        if not path.is_file():
            return f"{path} is missing."
        num_bytes = path.stat().st_size
        if num_bytes != self.num_bytes:
            return f"{path} has {readable(num_bytes)} where the hub's file has {readable(self.num_bytes)}."
        if by_size:
            return ""
        made = hashlib.sha256() if len(self.digest) == 64 else hashlib.sha1(f"blob {num_bytes}\0".encode())
        with path.open("rb") as file:
            same = hashlib.file_digest(file, lambda: made).hexdigest() == self.digest
        return "" if same else f"{path} has another checksum than the hub's file."


@dataclass(frozen=True)
class Listing:
    """A repository at one commit."""

    repo: str
    revision: str
    """Commit, 40 hexadecimal digits."""
    files: tuple[HubFile, ...]
    patterns: Mapping[str, tuple[str, ...]]
    """Configuration → patterns of its files, from the repository's card."""

    def select(self, config: str, folder: str) -> dict[str, HubFile]:
        """The files of one data set by their path below the data root, where they are to lie in `folder`.

        `config` is looked up among the configurations of the card (their split `train`, as `datasets` takes it), then
        among folders, then among files. A part of the path that all files share is left out: the files of
        `ETT/15T/train-*` lie in `folder` itself. Raises ValueError when nothing is found, with near names, and for a
        file that leads out of the data root.
        """
        if config in self.patterns:
            wanted = self.patterns[config]
            found = [file for file in self.files if any(fnmatchcase(file.path, pattern) for pattern in wanted)]
        else:
            found = [file for file in self.files if file.path.startswith(f"{config}/")]
            found = found or [file for file in self.files if file.path == config]
        if not found:
            raise ValueError(self._absent(config))
        for file in found:
            if not is_below(file.path):
                raise ValueError(
                    f"the hub's data set {self.repo} lists {file.path!r}, which leads out of the data root."
                )
        above = posixpath.commonpath([posixpath.dirname(file.path) for file in found])
        return {posixpath.join(folder, posixpath.relpath(file.path, above or ".")): file for file in found}

    def _absent(self, config: str) -> str:
        folders = {str(PurePosixPath(file.path).parent) for file in self.files} - {"."}
        known = sorted({*self.patterns, *folders}) or sorted(file.path for file in self.files)
        near = difflib.get_close_matches(config, known, n=3) or known[:3]
        return (
            f"the hub's {self.repo} has no configuration, folder or file {config!r}; it has "
            f"{', '.join(near)}{', ...' if len(known) > len(near) else '.'}"
        )


def readable(num_bytes: int) -> str:
    """1234567 as 1.2 MB, in powers of 1000 as the hub shows them."""
    size = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def is_below(path: str) -> bool:
    """Whether a relative path stays below the folder it starts at."""
    parts = PurePosixPath(path)
    return not parts.is_absolute() and ".." not in parts.parts


def card_patterns(configs: list[dict[str, Any]]) -> dict[str, tuple[str, ...]]:
    """The `configs` of a data set card, as configuration → patterns of the files of split `train`.

    `data_files` is a pattern, a list of patterns, or a list of {split, path}. A configuration without a split `train`
    gives all its splits. Source: the hub's documentation, "Manual Configuration" of data sets.
    """
    patterns = {}
    for config in configs:
        stated = config.get("data_files", [])
        parts = [{"split": "train", "path": stated}] if isinstance(stated, str) else stated
        parts = [{"split": "train", "path": part} if isinstance(part, str) else part for part in parts]
        train = [part for part in parts if part["split"] == "train"] or parts
        paths = [[part["path"]] if isinstance(part["path"], str) else part["path"] for part in train]
        if paths:
            patterns[config["config_name"]] = tuple(path for group in paths for path in group)
    return patterns


def list_repository(hub: HfApi, repo: str) -> Listing:
    """All files of a data set repository, with sizes and checksums, at its newest commit.

    Raises HubUnreachable and HubRefused.
    """
    from huggingface_hub.hf_api import RepoFile

    with _sentences(hub, repo):
        info = hub.dataset_info(repo)
        assert info.sha is not None
        entries = list(hub.list_repo_tree(repo, recursive=True, revision=info.sha, repo_type="dataset"))
    files = tuple(
        HubFile(entry.path, entry.size, entry.lfs.sha256 if entry.lfs else entry.blob_id)
        for entry in entries
        if isinstance(entry, RepoFile)
    )
    configs = (info.card_data.get("configs") if info.card_data else None) or []
    return Listing(repo, info.sha, files, card_patterns(configs))


def download(hub: HfApi, listing: Listing, file: HubFile, folder: Path) -> Path:
    """Bring a file into a folder, below which it lies at its path in the repository; returns where.

    Dropped connections are taken up again a few times. Whether the file is what it should be, and there at all, is for
    the caller to check. Raises HubUnreachable, HubRefused and OSError of the disk.
    """
    try:
        with _sentences(hub, listing.repo):
            hub.hf_hub_download(
                listing.repo, file.path, repo_type="dataset", revision=listing.revision, local_dir=folder
            )
    except OSError as error:
        if error.errno is not None:
            raise
        # huggingface_hub counted another length than it was told: it leaves no file
    return folder / file.path


@contextmanager
def _sentences(hub: HfApi, repo: str) -> Generator[None]:
    """Errors of the hub and of the network, told as what was wrong and what can be done."""
    from huggingface_hub.errors import (
        FileMetadataError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    # requests for huggingface_hub 0, httpx for 1, httpx2 for 2
    http = importlib.import_module(HfHubHTTPError.__bases__[0].__module__.partition(".")[0])
    no_answer = getattr(http, "RequestException", None) or http.TransportError
    page = f"{hub.endpoint}/datasets/{repo}"
    try:
        try:
            yield
        except LocalEntryNotFoundError as error:  # not in the cache either; why it was not brought is the cause
            raise error.__cause__ or error from None
    except HFValidationError:
        raise HubRefused(f"{repo!r} is not the name of a data set of the hub; expected owner/name.") from None
    except OfflineModeIsEnabled:
        raise HubUnreachable(
            f"{page} cannot be asked: HF_HUB_OFFLINE is set. Unset it, or fetch on a machine with a network and "
            "copy the folder."
        ) from None
    except GatedRepoError:
        raise HubRefused(
            f"{page} asks for its terms to be accepted. Accept them on that page and set HF_TOKEN to a token of "
            "the account that did."
        ) from None
    except RepositoryNotFoundError:
        raise HubRefused(
            f"{page} does not exist, or is private: then set HF_TOKEN to a token of an account that may read it."
        ) from None
    except FileMetadataError:
        raise HubUnreachable(
            f"{page} does not state commit and checksum of its files, as the hub does. Check the mirror that "
            "HF_ENDPOINT names and the proxies on the way."
        ) from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise HubRefused(
                f"{page} refuses access ({status}). Check HF_TOKEN: it has to belong to an account that may read "
                "this data set."
            ) from None
        if status == 404:
            raise HubRefused(f"{page} has no such file or commit any more ({status}). Fetch again.") from None
        raise HubUnreachable(f"{page} answers {status}. Try again later; nothing fetched is lost.") from None
    except no_answer as error:
        raise HubUnreachable(
            f"{hub.endpoint} cannot be reached ({error}). Check the network; name a proxy with HTTPS_PROXY or a "
            "mirror with HF_ENDPOINT; or fetch on another machine and copy the folder. Nothing fetched is lost."
        ) from None
    except RuntimeError as error:  # what hf_xet raises, through which huggingface_hub brings large files
        raise HubUnreachable(
            f"{page}: its large files do not come from the hub's Xet store ({error}). Set HF_HUB_DISABLE_XET=1 to take "
            "them by HTTP. Nothing fetched is lost."
        ) from None
