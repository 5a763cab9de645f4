"""Two processes that share a batch train as one process that has it all."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import ana_fx
from ana_fx.graph import layer_maps
from tests.citizenship.training import TOTAL, batch_of, prepared

NUM_PROCESSES = 2
LEARNING_RATE = 0.125


def run_on_all(function, tmp_path, *arguments):
    """What `function(rank, *arguments)` returned in each of the processes."""
    torch.multiprocessing.spawn(_process, (function, tmp_path, arguments), nprocs=NUM_PROCESSES)
    return [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(NUM_PROCESSES)]


def _process(rank, function, tmp_path, arguments):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group("gloo", f"file://{tmp_path}/store", rank=rank, world_size=NUM_PROCESSES)
    torch.save(function(rank, *arguments), tmp_path / f"{rank}.pt")
    dist.destroy_process_group()


def part_of(batch, rank):
    return tuple(tensor.chunk(NUM_PROCESSES)[rank] for tensor in batch)


def train(net, qat, batches):
    """SGD on the mean loss; what the noise was at each step, and what it led to."""
    optimizer = torch.optim.SGD(qat.parameters(), lr=LEARNING_RATE)
    annealer = ana_fx.Annealer(qat, TOTAL)
    noises, largest = [], 0.0
    for x, y in batches:
        noises.append([float(q.std) for layer_map in layer_maps(qat).values() for q in layer_map.quantizers()])
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
        largest = max(largest, *(float(p.grad.abs().max()) for p in qat.parameters() if p.grad is not None))
        optimizer.zero_grad()
        annealer.step()
    state = {name: tensor.clone() for name, tensor in qat.state_dict().items()}
    return {"noises": noises, "largest": largest, "state": state}


def train_part(rank, kind, options):
    qat = prepared(kind, **options)
    # layer maps whose noise is gone give no gradient: their parameters are unused
    net = DistributedDataParallel(qat, find_unused_parameters=True)
    return train(net, qat, [part_of(batch_of(step), rank) for step in range(TOTAL)])
