"""What is there? Looks at software, GPUs, disk, limits, network and hub, and judges nothing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import torch

from foreloom.data.batch import Dataset
from foreloom.data.loader import BatchLoader
from foreloom.distributed.network import interfaces, is_free, resolve

HUB_SECONDS = 5.0
"""The hub has so long to answer."""
_MOST_WRITTEN, _MOST_SECONDS = 64 * 2**20, 2.0
"""Of the file that the speed of a disk is measured by."""


@dataclass(frozen=True)
class Package:
    """What foreloom was installed with."""

    name: str
    wanted: str
    """As pyproject says: `>=2.11`, `<6,>=5`."""
    found: str | None
    """The version that is installed."""
    extra: str = ""
    """That asks for it; empty for what foreloom always needs."""


@dataclass(frozen=True)
class Software:
    """What runs a run."""

    python: str
    system: str
    packages: tuple[Package, ...]
    """Empty where foreloom itself is not installed, but on the path."""
    flash_attn: str | None
    """Its version; None where it is not installed."""
    flash_attn_error: str = ""
    """Why it cannot be imported."""


@dataclass(frozen=True)
class Gpu:
    """One that torch sees."""

    number: int
    """As torch counts."""
    name: str
    memory_bytes: int
    free_bytes: int
    capability: tuple[int, int]
    error: str = ""
    """Of a small product on it."""


@dataclass(frozen=True)
class Devices:
    """The driver's GPUs, and those of them that torch sees."""

    build: str
    """What torch is built for: `CUDA 12.8`, `ROCm 6.2`; empty: for the CPU alone."""
    driver: str
    """Its version; empty where there is none."""
    driver_cuda: str
    """The newest CUDA that the driver runs."""
    num_in_machine: int
    visible: str | None
    """CUDA_VISIBLE_DEVICES."""
    gpus: tuple[Gpu, ...]
    error: str = ""
    """Why torch sees none."""


@dataclass(frozen=True)
class Hub:
    """The Hugging Face hub. The token itself is nowhere in here."""

    endpoint: str
    is_offline: bool
    """Told not to be asked, by HF_HUB_OFFLINE."""
    has_token: bool
    status: int | None = None
    """HTTP's, of the question whose token this is; None where there was no answer."""
    error: str = ""
    model: str = ""
    """The hub id that the recipe begins with."""
    model_status: int | None = None
    """HTTP's, of the question for its config.json."""
    is_here: bool = False
    """The model is in the cache already."""


@dataclass(frozen=True)
class Disk:
    """Where the run folder will lie."""

    path: Path
    free_bytes: int
    filesystem: str
    """As /proc/self/mounts has it; empty where that is not there."""
    bytes_per_second: float | None
    error: str = ""
    """Why nothing could be written."""


@dataclass(frozen=True)
class Network:
    """This machine as others find it."""

    hostname: str
    resolves_to: tuple[str, ...]
    addresses: Mapping[str, str]
    """By interface, the loopback's left out."""
    port: int
    is_port_free: bool


@dataclass(frozen=True)
class Limits:
    """What the system gives to each process, and to all of them together."""

    open_files: int | None
    """None where there is no limit, or no telling."""
    shared_memory_bytes: int | None
    """Of /dev/shm; None where there is none."""


@dataclass(frozen=True)
class Loading:
    """What a rank's share of a global batch costs the thread that reads ahead."""

    num_rows: int
    cpu_seconds: float
    """Of the thread, whatever else the machine is doing."""
    step_seconds: float | None
    """That the device takes for it, as far as its peak is known."""
    synthetic: tuple[str, ...] = ()
    """Sources whose series are made as they are read."""


def find_software() -> Software:
    """Versions of Python and of what foreloom needs or could use."""
    flash_attn, error = _version("flash-attn"), ""
    if flash_attn:
        try:
            import flash_attn as _  # noqa: F401
        except ImportError as failure:
            error = str(failure).partition("\n")[0]
    system = f"{platform.system()} {platform.release()}"
    return Software(platform.python_version(), system, _packages(), flash_attn, error)


def _packages() -> tuple[Package, ...]:
    try:
        wanted = requires("foreloom") or []
    except PackageNotFoundError:
        return ()
    found = []
    for line in wanted:
        match = re.fullmatch(r"([\w.-]+)(?:\[.*?\])?\s*([^;]*?)(?:;.*extra == ['\"](\w+)['\"])?", line)
        if match and match[3] != "test":
            found.append(Package(match[1], match[2], _version(match[1]), match[3] or ""))
    return tuple(found)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def find_devices() -> Devices:
    """Ask the driver, then each GPU that torch sees for a small product."""
    cuda, rocm = torch.version.cuda, torch.version.hip
    told = _run("nvidia-smi")
    listed = re.findall(r"^GPU \d+:", _run("nvidia-smi", "-L"), re.MULTILINE)
    driver, newest = (re.search(rf"{name} Version:\s*([\d.]+)", told) for name in ("Driver", "CUDA"))
    error = ""
    try:
        count = torch.cuda.device_count()
        if count:
            torch.cuda.init()
    except RuntimeError as failure:
        count, error = 0, str(failure).partition("\n")[0]
    return Devices(
        build=f"CUDA {cuda}" if cuda else f"ROCm {rocm}" if rocm else "",
        driver=driver[1] if driver else "",
        driver_cuda=newest[1] if newest else "",
        num_in_machine=len(listed),
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        gpus=tuple(_gpu(number) for number in range(count)),
        error=error,
    )


