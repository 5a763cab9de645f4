"""Two processes that share each batch train as one process that has it all."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import ana_fx
from ana_fx.graph import layer_maps
from tests.citizenship.training import TOTAL, WithNorm, WithoutNorm, batch_of, prepared

NUM_PROCESSES = 2
LEARNING_RATE = 0.125
NUM_TERMS = 8 * 16  # of the longest sum that makes a gradient: images of a batch, positions of a convolution


def part_of(batch, rank):
    return tuple(tensor.chunk(NUM_PROCESSES)[rank] for tensor in batch)


def train(net, qat, batches, num_parts=1):
    """The plain loop; a step takes so many batches. What the noise was at each step, and what it led to."""
    optimizer, annealer = torch.optim.SGD(qat.parameters(), lr=LEARNING_RATE), ana_fx.Annealer(qat, TOTAL)
    noises, largest = [], 0.0
    for index, (x, y) in enumerate(batches):
        is_last = (index + 1) % num_parts == 0
        with nullcontext() if is_last or num_parts == 1 else net.no_sync():
            (nn.functional.cross_entropy(net(x), y) / num_parts).backward()
        if is_last:
            noises.append([float(q.std) for layer_map in layer_maps(qat).values() for q in layer_map.quantizers()])
            largest = max([largest, *(float(p.grad.abs().max()) for p in qat.parameters() if p.grad is not None)])
            optimizer.step()
            optimizer.zero_grad()
            annealer.step()
    return {
        "noises": noises,
        "largest": largest,
        "state": qat.state_dict(),
        "names": list(dict(qat.named_parameters())),
    }


def in_parts(rank, kind, num_parts=1, **options):
    """What a process makes of its part of the batches."""
    torch.manual_seed(0)
    qat = prepared(kind, **options)
    # a layer map whose noise is gone gives its parameters no gradient: DDP must look which are used
    net = DistributedDataParallel(qat, find_unused_parameters=True)
    return train(net, qat, [part_of(batch_of(step), rank) for step in range(num_parts * TOTAL)], num_parts)


def zeros_at_first(rank):
    """The first process begins with a dummy batch, and tells no scale of the input."""
    torch.manual_seed(0)
    qat = prepared(WithoutNorm, is_calibrated=False)
    net = DistributedDataParallel(qat, find_unused_parameters=True)
    batches = [part_of(batch_of(step), rank) for step in range(TOTAL)]
    if rank == 0:
        batches[0] = (torch.zeros_like(batches[0][0]), batches[0][1])
    return train(net, qat, batches)


def without_looking_for_unused_parameters(rank):
    torch.manual_seed(0)
    qat = prepared()
    net = DistributedDataParallel(qat)
    with pytest.raises(RuntimeError) as raised:
        train(net, qat, [part_of(batch_of(step), rank) for step in range(TOTAL)])
    return str(raised.value)


SCENARIOS = {
    "without norm": lambda rank: in_parts(rank, WithoutNorm),
    "learned scales": lambda rank: in_parts(rank, WithoutNorm, learn_scales=True),
    "overlapped": lambda rank: in_parts(rank, WithoutNorm, interval="overlapped", mean="dynamic"),
    "with norm": lambda rank: in_parts(rank, WithNorm),
    "accumulated": lambda rank: in_parts(rank, WithNorm, num_parts=2),
    "first batch": lambda rank: in_parts(rank, WithoutNorm, is_calibrated=False),
    "first batch, learned scales": lambda rank: in_parts(rank, WithoutNorm, is_calibrated=False, learn_scales=True),
    "zeros at first": zeros_at_first,
    "not looking": without_looking_for_unused_parameters,
}


def process(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=NUM_PROCESSES)
    results = {name: scenario(rank) for name, scenario in SCENARIOS.items()}
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What each scenario gave in each process; all in one pair of processes, since these take long to start."""
    folder = tmp_path_factory.mktemp("distributed")
    torch.multiprocessing.spawn(process, (folder,), nprocs=NUM_PROCESSES)
    of_rank = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(NUM_PROCESSES)]
    return {name: [results[name] for results in of_rank] for name in SCENARIOS}


def different(first, second, names):
    return [name for name in names if not torch.equal(first["state"][name], second["state"][name])]


@pytest.mark.parametrize(
    ("scenario", "options"),
    [
        ("without norm", {}),
        ("overlapped", {"interval": "overlapped", "mean": "dynamic"}),
    ],
)
def test_two_processes_train_as_one_on_the_joined_batch(results, scenario, options):
    """Without batch norm: torch's takes its statistics from the part that a process has. Without learned scales: with
    them rounding moves every threshold, and a number that stands near one may change its level."""
    torch.manual_seed(0)
    qat = prepared(WithoutNorm, **options)
    alone = train(qat, qat, [batch_of(step) for step in range(TOTAL)])
    assert len({tuple(noises) for noises in alone["noises"]}) > TOTAL / 2  # it does anneal
    for shared in results[scenario]:
        assert shared["noises"] == alone["noises"]
        buffers = alone["state"].keys() - set(alone["names"])
        assert different(shared, alone, buffers) == []
        # A sum of n products in another order is off by n·2⁻²⁴ of the sum of their absolute values, which here is at
        # most four times the largest gradient; the errors of all steps add up, as long as no weight changes its level.
        tolerance = TOTAL * LEARNING_RATE * NUM_TERMS * 2**-24 * 4 * alone["largest"]
        for name in alone["names"]:
            torch.testing.assert_close(shared["state"][name], alone["state"][name], rtol=0, atol=tolerance)


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name != "not looking"])
def test_all_processes_hold_the_same_parameters_and_noise_to_the_end(results, scenario):
    first, second = results[scenario]
    assert different(first, second, first["names"]) == []
    assert first["noises"] == second["noises"]
    assert int(first["state"]["annealing_step"]) == int(second["state"]["annealing_step"]) == TOTAL
    assert not any(float(x) for name, x in second["state"].items() if name.endswith(".std"))


def test_scales_of_the_first_batch_are_those_of_the_first_process(results):
    first, second = results["first batch"]
    scales = [name for name in first["state"] if name.endswith(".scale")]
    assert different(first, second, scales) == []  # DDP hands out the buffers of the first process
    torch.manual_seed(0)
    qat = prepared(WithoutNorm, is_calibrated=False)
    qat(part_of(batch_of(0), 0)[0])
    assert [name for name in scales if not torch.equal(first["state"][name], qat.state_dict()[name])] == []


def test_zeros_of_the_first_process_leave_the_input_to_its_next_batch(results):
    found = results["zeros at first"][0]["state"]["input_1_quantizer.scale"]
    alone = prepared(WithoutNorm, is_calibrated=False)
    alone(part_of(batch_of(1), 0)[0])
    assert torch.equal(found, alone.state_dict()["input_1_quantizer.scale"])


def test_ddp_needs_to_look_for_unused_parameters(results):
    assert all("find_unused_parameters" in message for message in results["not looking"])


def test_what_two_processes_trained_is_converted(results):
    qat = prepared(WithNorm)
    qat.load_state_dict(results["with norm"][0]["state"])
    x = batch_of(-2)[0]
    assert torch.equal(ana_fx.convert(qat)(x), qat.eval()(x))
