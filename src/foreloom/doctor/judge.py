"""What do the facts mean for a run? Pure functions from what was found to findings, each with one remedy."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from foreloom.doctor.facts import Devices, Disk, Gpu, Hub, Limits, Loading, Network, Package, Software
from foreloom.doctor.finding import Finding, ok
from foreloom.monitoring.health import bytes_in_words
from foreloom.run.machine import Machine, choose_threads

_BYTES_A_PARAMETER = 16
"""Of a checkpoint: the weight twice, as it is trained and for other tools, and AdamW's two moments."""
_LONG_SECONDS = 60
"""A checkpoint that takes longer is worth a word."""
_SLOW_DISK = 50e6
"""Bytes a second."""
_FEWEST_FILES = 1024
_LEAST_SHARED = 2**30
"""Bytes of /dev/shm, through which GPUs of a machine talk where they cannot reach one another directly."""
_BUSY_SHARE = 0.1
"""Of a GPU's memory: more of it in use is somebody else's work."""
_OBJECT_STORES = ("s3fs", "goofys", "gcsfuse", "blobfuse", "mountpoint-s3", "rclone", "geesefs", "ossfs")
_MOST_LOADING = 0.5
"""Of a step: the thread that makes batches shares its core with what feeds the device."""
_INSTALL = "pip install --upgrade '{}'"


@dataclass(frozen=True)
class Need:
    """What a recipe, and those who start it, ask of a machine."""

    ranks_here: int = 1
    device: str = "auto"
    wants_flash_attn: bool = False
    num_parameters: int | None = None
    """None where there is no recipe."""
    num_kept: int = 0
    """Checkpoints that a run keeps."""
    num_prefetch: int = 2
    force_conservative_cpu: bool = False


def judge_software(software: Software, need: Need, *, has_cuda: bool) -> list[Finding]:
    """Python, and every package against what pyproject asks for."""
    if not software.packages:
        wanted = [
            Finding(
                "packages",
                "advice",
                "foreloom runs from a folder and is not installed, so what it wants of others is not known",
                "pip install -e . in the checkout",
            )
        ]
    else:
        needed = [one for one in software.packages if not one.extra]
        extras = {one.name: one for one in software.packages if one.extra and one.found}
        missing = sorted({one.name for one in software.packages if not one.found and one.extra})
        told = ", ".join(f"{one.name} {one.found}" for one in needed if one.found)
        wrong = [found for one in needed if (found := _judge_package(one))]
        unfit = [found for one in extras.values() if (found := _judge_package(one))]
        have = ", ".join(f"{one.name} {one.found}" for one in extras.values()) or "none"
        wanted = [
            *(wrong or [ok("packages", told)]),
            *(unfit or [ok("extras", have + (f"; not here: {', '.join(missing)}" if missing else ""))]),
        ]
    return [ok("python", f"{software.python} on {software.system}"), *wanted, _judge_flash(software, need, has_cuda)]


def _judge_package(package: Package) -> Finding | None:
    asks = f"{package.name}{package.wanted}"
    if package.found is None:
        return Finding(f"package {package.name}", "failure", f"not installed, wanted is {asks}", _INSTALL.format(asks))
    if satisfies(package.found, package.wanted):
        return None
    state = "warning" if package.extra else "failure"
    return Finding(f"package {package.name}", state, f"{package.found}, wanted is {asks}", _INSTALL.format(asks))


def satisfies(version: str, wanted: str) -> bool:
    """Does a version lie within bounds as pyproject writes them (`<6,>=5`)? What follows its numbers does not count."""
    mine = _numbers(version)
    for sign, bound in re.findall(r"(>=|<=|<|>)\s*([\d.]+)", wanted):
        other = _numbers(bound)
        width = max(len(mine), len(other))
        a, b = (numbers + (0,) * (width - len(numbers)) for numbers in (mine, other))
        if not {">=": a >= b, "<=": a <= b, "<": a < b, ">": a > b}[sign]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


