"""`python -m benchmarks [names]`: all benchmarks, or those named."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from benchmarks import annealing, latency, pipeline, training_step

ON_DEVICES = {"annealing": annealing.main, "training_step": training_step.main}
BENCHMARKS = {"pipeline": pipeline.main, "latency": latency.main}


def main() -> None:
    """Run the benchmarks that the command line names."""
    known = [*ON_DEVICES, *BENCHMARKS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(known)} (default: all)")
    devices = parser.add_argument_group(f"for {' and '.join(ON_DEVICES)}")
    devices.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    devices.add_argument("--networks", help="some of the networks, with commas between (default: all)")
    all_modes = training_step.MODES
    devices.add_argument("--modes", help=f"of training_step: some of {', '.join(all_modes['cuda'])} (default: all)")
    devices.add_argument("--schedule", default="lsq", help="of training_step: as in ana_fx.prepare (default: lsq)")
    devices.add_argument("--json", type=Path, metavar="PATH", help="where to write the numbers too, for one benchmark")
    arguments = parser.parse_args()
    names = arguments.names or known
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"unknown benchmark(s) {', '.join(unknown)}; known are {', '.join(known)}")
    networks = arguments.networks.split(",") if arguments.networks else None
    for name, there in (("annealing", annealing.NETWORKS), ("training_step", training_step.NETWORKS)):
        others = set(networks or ()) - set(there[arguments.device]) if name in names else set()
        if others:
            known = list(there[arguments.device])
            parser.error(f"{name} has no network(s) {', '.join(sorted(others))}; known are {', '.join(known)}")
    modes = arguments.modes.split(",") if arguments.modes else None
    no_modes = set(modes or ()) - set(all_modes[arguments.device])
    if no_modes:
        given, has = ", ".join(sorted(no_modes)), ", ".join(all_modes[arguments.device])
        parser.error(f"training_step has no mode(s) {given} on {arguments.device}; known are {has}")
    for name in names:
        console = Console(width=160)
        if name == "training_step":
            training_step.main(
                console,
                device=arguments.device,
                names=networks,
                modes=modes,
                schedule=arguments.schedule,
                json_path=arguments.json,
            )
        elif name == "annealing":
            annealing.main(console, device=arguments.device, names=networks, json_path=arguments.json)
        else:
            BENCHMARKS[name](console)


if __name__ == "__main__":
    main()
