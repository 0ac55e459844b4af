"""This process among its peers: it meets them, speaks with one voice, and leaves with them."""

from __future__ import annotations

import atexit
import gc
import json
import logging
import os
import signal
import socket
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import NoReturn, TypeVar

import torch
import torch.distributed as dist

from foreloom.distributed.launcher import LAUNCHERS, DeviceSetting, Launch, choose_device, read_launch
from foreloom.distributed.network import interface_towards, loopback_of, resolve
from foreloom.distributed.waiting import Absent, Watch, said_if_long

T = TypeVar("T")

TIMEOUT_MINUTES = 10.0
_LOOK_SECONDS = 0.05
_FAREWELL_SECONDS = 1.0
"""Rank 0 may keep the store, which the others ask who tells of an error."""
_INQUIRY_SECONDS = 10.0
"""The most that rank 0 waits for another to find out who has gone."""
RAISED_ON_EVERY_RANK = "raised_on_every_rank"
"""Attribute of an error that all ranks have, so that none is to be named."""


@dataclass(frozen=True)
class Process:
    """Who this process is. `local_rank` counts within the machine and picks the CUDA device."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device
    group: dist.ProcessGroup | None = None
    """Where it speaks to the other ranks; None: where training does. See `apart`."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def prepare(work: Callable[[], T], timeout_minutes: Callable[[T], float] = lambda _: TIMEOUT_MINUTES) -> T:
    """Do on every rank what must be done before the ranks can form a group, and give its result. Collective.

    Where it fails with a ValueError or OSError on one rank, it fails on all: none waits for one that has given up.
    `timeout_minutes`: by the result, for how long ranks that have not met yet wait for one another.
    """
    launch = read_launch(os.environ)
    if launch.world_size == 1:
        return work()
    _leave_words_to_rank_zero(launch.rank)
    failure: ValueError | OSError | None = None
    result, minutes = None, TIMEOUT_MINUTES
    try:
        result = work()
        minutes = timeout_minutes(result)
    except (ValueError, OSError) as error:
        failure = error
    meeting = _Meeting.of(launch, minutes)
    meeting.num_prepared += 1
    key = f"prepared/{meeting.num_prepared}"
    meeting.store.set(f"{key}/{launch.rank}", f"failed: {failure}" if failure else "done")
    of_ranks = [meeting.store.get(f"{key}/{rank}").decode() for rank in range(launch.world_size)]
    if failure:
        if len(set(of_ranks)) == 1:
            setattr(failure, RAISED_ON_EVERY_RANK, True)
        raise failure
    for rank, said in enumerate(of_ranks):
        if said != "done":
            failure = ValueError(f"rank {rank} {said}")
            setattr(failure, RAISED_ON_EVERY_RANK, True)
            raise failure
    return result  # type: ignore[return-value]


def start(
    device: DeviceSetting = "auto", *, group_of_one: bool = False, timeout_minutes: float = TIMEOUT_MINUTES
) -> Process:
    """Read the launcher's variables, take a device and, with several ranks, meet the others (collective).

    CUDA ranks get both nccl, for tensors, and gloo, so that decisions travel on the host and never wait for the device.
    With `group_of_one` a launcher's only rank forms a group too, so that one device can try what many will do. A rank
    that waits for another longer than `timeout_minutes` gives up.
    """
    launch = read_launch(os.environ)
    has_mps, num_cuda = torch.backends.mps.is_available(), torch.cuda.device_count()
    chosen = prepare(lambda: choose_device(device, launch, has_mps=has_mps, num_cuda=num_cuda))
    process = Process(launch.rank, launch.world_size, launch.local_rank, torch.device(chosen))
    if process.device.type == "cuda":
        torch.cuda.set_device(process.device)
    if launch.world_size > 1 or (group_of_one and launch.launcher != "single process"):
        _be_found_by_gloo(launch.address)
        meeting = _Meeting.of(launch, timeout_minutes)
        meeting.timeout = timedelta(minutes=timeout_minutes)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if process.device.type == "cuda" else "gloo",
            store=meeting.store,
            rank=launch.rank,
            world_size=launch.world_size,
            timeout=meeting.timeout,
        )
        if launch.world_size > 1:
            meeting.watch = Watch(meeting.store, launch.rank, launch.world_size)
    return process


