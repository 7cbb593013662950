"""NVIDIA's cards as XLA's compiler wants them described, so that none has to be at hand."""

from typing import NamedTuple


class Card(NamedTuple):
  """A card's limits, from the vendor's data sheets and CUDA's tables of compute capabilities.

  Attributes:
    kind: JAX's name of the device kind.
    memory: bytes of memory that a driver reports.
    bandwidth: bytes a second.
    cores: multiprocessors.
    fpus: float32 units of a multiprocessor.
    cache: bytes of the second-level cache.
    clock: GHz.
    shared: KiB of shared memory of a multiprocessor; a block takes 1 KiB less.
    capability: the major compute capability; the minor one of all is 0.
    links: NVLink connections.
  """

  kind: str
  memory: int
  bandwidth: float
  cores: int
  fpus: int
  cache: int
  clock: float
  shared: int
  capability: int
  links: int


CARDS = {
  "a100": Card(
    "NVIDIA A100-SXM4-80GB", 85_100_068_864, 2.039e12, 108, 64, 40 * 2**20, 1.41, 164, 8, 12
  ),
  "h100": Card(
    "NVIDIA H100 80GB HBM3", 84_942_979_072, 3.352e12, 132, 128, 50 * 2**20, 1.98, 228, 9, 18
  ),
  "h200": Card(
    "NVIDIA H200 141GB HBM3e", 151_397_597_184, 4.8e12, 132, 128, 50 * 2**20, 1.98, 228, 9, 18
  ),
  "b200": Card("NVIDIA B200", 191_514_411_008, 7.672e12, 148, 128, 126 * 2**20, 1.965, 228, 10, 18),
}


def description(card: Card) -> str:
  """Returns the card as the text of a GpuTargetConfigProto.

  Without the rates of its matrix units, which compilers of JAX before 0.12 cannot read.
  """
  extension = "ACCELERATED_FEATURES" if card.capability > 8 else "NONE"
  suffix = "a" if card.capability > 8 else ""
  return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: {48 * 1024}
  shared_memory_per_core: {card.shared * 1024}
  shared_memory_per_block_optin: {(card.shared - 1) * 1024}
  threads_per_core_limit: 2048
  core_count: {card.cores}
  fpus_per_core: {card.fpus}
  block_dim_limit_x: {2**31 - 1}
  block_dim_limit_y: {2**16 - 1}
  block_dim_limit_z: {2**16 - 1}
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  registers_per_core_limit: {2**16}
  registers_per_block_limit: {2**16}
  memory_bandwidth: {int(card.bandwidth)}
  l2_cache_size: {card.cache}
  clock_rate_ghz: {card.clock}
  device_memory_size: {card.memory}
  device_address_bits: 64
  ecc_enabled: true
  cuda_compute_capability {{
    major: {card.capability}
    feature_extension: {extension}
  }}
  device_interconnect_info {{ active_links: {card.links} }}
  device_vendor: "NVIDIA Corporation"
  platform_version: "Compute Capability {card.capability}.0{suffix}"
  name: "{card.kind}"
  driver_version: "13.0.0"
  runtime_version: "12.8.0"
  compile_time_toolkit_version: "12.8.0"
  dnn_version: "9.10.0"
}}
runtime_version {{ major: 12 minor: 8 }}
dnn_version_info {{ major: 9 minor: 10 patch: 2 }}
platform_name: "CUDA"
device_description_str: "{card.kind}"
"""
