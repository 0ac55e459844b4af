"""The Hugging Face hub as fetching sees it: what a repository holds, and the bytes of a file from any point on.

Proxies (`HTTPS_PROXY`), `HF_TOKEN`, `HF_ENDPOINT` and `HF_HUB_OFFLINE` are read by huggingface_hub, whose HTTP client
does all the talking. Its own download function is not used: since version 1.31 it begins again after a kill.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from foreloom.data.fetch.checksum import Checksum
from foreloom.data.fetch.listing import HubFile, Listing, card_patterns


class HubUnreachable(ValueError):
    """Nothing can be fetched: no network, no answer, or offline mode."""


class HubRefused(ValueError):
    """The hub answers, but does not give this repository."""


class Hub:
    """Access to the data sets of the hub at `endpoint` (None: `HF_ENDPOINT`, or the public hub)."""

    def __init__(self, endpoint: str | None = None) -> None:
        from huggingface_hub import HfApi

        self._api = HfApi(endpoint=endpoint, library_name="foreloom")

    @property
    def endpoint(self) -> str:
        return self._api.endpoint

    def listing(self, repo: str) -> Listing:
        """All files of a data set repository, with sizes and checksums, at its newest commit.

        Raises HubUnreachable and HubRefused.
        """
        from huggingface_hub.hf_api import RepoFile

        with self._sentences(repo):
            info = self._api.dataset_info(repo)
            assert info.sha is not None
            entries = list(self._api.list_repo_tree(repo, recursive=True, revision=info.sha, repo_type="dataset"))
        files = tuple(
            HubFile(
                entry.path,
                entry.size,
                Checksum("sha256", entry.lfs.sha256) if entry.lfs else Checksum("git", entry.blob_id),
            )
            for entry in entries
            if isinstance(entry, RepoFile)
        )
        configs = (info.card_data.get("configs") if info.card_data else None) or []
        return Listing(repo, info.sha, files, card_patterns(configs))

    def append(self, listing: Listing, file: HubFile, part: Path, advance: Callable[[int], None]) -> None:
        """Download what `part` lacks of a file and append it; `advance` hears of the bytes as they are written.

        Dropped connections are taken up again a few times. Whether the file is what it should be is for the caller to
        check. Raises HubUnreachable, HubRefused and OSError of the disk.
        """
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers

        url = hf_hub_url(
            listing.repo, file.path, repo_type="dataset", revision=listing.revision, endpoint=self.endpoint
        )
        # Compressed on its way a file has no ranges, so it could not be taken up in the middle.
        headers = {**build_hf_headers(library_name="foreloom"), "Accept-Encoding": "identity"}
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _no_bars(), _Part(part, advance) as sink, self._sentences(listing.repo):
                http_get(url, sink, resume_size=sink.tell(), headers=headers, expected_size=file.num_bytes)
        except OSError as error:
            if error.errno is not None:
                raise
            # http_get counted another length than expected: the caller compares length and content

    @contextmanager
    def _sentences(self, repo: str) -> Iterator[None]:
        """Errors of the hub and of the network, told as what was wrong and what can be done."""
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            HFValidationError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
        )

        # requests for huggingface_hub 0, httpx for 1, httpx2 for 2
        http = importlib.import_module(HfHubHTTPError.__bases__[0].__module__.partition(".")[0])
        no_answer = getattr(http, "RequestException", None) or http.TransportError
        page = f"{self.endpoint}/datasets/{repo}"
        try:
            yield
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
                f"{self.endpoint} cannot be reached ({error}). Check the network; name a proxy with HTTPS_PROXY or a "
                "mirror with HF_ENDPOINT; or fetch on another machine and copy the folder. Nothing fetched is lost."
            ) from None


@contextmanager
def _no_bars() -> Iterator[None]:
    """Without the bar of huggingface_hub, unless the user rules over it by HF_HUB_DISABLE_PROGRESS_BARS."""
    from huggingface_hub.constants import HF_HUB_DISABLE_PROGRESS_BARS
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    if HF_HUB_DISABLE_PROGRESS_BARS is not None:
        yield
        return
    disable_progress_bars("huggingface_hub.http_get")
    try:
        yield
    finally:
        enable_progress_bars("huggingface_hub.http_get")


class _Part(io.FileIO):
    """A file that is appended to without a buffer, so that a kill loses nothing that was written."""

    def __init__(self, path: Path, advance: Callable[[int], None]) -> None:
        super().__init__(path, "ab")
        self._advance = advance

    def write(self, chunk: bytes) -> int:
        rest = memoryview(chunk)
        while rest:
            rest = rest[super().write(rest) :]
        self._advance(len(chunk))
        return len(chunk)