def _be_found_by_gloo(address: str) -> None:
    """gloo tells its peers the address that this machine's name stands for, which on some is the loopback: name the
    interface that leads to rank 0 instead."""
    if "GLOO_SOCKET_IFNAME" in os.environ or not (interface := interface_towards(address)):
        return
    hostname = socket.gethostname()
    if loopback_of(hostname) or not resolve(hostname):
        os.environ["GLOO_SOCKET_IFNAME"] = interface


def apart(process: Process) -> Process:
    """The same ranks in a group of their own on the hosts, the same one at each call, for a thread beside training:
    what it has to say does not get between what the others say. Collective."""
    if process.world_size == 1:
        return process
    assert _Meeting.held
    return replace(process, group=_Meeting.held.group_apart())


def has_group() -> bool:
    """Did this process meet others, or itself as a group of one?"""
    return dist.is_initialized()


@contextmanager
def among_ranks() -> Generator[None]:
    """While entered, the ranks of a launch may meet (`prepare`, `start`); they part at its end (`stop`)."""
    try:
        yield
    except BaseException as error:
        stop(error)
        raise
    stop()


def stop(error: BaseException | None = None) -> None:
    """Leave the group of ranks, if there is one: all together where no `error` ends this one's work.

    After an error the group is left alone: taking it down waits for ranks that are gone, and for threads that wait for
    this one. The process is then to end by `leave`, which it does in any case when Python comes to its end.
    """
    held = _Meeting.held
    if held is None:
        return
    if error is not None:
        held.fail(error)
    if held.watch:
        held.watch.end()
    if error is not None:
        return
    if dist.is_initialized():
        dist.barrier()  # a rank that leaves before the others may take their threads of communication down with it
        gc.collect()  # wrappers go before the group: their destructors wait for its threads
        dist.destroy_process_group()
    _Meeting.held = None


def voice() -> str | None:
    """What an error of this process is to be told with in front: the rank it is of. None where another rank tells of
    what has ended the run."""
    meeting = _Meeting.held
    if meeting is None or meeting.error is None:
        return ""
    if not meeting.is_speaker:
        return None
    return "" if getattr(meeting.error, RAISED_ON_EVERY_RANK, False) else f"rank {meeting.rank}: "


def leave(code: int) -> NoReturn:
    """End this process: at once where an error has broken a group of ranks (`stop`), as `sys.exit` otherwise."""
    if _Meeting.held is None or _Meeting.held.error is None:
        sys.exit(code)
    if _Meeting.held.rank == 0:
        _Meeting.held.wait_until_told()
        time.sleep(_FAREWELL_SECONDS)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def is_of_peers(error: RuntimeError) -> bool:
    """Is this what torch says where another rank has gone, or does not answer in time?"""
    return isinstance(error, dist.DistError) or (_Meeting.held is not None and "gloo" in str(error).lower())


def absent_ranks() -> Absent:
    """Those to blame for the error of peers that this process ends by, as far as is known."""
    return _Meeting.held.absent if _Meeting.held else Absent()


def name_of_start(store: dist.Store, rank: int, world_size: int, timeout_seconds: float) -> str:
    """A name that the ranks of one start have in common, and no other start has. Collective.

    torchrun keeps one store for all of its starts, so what lies there may be of ranks that are gone: addresses, an
    error already told. Its count of restarts is no name either: each machine has its own. Raises DistStoreError.
    """
    mine, deadline = uuid.uuid4().hex, time.monotonic() + timeout_seconds
    store.set(f"comes/{rank}", mine)
    while time.monotonic() < deadline:
        if rank == 0:
            here = [store.get(f"comes/{one}").decode() for one in range(world_size)]
            store.set("start", json.dumps(here))
            if store.check([f"has/{mine}/{one}" for one in range(1, world_size)]):
                return mine
        elif (here := json.loads(store.get("start")))[rank : rank + 1] == [mine]:  # so rank 0 is of this start, too
            store.set(f"has/{here[0]}/{rank}", "")
            return here[0]
        time.sleep(_LOOK_SECONDS)
    raise dist.DistStoreError(f"{'a rank' if rank == 0 else 'rank 0'} has not come within {timeout_seconds:.0f} s")