def _judge_flash(software: Software, need: Need, has_cuda: bool) -> Finding:
    name, version = "flash-attn", software.flash_attn
    instead = "pip install flash-attn, or model.attn_implementation=sdpa, which is torch's own"
    if version and not software.flash_attn_error:
        return ok(name, version)
    found = f"{version} cannot be imported ({software.flash_attn_error})" if version else "not installed"
    if need.wants_flash_attn:
        return Finding(name, "failure", f"{found}, and the recipe asks for it", instead)
    if version:
        return Finding(name, "warning", found, "pip install --force-reinstall flash-attn for this torch, or uninstall")
    return ok(name, f"{found}; torch's own attention is used" + ("" if has_cuda else ", and it is for GPUs alone"))


def judge_devices(devices: Devices, torch_version: str, need: Need) -> list[Finding]:
    """torch's build against the driver, the subset that is chosen, and each GPU of it."""
    rows = [_judge_build(devices, torch_version, need)]
    if devices.num_in_machine or devices.gpus:
        rows.append(_judge_subset(devices, need))
    rows += [_judge_gpu(gpu) for gpu in devices.gpus]
    kinds = sorted({f"{gpu.name} ({bytes_in_words(gpu.memory_bytes)})" for gpu in devices.gpus})
    if len(kinds) > 1:
        rows.append(
            Finding(
                "GPUs alike",
                "warning",
                f"they differ: {', '.join(kinds)}; all wait for the slowest, and micro-batches fit the smallest",
                "choose those of one kind: foreloom launch local --gpus 0,1 ...",
            )
        )
    return rows


def _judge_build(devices: Devices, torch_version: str, need: Need) -> Finding:
    name = "CUDA"
    build = f"torch {torch_version} is built for {devices.build or 'the CPU alone'}"
    driver = f"driver {devices.driver} runs CUDA up to {devices.driver_cuda}" if devices.driver else "no NVIDIA driver"
    found = f"{build}; {driver}"
    if devices.gpus:
        return ok(name, found)
    asked = need.device == "cuda"
    if devices.driver and not devices.build:
        wheel = f"cu{devices.driver_cuda.replace('.', '')}"
        return Finding(
            name,
            "failure" if asked else "warning",
            f"{found}: the {devices.num_in_machine or ''} GPUs of this machine stay idle",
            f"install torch's build for CUDA ({wheel} or older): pytorch.org/get-started says from where",
        )
    if devices.build.startswith("CUDA") and devices.driver:
        hidden = devices.visible is not None and not devices.error
        why = f"CUDA_VISIBLE_DEVICES={devices.visible} leaves none" if hidden else devices.error or "torch sees no GPU"
        remedy = (
            "unset CUDA_VISIBLE_DEVICES, or name GPUs that are there"
            if hidden
            else f"a newer driver, or a torch built for CUDA {devices.driver_cuda} or older"
        )
        return Finding(name, "failure", f"{found}; {why}", remedy)
    if asked:
        return Finding(name, "failure", f"{found}, and training.device is cuda", "training.device=auto, or a GPU")
    if devices.build:
        return Finding(name, "advice", f"{found}: this is a machine without a GPU", "train on the CPU, or on another")
    return ok(name, found)


def _judge_subset(devices: Devices, need: Need) -> Finding:
    name, seen = "GPUs chosen", len(devices.gpus)
    all_of_them = devices.num_in_machine or seen
    found = f"{seen} of {all_of_them}"
    if devices.visible is not None:
        found += f" (CUDA_VISIBLE_DEVICES={devices.visible})"
        asked = [word for word in devices.visible.split(",") if word.strip()]
        absent = [word for word in asked if word.strip().isdecimal() and int(word) >= all_of_them]
        if absent and seen < len(asked):
            there = f"this machine has 0 to {all_of_them - 1}" if all_of_them else "this machine has none"
            remedy = "name GPUs that are there; torch stops at the first that is not"
            return Finding(name, "failure", f"{found}: there is no GPU {absent[0]}, {there}", remedy)
    if seen and need.ranks_here > seen:
        return Finding(
            name,
            "failure",
            f"{found} for {need.ranks_here} ranks on this machine; each takes one",
            f"start {seen}: foreloom launch local --processes {seen} ..., or training.device=cpu",
        )
    return ok(name, found, seen)


