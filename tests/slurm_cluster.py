"""Slurm on this computer: a controller and two nodes on 127.0.0.1, for tests marked slurm."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
NODES = ("a", "b")
START_SECONDS = 30
CONFIGURATION = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={run}/munge.sock,cred_expire={expire}
StateSaveLocation={run}/state
SlurmdSpoolDir={run}/spool%n
SlurmctldPidFile={run}/slurmctld.pid
SlurmdPidFile={run}/slurmd.%n.pid
SlurmctldLogFile={run}/slurmctld.log
SlurmdLogFile={run}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=5
KillWait=5
SchedulerParameters=batch_sched_delay=0,sched_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName=a NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=6000
NodeName=b NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=6000
PartitionName=main Nodes=a,b Default=YES MaxTime=INFINITE State=UP
"""


def missing_programs() -> list[str]:
    """Of Debian's packages slurmctld, slurmd, slurm-client and munge."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


@dataclass
class Cluster:
    """A controller and its nodes."""

    run: Path
    """Folder of its files."""
    daemons: dict[str, subprocess.Popen[bytes]]

    def ask(self, *command: str) -> str:
        """What a command of Slurm's prints."""
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def states(self) -> dict[str, str]:
        """Job -> state and node."""
        told = self.ask("squeue", "--noheader", "--array", "--states=all", "--format=%i %T %N")
        return dict(line.split(maxsplit=1) for line in told.splitlines())

    def start_node(self, name: str) -> None:
        """Or start it again."""
        self.daemons[name] = _start("slurmd", "-D", "-N", name)

    def kill_node(self, name: str) -> None:
        """All of its processes at once, as where its power goes."""
        daemon = psutil.Process(self.daemons[name].pid)
        for process in [daemon, *self.steps(name)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.daemons[name].wait()

    def steps(self, *nodes: str) -> list[psutil.Process]:
        """The processes of jobs on these nodes: they are no children of its daemon."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"]
            if words and words[0].startswith("slurmstepd"):
                with suppress(psutil.Error):
                    inside = process.children(recursive=True)
                    if inside and self._has(inside[0], nodes):
                        found += [process, *inside]
        return found

    def _has(self, process: psutil.Process, nodes: Sequence[str]) -> bool:
        told = process.environ()
        mine = told.get("SLURM_CONF") == str(self.run / "slurm.conf")
        return mine and told.get("SLURMD_NODENAME") in nodes


@contextmanager
def cluster(run: Path) -> Iterator[Cluster]:
    """Slurm with its files in `run`, told to this process and those that it starts."""
    former = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(run / "slurm.conf")
    made = Cluster(run, {})
    (run / "state").mkdir(parents=True)
    key, host = run / "munge.key", socket.gethostname()
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    text = CONFIGURATION.format(host=host, run=run, ports=_free_ports(3), expire=5)
    (run / "slurm.conf").write_text(text)
    try:
        places = {
            "key-file": key, "socket": run / "munge.sock", "pid-file": run / "munged.pid",
            "log-file": run / "munged.log", "seed-file": run / "munge.seed",
        }  # fmt: skip
        options = [f"--{option}={path}" for option, path in places.items()]
        made.daemons["munged"] = _start("munged", "--force", "--foreground", *options)
        _await(lambda: (run / "munge.sock").exists())
        made.daemons["slurmctld"] = _start("slurmctld", "-D")
        for name in NODES:
            made.start_node(name)
        _await(lambda: made.ask("sinfo", "--noheader", "--format=%t %D").strip() == "idle 2")
        yield made
    finally:
        subprocess.run(["scancel", "--quiet", "--user=root"], check=False)
        # Nothing of it is looked at any more.
        for process in made.steps(*NODES):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for daemon in made.daemons.values():
            daemon.kill()
            daemon.wait()
        if former is None:
            del os.environ["SLURM_CONF"]
        else:
            os.environ["SLURM_CONF"] = former


def _start(*command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def _free_ports(count: int) -> Sequence[int]:
    """Free a moment ago, each another."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _await(holds: object) -> None:
    assert callable(holds)
    deadline = time.monotonic() + START_SECONDS
    while True:
        with suppress(subprocess.CalledProcessError):
            if holds():
                return
        assert time.monotonic() < deadline, "Slurm did not start"
        time.sleep(0.1)