def _leave_words_to_rank_zero(rank: int) -> None:
    """What is to be said of recipes and data is the same on all ranks."""
    if rank:
        warnings.simplefilter("ignore", UserWarning)
        logging.getLogger("foreloom").setLevel(logging.ERROR)


def _of_first_meeting(launch: Launch) -> str:
    """What the first rank of a machine says of a meeting to which not all have come."""
    _, rank_name, size_name, _ = next(one for one in LAUNCHERS if one[0] == launch.launcher)
    return (
        f"rank {launch.rank} {{waited}} at {launch.address}:{launch.port} for all {launch.world_size} ranks to come; "
        f"parallel.timeout_minutes says when it gives up. Were they all started, and do they reach that address? Where "
        f"this process was started by hand and is to run alone, unset {rank_name} and {size_name}."
    )


class _Meeting:
    """Where the ranks of a launch find each other; one at a time in a process. Only rank 0 warns then."""

    held: _Meeting | None = None

    def __init__(self, launch: Launch, timeout_minutes: float) -> None:
        url = "env://" if launch.launcher == "torchrun" else f"tcp://{launch.address}:{launch.port}"
        timeout = timedelta(minutes=timeout_minutes)
        with said_if_long(_of_first_meeting(launch)) if launch.local_rank == 0 else nullcontext():
            store, self.rank, _ = next(dist.rendezvous(url, launch.rank, launch.world_size, timeout=timeout))
            name = name_of_start(store, self.rank, launch.world_size, timeout.total_seconds())
        self.store = dist.PrefixStore(f"foreloom/{name}", store)
        self.num_prepared = 0
        self.timeout = timeout
        self._group_apart: dist.ProcessGroup | None = None
        self.watch: Watch | None = None
        self.error: BaseException | None = None
        """That has broken the group."""
        self.is_speaker = True
        self.absent = Absent()
        _leave_words_to_rank_zero(self.rank)

    @staticmethod
    def of(launch: Launch, timeout_minutes: float) -> _Meeting:
        if _Meeting.held is None:
            _Meeting.held = _Meeting(launch, timeout_minutes)
        return _Meeting.held

    def group_apart(self) -> dist.ProcessGroup:
        """See `apart`."""
        if self._group_apart is None:
            group = dist.new_group(backend="gloo", timeout=self.timeout)
            assert isinstance(group, dist.ProcessGroup)
            self._group_apart = group
        return self._group_apart

    def fail(self, error: BaseException) -> None:
        """This rank ends by an error. The first to do so speaks, once it knows whom to blame: one error is followed by
        others, of ranks that have lost a peer."""
        atexit.register(leave, 1)
        with suppress(ValueError):  # outside the main thread
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a launcher is not to cut off what is to be said
        self.error = error  # and with it the frames that hold the model, so that nothing of it is destroyed
        try:
            self.is_speaker = self.store.compare_set("voice", "", str(self.rank)).decode() == str(self.rank)
            if self.is_speaker and self.watch and isinstance(error, RuntimeError) and is_of_peers(error):
                self.absent = self.watch.who_is_absent()
            if self.is_speaker:
                self.store.set("told", "")
        except RuntimeError:  # the rank that kept the store is gone
            self.is_speaker, self.absent = True, Absent((0,))

    def wait_until_told(self) -> None:
        """The speaker has nothing more to ask."""
        with suppress(RuntimeError):
            self.store.wait(["told"], timedelta(seconds=_INQUIRY_SECONDS))