def _judge_gpu(gpu: Gpu) -> Finding:
    name, used = f"GPU {gpu.number}", gpu.memory_bytes - gpu.free_bytes
    free = f"{bytes_in_words(gpu.free_bytes)} of {bytes_in_words(gpu.memory_bytes)} free"
    found = f"{gpu.name}, {free}, capability {gpu.capability[0]}.{gpu.capability[1]}"
    if gpu.error:
        return Finding(
            name,
            "failure",
            f"{gpu.name} does not compute: {gpu.error}",
            "leave it out by CUDA_VISIBLE_DEVICES; where no GPU of this kind computes, install a torch built for it",
        )
    if used > _BUSY_SHARE * gpu.memory_bytes:
        remedy = f"end what uses it (nvidia-smi tells), or leave GPU {gpu.number} out by CUDA_VISIBLE_DEVICES"
        return Finding(name, "warning", f"{found}: something else uses it", remedy)
    if gpu.capability < (8, 0):
        return Finding(name, "advice", f"{found}: too old for bf16", "nothing to set: training.precision auto is fp32")
    return ok(name, found)


def judge_hub(hub: Hub) -> list[Finding]:
    """Can models and data sets be fetched? A machine without a network trains as well as any from what is there."""
    offline = "fetch on another machine, copy the folder, and name it as model.pretrained or in data.sources"
    token = "a token is set" if hub.has_token else "no token is set"
    if hub.is_offline:
        rows = [Finding("hub", "advice", f"not asked: HF_HUB_OFFLINE is set; {token}", offline)]
    elif hub.status is None:
        rows = [Finding("hub", "advice", f"{hub.endpoint} does not answer ({hub.error}); {token}", offline)]
    elif hub.has_token and hub.status in (401, 403):
        remedy = f"make a new token at {hub.endpoint}/settings/tokens and set HF_TOKEN to it, or unset it"
        rows = [Finding("hub", "warning", f"{hub.endpoint} does not know the token that is set", remedy)]
    elif hub.status in (200, 401, 403):
        known = (
            "answers and knows the token" if hub.has_token else "answers; no token is set, and open models need none"
        )
        rows = [ok("hub", f"{hub.endpoint} {known}")]
    else:
        rows = [
            Finding("hub", "advice", f"{hub.endpoint} answers with HTTP {hub.status}", "try again later, or a mirror")
        ]
    return [*rows, _judge_model(hub)] if hub.model else rows


def _judge_model(hub: Hub) -> Finding:
    name, page = "hub model", f"{hub.endpoint}/{hub.model}"
    if hub.is_here:
        return ok(name, f"{hub.model} is in the cache")
    if hub.model_status is None:
        remedy = "fetch it on another machine, copy the folder, and set model.pretrained to it"
        return Finding(name, "failure", f"{hub.model} is not in the cache, and the hub cannot be asked", remedy)
    if hub.model_status < 400:
        return ok(name, f"{hub.model} may be downloaded")
    if hub.model_status == 404:
        return Finding(name, "failure", f"the hub has no {hub.model}", "check model.pretrained")
    remedy = f"accept its terms at {page} and set HF_TOKEN to a token of that account"
    return Finding(name, "failure", f"{hub.model} is gated or private (HTTP {hub.model_status})", remedy)


def judge_loading(loading: Loading) -> Finding:
    """Does one thread make batches faster than the device uses them up?"""
    name, seconds = "data speed", loading.cpu_seconds
    found = f"{loading.num_rows:,} rows in {seconds * 1000:,.0f} ms of one thread"
    value = {"num_rows": loading.num_rows, "cpu_seconds": seconds, "step_seconds": loading.step_seconds}
    if loading.step_seconds is None:
        return ok(name, found, value)
    found += f"; the step takes some {loading.step_seconds * 1000:,.0f} ms"
    if seconds < _MOST_LOADING * loading.step_seconds:
        return ok(name, found, value)
    if loading.synthetic:
        made = f"{found}; series are made as they are read: {', '.join(loading.synthetic)}"
        return Finding(name, "warning", made, "write them to a file once (foreloom data synth), train from that", value)
    remedy = "shorter contexts, or sources on a local disk; the health report tells what is waited for"
    return Finding(name, "warning", f"{found}: the device would wait", remedy, value)


