"""Descriptions of GPUs: what XLA's compiler asks of a device, and its peak figures.

Sources: NVIDIA's white papers on the A100 and H100 architectures, and the CUDA programming
guide's table of compute capabilities.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from errors import FileError

# Floating point operations that a multiprocessor's tensor cores do in a clock cycle on TF32
# numbers, by the major number of the compute capability.
TF32_OPERATIONS = {8: 1024, 9: 2048}

FORM = """gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {shared_memory_per_core}
  threads_per_core_limit: 2048
  core_count: {core_count}
  fpus_per_core: {fpus_per_core}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {memory_bandwidth}
  l2_cache_size: {l2_cache_size}
  clock_rate_ghz: {clock_rate_ghz}
  device_memory_size: {device_memory_size}
  shared_memory_per_block_optin: {shared_memory_per_block_optin}
  cuda_compute_capability {{ major: {major} feature_extension: {extension} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  name: "{name}"
  driver_version: "12.9.0"
  runtime_version: "12.9.0"
  compile_time_toolkit_version: "12.9.0"
  dnn_version: "9.10.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
runtime_version {{ major: 12 minor: 9 patch: 0 }}
device_description_str: "{name}"
"""

DEVICES = {
    "h100": FORM.format(
        name="NVIDIA H100 80GB HBM3",
        major=9,
        extension="ACCELERATED_FEATURES",
        core_count=132,
        fpus_per_core=128,
        clock_rate_ghz=1.98,
        memory_bandwidth=3352320000000,
        device_memory_size=84942979072,
        l2_cache_size=52428800,
        shared_memory_per_core=233472,
        shared_memory_per_block_optin=232448,
    ),
    "a100": FORM.format(
        name="NVIDIA A100-SXM4-80GB",
        major=8,
        extension="NONE",
        core_count=108,
        fpus_per_core=64,
        clock_rate_ghz=1.41,
        memory_bandwidth=2039040000000,
        device_memory_size=85100068864,
        l2_cache_size=41943040,
        shared_memory_per_core=167936,
        shared_memory_per_block_optin=166912,
    ),
}


@dataclass(frozen=True)
class Gpu:
    """A device and its peaks: bytes and floating point operations a second."""

    name: str
    description: str
    bandwidth: float
    full: float
    tf32: float


def gpu(name_or_file: str) -> Gpu:
    """One of DEVICES, or of a file with a GpuTargetConfigProto as text.

    Raises
    ------
    FileError
    """
    text = DEVICES.get(name_or_file)
    if text is None:
        try:
            text = Path(name_or_file).read_text()
        except (OSError, UnicodeDecodeError) as error:
            known = ", ".join(DEVICES)
            raise FileError(
                f"{name_or_file} is neither a device ({known}) nor a description ({error})"
            ) from None
    try:
        cycles = number(text, "core_count") * number(text, "clock_rate_ghz") * 1e9
        full = 2 * number(text, "fpus_per_core") * cycles
        bandwidth = number(text, "memory_bandwidth")
        major = int(number(text, "major"))
    except ValueError as error:
        raise FileError(f"{name_or_file} describes no GPU ({error})") from None
    tf32 = TF32_OPERATIONS.get(major, max(TF32_OPERATIONS.values())) * cycles
    found = re.search(r'\bname: "(.*?)"', text)
    return Gpu(found[1] if found else name_or_file, text, bandwidth, full, max(full, tf32))


def number(text: str, name: str) -> float:
    """A number of a description; ValueError if it is not there."""
    found = re.search(rf"\b{name}: ([0-9.]+)", text)
    if found is None:
        raise ValueError(f"no {name}")
    return float(found[1])
