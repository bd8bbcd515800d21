"""One training in several processes, as torchrun starts them; alone it is the same with one."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.training.parts import Share


def join_processes(num_threads: int) -> Share:
    """This process's part: NCCL and a GPU each, or gloo and a share of the cores."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    gpu = torch.cuda.is_available()
    device = torch.device("cpu")
    if gpu:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if world_size == 1:
        return Share(device=device, num_threads=num_threads)
    dist.init_process_group("nccl" if gpu else "gloo")
    if not gpu:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // world_size))
    return Share(dist.get_rank(), world_size, device, num_threads)


def sum_of_all(*values: float, share: Share) -> list[float]:
    """Each value, added up over the processes."""
    total = torch.tensor(values, dtype=torch.float64, device=share.device)
    if share.world_size > 1:
        dist.all_reduce(total)
    return total.tolist()


def gathered(state: dict[str, Any], share: Share) -> list[dict[str, Any]]:
    """Every process's state, in the order of the ranks."""
    if share.world_size == 1:
        return [state]
    states: list[Any] = [None] * share.world_size
    dist.all_gather_object(states, state)
    return states


def wait_for_all(share: Share) -> None:
    if share.world_size > 1:
        dist.barrier()


def leave(share: Share) -> None:
    if share.world_size > 1:
        dist.destroy_process_group()
