"""`msekit train --launch NAME`: this same command in several processes, by accelerate's launcher as a library call.

The processes run what `accelerate launch --config_file launch/NAME.yaml -m msekit train …` would run; here their end is
watched, so that one line says which of them failed and why.
"""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from msekit.distributed.processes import LAUNCHED, STOPPING, check_deepspeed
from msekit.errors import LostProcessError, MsekitError, StoppedError, nearest
from msekit.paths import shipped
from msekit.process import quiet_launcher, use_cpu_alone, use_interface
from msekit.yaml_file import read_mapping


@dataclass(frozen=True)
class Where:
    """Which part of a launch this machine is."""

    processes: int | None = None
    """Over all machines; None for one per GPU, or what the configuration says where there is none."""
    machines: int = 1
    rank: int = 0
    address: str | None = None
    """`HOST:PORT` of the machine of rank 0."""

    def host_and_port(self) -> tuple[str, int]:
        """The address in its parts.

        Raises:
            MsekitError: There is none, or it is not `HOST:PORT`.
        """
        host, _, port = (self.address or "").rpartition(":")
        if not host or not port.isdigit():
            raise MsekitError("several machines need an address", fix="Give --main-address HOST:PORT of machine 0.")
        return host, int(port)


def find_launch_file(name: str) -> Path:
    """A launch configuration by path, or by the name of one that ships in `launch/`.

    Raises:
        MsekitError: Neither exists; the shipped names are offered.
    """
    if Path(name).is_file():
        return Path(name)
    shipped_files = {path.stem: path for path in shipped("launch").glob("*.yaml")}
    if name in shipped_files:
        return shipped_files[name]
    raise MsekitError(f"no launch configuration '{name}'", fix=nearest(name, shipped_files))


def launch(name: str, where: Where, arguments: list[str]) -> None:
    """Run `msekit` with these arguments in several processes and wait for them.

    Args:
        name: Launch configuration.
        where: How many processes, and this machine's place among several.
        arguments: The command line, as each process is to see it.

    Raises:
        MsekitError: The configuration cannot run here, or a process failed.
        StoppedError: A signal ended the processes, which saved their state.
    """
    file = find_launch_file(name)
    if obstacle := obstacle_to(file):
        raise MsekitError(f"launch configuration {file.stem} cannot run here: {obstacle}", where=file)
    options = launcher_options(file, where, arguments)
    quiet_launcher()
    os.environ[LAUNCHED] = "1"
    if runs_on_cpu(read_mapping(file, "launch configuration")):
        use_cpu_alone()
    if where.machines > 1:
        use_interface(interface_to(*where.host_and_port()))
    from accelerate.commands.launch import launch_command
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logs = tempfile.TemporaryDirectory(prefix="msekit-launch-")
    options.log_dir = logs.name  # torch makes a folder there, and would leave it
    try:
        launch_command(options)
    except SignalException as stop:
        if stop.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise StoppedError(
            f"stopped by {stop.sigval.name}; the last saved state is kept",
            fix="Continue with the same command and --resume.",
        ) from None
    except ChildFailedError as error:
        raise cause_of(error.failures) from None
    finally:
        logs.cleanup()