def judge_disk(disk: Disk, need: Need) -> list[Finding]:
    """Room and speed for the checkpoints of a run."""
    name, free = "disk", bytes_in_words(disk.free_bytes)
    if disk.bytes_per_second is None:
        return [Finding(name, "failure", f"{disk.path}: cannot be written ({disk.error})", "choose another by --out")]
    speed = f"{disk.bytes_per_second / 1e6:,.0f} MB/s"
    found, value = f"{disk.path}: {free} free, writes {speed}", {"free_bytes": disk.free_bytes}
    value["bytes_per_second"] = round(disk.bytes_per_second)
    size = (need.num_parameters or 0) * _BYTES_A_PARAMETER
    seconds, kept = size / disk.bytes_per_second, size * (need.num_kept + 1)
    if size:
        found += f"; a checkpoint is {bytes_in_words(size)}, {seconds:.0f} s"
    if disk.free_bytes < max(2 * size, 2**28):
        return [Finding(name, "failure", f"{found}: no room for two", "free some space, or choose another by --out")]
    if disk.free_bytes < kept:
        remedy = "lower training.save_total_limit and checkpoint.keep_best, or free some space"
        short = f"{found}: the {need.num_kept} that are kept are {bytes_in_words(kept)}"
        return [Finding(name, "warning", short, remedy, value)]
    if seconds > _LONG_SECONDS or disk.bytes_per_second < _SLOW_DISK:
        remedy = "raise training.save_steps, or choose a faster disk by --out"
        return [Finding(name, "advice", f"{found}: slow", remedy, value), *_judge_filesystem(disk)]
    return [ok(name, found, value), *_judge_filesystem(disk)]


def _judge_filesystem(disk: Disk) -> list[Finding]:
    name, kind = "file system", disk.filesystem
    if any(word in kind for word in _OBJECT_STORES):
        remedy = "write runs to a disk (--out) and copy them over; reading data from the store is fine"
        found = f"{kind}: an object store, where a folder cannot be renamed whole, so a checkpoint may be seen half"
        return [Finding(name, "warning", found, remedy)]
    if kind == "overlay":
        remedy = "mount a volume and write runs to it: docker run -v /data/runs:/runs, --out /runs/NAME"
        return [Finding(name, "advice", "the container's own layer, which ends with the container", remedy)]
    if kind == "tmpfs":
        return [Finding(name, "warning", "tmpfs: memory, which ends with the machine", "choose a disk by --out")]
    return [ok(name, kind)] if kind else []


def judge_limits(limits: Limits, need: Need, *, num_gpus: int) -> list[Finding]:
    """Open files and shared memory."""
    rows, shared = [], limits.shared_memory_bytes
    if limits.open_files is not None and limits.open_files < _FEWEST_FILES:
        remedy = "ulimit -n 65536 before the run (a container: --ulimit nofile=65536)"
        found = f"{limits.open_files} at most, and a data set of many files maps each"
        rows.append(Finding("open files", "warning", found, remedy, limits.open_files))
    else:
        rows.append(ok("open files", f"{limits.open_files or 'no limit'}", limits.open_files))
    if shared is None:
        return rows
    found = f"{bytes_in_words(shared)} of /dev/shm"
    if shared < _LEAST_SHARED:
        several = num_gpus > 1 and need.ranks_here > 1
        why = "NCCL passes through it what GPUs of one machine send" if several else "several GPUs would want more"
        remedy = "docker run --ipc=host, or --shm-size=8g"
        rows.append(Finding("shared memory", "warning" if several else "advice", f"{found}: {why}", remedy, shared))
    else:
        rows.append(ok("shared memory", found, shared))
    return rows


