"""What a result may depend on besides its settings: processor, versions, revision."""

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "scipy", "pytensor", "jax", "jaxlib")


def processor() -> str:
    """The processor's name, as the system has it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cores() -> int:
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def threads() -> int:
    """How many threads XLA computes with on a CPU: --threads, which sets NPROC, or all cores."""
    number = os.environ.get("NPROC", "")
    return int(number) if re.fullmatch("[1-9][0-9]{0,5}", number) else cores()


def memory_gib() -> float | None:
    """The machine's memory; None where the system does not tell."""
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
    return round(size / 2**30, 1)


def revision() -> str | None:
    """The git revision of the program, with "-dirty" if it was changed; None without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(
            command,
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def gpus() -> list[dict[str, str]]:
    """Name, memory and driver of each NVIDIA GPU, as nvidia-smi has them; none without it."""
    fields = ("name", "memory", "driver")
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version"]
    try:
        done = subprocess.run(
            [*command, "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    lines = [line.split(", ") for line in done.stdout.splitlines()]
    return [dict(zip(fields, line, strict=True)) for line in lines if len(line) == len(fields)]


def environment(device: str) -> dict[str, Any]:
    """As config.json has it; `device` is what xla.device says of the one in use."""
    versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    machine: dict[str, Any] = {
        "processor": processor(),
        "cores": cores(),
        "threads": threads(),
        "memory_gib": memory_gib(),
    }
    if flags := os.environ.get("XLA_FLAGS"):
        machine["xla_flags"] = flags
    if device.startswith("gpu"):
        machine["gpus"] = gpus()
    return {
        "versions": versions,
        "device": device,
        "machine": machine,
        "git_revision": revision(),
    }


def difference(there: dict[str, Any], here: dict[str, Any]) -> str:
    """What differs between two environments, in words; "" if nothing does that can be told.

    A configuration that lacks an entry, or has nonsense in its place, counts as different; but
    for the machine, which those of old do not name.
    """

    def told(environment: dict[str, Any]) -> dict[str, Any]:
        parts: dict[str, Any] = {}
        for name in ("versions", "machine"):
            part = environment.get(name)
            parts |= part if isinstance(part, dict) else {}
        threads = {"threads": parts.get("cores")}  # as it was before it could be chosen
        return {"device": environment.get("device"), **threads, **parts}

    then, now = told(there), told(here)
    compared = ["device", *here["versions"]]
    if isinstance(there.get("machine"), dict):
        compared += ["processor", "threads", "xla_flags"]
    return ", ".join(
        f"{name} {then.get(name)} then, {now.get(name)} now"
        for name in compared
        if now.get(name) != then.get(name)
    )