def _gpu(number: int) -> Gpu:
    properties, error = torch.cuda.get_device_properties(number), ""
    free = 0
    try:
        free, _ = torch.cuda.mem_get_info(number)
        a = torch.ones(64, 64, device=f"cuda:{number}")
        if (total := float((a @ a).sum())) != 64**3:
            error = f"a product of ones came to {total:g}, not {64**3}"
    except RuntimeError as failure:
        error = str(failure).partition("\n")[0]
    return Gpu(number, properties.name, properties.total_memory, free, (properties.major, properties.minor), error)


def find_hub(model: str = "", seconds: float = HUB_SECONDS) -> Hub:
    """Ask the hub who we are and, where a recipe begins with a `model` of it, whether we may have that."""
    from huggingface_hub import constants, get_token, try_to_load_from_cache

    token, endpoint = get_token(), constants.ENDPOINT
    known: dict[str, Any] = {"endpoint": endpoint, "has_token": bool(token), "model": model}
    known["is_here"] = bool(model) and isinstance(try_to_load_from_cache(model, "config.json"), str)
    if constants.HF_HUB_OFFLINE:
        return Hub(is_offline=True, **known)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    status, error = _status(f"{endpoint}/api/whoami-v2", headers, seconds)
    model_status = None
    if model and status is not None:
        model_status, _ = _status(f"{endpoint}/{model}/resolve/main/config.json", headers, seconds)
    return Hub(is_offline=False, status=status, error=error, model_status=model_status, **known)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Who is sent on is let in; and a token goes to nobody but the hub."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _status(url: str, headers: Mapping[str, str], seconds: float) -> tuple[int | None, str]:
    """HTTP's status of a page, or why there is none. Names are looked up without a limit, so a thread does it."""
    opener = urllib.request.build_opener(_NoRedirect)

    def ask() -> tuple[int | None, str]:
        try:
            with opener.open(urllib.request.Request(url, headers=dict(headers)), timeout=seconds) as page:
                return page.status, ""
        except urllib.error.HTTPError as error:
            return error.code, ""
        except (OSError, ValueError) as error:
            return None, str(getattr(error, "reason", error))

    return _within(seconds + 1, ask, (None, f"no answer within {seconds:g} seconds"))


def _within(seconds: float, work: Callable[[], Any], otherwise: Any) -> Any:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(work()), daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else otherwise


def find_disk(run_dir: Path) -> Disk:
    """Space and speed where a run folder will be, measured by a file that is written, forced to the disk and gone."""
    folder = next(one for one in (run_dir.absolute(), *run_dir.absolute().parents) if one.is_dir())
    speed, error = None, ""
    try:
        speed = _write_speed(folder)
    except OSError as failure:
        error = failure.strerror or str(failure)
    return Disk(folder, shutil.disk_usage(folder).free, _filesystem(folder), speed, error)


def _write_speed(folder: Path) -> float:
    block = os.urandom(2**22)  # a file system that compresses gains nothing
    with tempfile.TemporaryFile(dir=folder) as file:
        began, written = time.perf_counter(), 0
        while written < _MOST_WRITTEN and time.perf_counter() - began < _MOST_SECONDS:
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
            written += len(block)
        return written / (time.perf_counter() - began)


def _filesystem(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    if not mounts.is_file():
        return ""
    kinds = {}
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        _, place, kind, *_ = line.split(" ")
        kinds[place.replace("\\040", " ")] = kind
    return next((kinds[str(one)] for one in (folder.resolve(), *folder.resolve().parents) if str(one) in kinds), "")


def find_loading(dataset: Dataset, batch_size: int, world_size: int, step_seconds: float | None) -> Loading:
    """Make up to three global batches, as rank 0 of a world would."""
    loader = BatchLoader(dataset, batch_size=batch_size, world_size=world_size, num_prefetch=0)
    batch = loader.batch(0)  # opens what is opened once
    began, cpu, num_made = time.perf_counter(), time.thread_time(), 0
    while num_made < 3 and time.perf_counter() - began < _MOST_SECONDS:
        batch = loader.batch(batch.next_sample)
        num_made += 1
    synthetic = tuple(one.name for one in dataset.statistics() if not one.num_bytes)
    rows = sum(one.num_rows for one in batch.micro_batches)
    return Loading(rows, (time.thread_time() - cpu) / num_made, step_seconds, synthetic)


def find_network(port: int) -> Network:
    """Names and addresses of this machine, and whether rank 0 could listen at `port`."""
    hostname = socket.gethostname()
    return Network(hostname, tuple(resolve(hostname)), interfaces(), port, is_free(port))


def find_limits() -> Limits:
    """Limits of this process."""
    try:
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        open_files = None if soft == resource.RLIM_INFINITY else soft
    except ImportError:  # not on Windows
        open_files = None
    shared = Path("/dev/shm")
    return Limits(open_files, shutil.disk_usage(shared).total if shared.is_dir() else None)


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