def judge_machine(machine: Machine, environment: Mapping[str, str], need: Need, *, torch_threads: int) -> list[Finding]:
    """Cores and memory that may really be used, and the threads that follow."""
    ranks, cores = need.ranks_here, machine.cores_allowed
    threads = choose_threads(machine, environment, ranks_here=ranks, force_conservative_cpu=need.force_conservative_cpu)
    limits = ", ".join(f"{number} by {who}" for who, number in machine.limits.items()) or "no limit"
    found = f"{cores} of {machine.num_cores} may be used ({limits}), by {ranks} rank{'s' if ranks > 1 else ''} here"
    if cores < ranks:
        remedy = f"ask for {2 * ranks} cores (foreloom launch slurm --cpus 2), or start fewer ranks"
        rows = [Finding("cores", "warning", found, remedy, cores)]
    else:
        rows = [ok("cores", found, cores)]
    rows += [_judge_memory(machine, ranks), ok("shared", _shared_in_words(machine), machine.shared_because)]
    found = (
        f"{threads.num_threads} of each rank ({threads.reason}); torch has {torch_threads} before a run changes that"
    )
    if threads.num_threads * ranks > cores:
        remedy = "unset OMP_NUM_THREADS"
        rows.append(Finding("threads", "warning", f"{found}: more than cores", remedy, threads.num_threads))
    else:
        rows.append(ok("threads", found, threads.num_threads))
    if need.num_prefetch:
        ahead = f"{need.num_prefetch} global batches are read ahead, by one thread of each rank"
        rows.append(ok("loader", ahead, need.num_prefetch))
    else:
        idle = "no batch is read ahead: the device waits for each"
        rows.append(Finding("loader", "advice", idle, "data.num_prefetch=2", 0))
    return rows


def _judge_memory(machine: Machine, ranks: int) -> Finding:
    value = {"bytes": machine.memory_bytes, "free_bytes": machine.free_bytes}
    if machine.memory_bytes is None:
        return ok("memory", "not told by the system", value)
    if machine.free_bytes is None:
        return ok("memory", bytes_in_words(machine.memory_bytes), value)
    found = f"{bytes_in_words(machine.memory_bytes)}, {bytes_in_words(machine.free_bytes)} free"
    if machine.free_bytes < ranks * 2**30:
        remedy = "end what else runs here, or ask for more (foreloom launch slurm --memory 64G)"
        return Finding("memory", "warning", f"{found}: torch alone takes half a GB of each rank", remedy, value)
    return ok("memory", found, value)


def _shared_in_words(machine: Machine) -> str:
    if not machine.shared_because:
        return "no sign that others use this machine"
    own = "; it has given us a part of our own" if machine.is_allotted else ""
    return f"others may use this machine too: {machine.shared_because}{own}"


def judge_network(network: Network) -> list[Finding]:
    """How other machines would find this one."""
    told = ", ".join(f"{address} ({name})" for name, address in network.addresses.items())
    first = next(iter(network.addresses.values()), "")
    rows = (
        [ok("addresses", told, dict(network.addresses))]
        if told
        else [Finding("addresses", "advice", "the loopback alone", "a network, if other machines are to take part")]
    )
    loops = [one for one in network.resolves_to if one.startswith("127.") or one == "::1"]
    name = f"{network.hostname} is {', '.join(network.resolves_to) or 'not known'}"
    if loops or not network.resolves_to:
        found = f"{name} here: on several machines ranks that are told this name " + (
            "would look for rank 0 at home" if loops else "may not find rank 0"
        )
        remedy = f"name this machine by its address{f', {first}' if first else ''} (--node, hostfile, MASTER_ADDR)"
        rows.append(Finding("host name", "advice", found, remedy))
    else:
        rows.append(ok("host name", name))
    if network.is_port_free:
        rows.append(ok("port", f"{network.port} is free", network.port))
    else:
        remedy = f"foreloom launch nodes --port {network.port + 1} ..., or end what listens there (`ss -ltnp` tells)"
        rows.append(Finding("port", "warning", f"{network.port}, where ranks would meet, is taken", remedy))
    return rows


def judge_recipe(problems: Sequence[str], model: str) -> Finding:
    """Is all there that a recipe names? `problems`: a line each; `model`: what it trains, in words."""
    if problems:
        found = "; ".join(problems[:3]) + (f"; {len(problems) - 3} more" if len(problems) > 3 else "")
        return Finding("recipe", "failure", found, "put it right in the recipe, or by section.setting=value here")
    return ok("recipe", model)