def launcher_options(file: Path, where: Where, arguments: list[str]) -> Any:
    """The options of `accelerate launch` for a configuration.

    Raises:
        MsekitError: Numbers of processes, machines and GPUs that do not fit, or no address.
    """
    from accelerate.commands.launch import launch_command_parser

    settings = read_mapping(file, "launch configuration")
    on_cpu = runs_on_cpu(settings)
    gpus = 0 if on_cpu else torch.cuda.device_count()
    processes = where.processes or (gpus * where.machines if gpus else settings["num_processes"])
    here, rest = divmod(processes, where.machines)
    if rest or not here:
        raise MsekitError(f"{processes} processes cannot be spread evenly over {where.machines} machines")
    if gpus and here > gpus:
        raise MsekitError(f"{here} processes on this machine, which has {gpus} GPUs", fix="Lower --num-processes.")
    if not 0 <= where.rank < where.machines:
        raise MsekitError(f"--machine-rank is {where.rank}, with {where.machines} machines", fix="Count from 0.")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    words = ["--config_file", str(file), "--num_processes", str(processes), "--num_machines", str(where.machines)]
    words += ["--machine_rank", str(where.rank)]
    words += ["--num_cpu_threads_per_process", os.environ.get("OMP_NUM_THREADS") or str(max(cores // here, 1))]
    if where.machines > 1:
        host, port = where.host_and_port()
        words += ["--main_process_ip", host, "--main_process_port", str(port), "--same_network"]
        words += ["--deepspeed_multinode_launcher", "standard"]
    else:
        words += ["--main_process_port", "0"]  # any free one
    options = launch_command_parser().parse_args([*words, "--module", "msekit", *arguments])
    names = ("SIGINT", "SIGHUP", "SIGQUIT", *(number.name for number in STOPPING))
    options.signals_to_handle = ",".join(name for name in names if hasattr(signal, name))
    return options


def interface_to(host: str, port: int) -> str:
    """The network interface that leads to an address; gloo would otherwise go by this machine's name.

    Raises:
        MsekitError: The host is unknown or no way leads there.
    """
    import psutil

    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)  # sends nothing: only asks which way a packet would take
            own = probe.getsockname()[0]
    except OSError as error:
        raise MsekitError(f"--main-address {host}:{port} cannot be reached: {error}") from error
    leading = (name for name, its in psutil.net_if_addrs().items() if own in {entry.address for entry in its})
    return next(leading, "lo")


def runs_on_cpu(settings: dict[str, Any]) -> bool:
    """Whether a configuration's processes compute on the CPU here: it says so, or there is no GPU."""
    return bool(settings.get("use_cpu")) or not torch.cuda.is_available()


def obstacle_to(file: Path) -> str | None:
    """Why a configuration cannot run on this machine; None where it can."""
    settings = read_mapping(file, "launch configuration")
    if settings.get("distributed_type") != "DEEPSPEED":
        return None
    try:
        check_deepspeed()
    except MsekitError as error:
        return str(error).rstrip(".")
    return None


class ProcessFailedError(MsekitError):
    """One of the launched processes died."""

    exit_code = 1


def cause_of(failures: dict[int, Any]) -> MsekitError:
    """What failed first, from how each process ended: the others lost contact or were told to stop because of it.

    Args:
        failures: torch's `ProcessFailure` by number of the process.
    """

    def follows(code: int) -> int:
        """How much an exit code looks like a consequence of another process's end."""
        if code < 0:  # NCCL aborts a process that has waited for another one in vain
            return {-signal.SIGTERM: 6, -signal.SIGABRT: 5}.get(code, 2)
        codes = {MsekitError.exit_code: 0, 1: 1, StoppedError.exit_code: 4, LostProcessError.exit_code: 5}
        return codes.get(code, 3)

    rank = min(failures, key=lambda number: (follows(failures[number].exitcode), number))
    code, pid = failures[rank].exitcode, failures[rank].pid
    said = failures[rank].message if os.path.isfile(failures[rank].error_file) else None
    if code == MsekitError.exit_code and said:
        return MsekitError(said)
    if code == StoppedError.exit_code:
        return StoppedError(said or "stopped by a signal")
    if said:
        return ProcessFailedError(said)
    if code == -signal.SIGABRT:
        fix = "On GPUs NCCL aborts a process that lost another one: what they said is above. Continue with --resume."
        return ProcessFailedError(f"process {rank} (pid {pid}) aborted", fix=fix)
    if code < 0:
        fix = "If memory ran out, lower optim.batch_size or raise optim.accumulation. Continue with --resume."
        return ProcessFailedError(f"process {rank} (pid {pid}) was killed by {signal.Signals(-code).name}", fix=fix)
    return ProcessFailedError(f"process {rank} (pid {pid}) failed with exit code {code}; what it said is above")
