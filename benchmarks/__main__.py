"""`python -m benchmarks [names]`: all benchmarks, or those named."""

from __future__ import annotations

import argparse

from rich.console import Console

from benchmarks import annealing, latency, pipeline, training_step

BENCHMARKS = {
    "annealing": annealing.main,
    "training_step": training_step.main,
    "pipeline": pipeline.main,
    "latency": latency.main,
}


def main() -> None:
    """Run the benchmarks that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(BENCHMARKS)} (default: all)")
    names = parser.parse_args().names or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"unknown benchmark(s) {', '.join(unknown)}; known are {', '.join(BENCHMARKS)}")
    for name in names:
        BENCHMARKS[name](Console())


if __name__ == "__main__":
    main()
