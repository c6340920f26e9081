"""``python -m fuzz``: run the cases of a seed, print those that went wrong, and leave with 1 if there are any."""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["NTK_LPFT_FEATURE_CACHE"] = tempfile.mkdtemp(prefix="ntk_lpft-fuzz-features-")
_MEMORY = 16 * 2**30  # so that what asks for all memory is refused it


def main() -> int:
    """Run the cases; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=1200, help="cases over all targets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="how the names of targets begin, such as 'compute'")
    parser.add_argument("--case", type=int, help="one case of the target, whose traceback is then shown")
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    import torch

    from fuzz.running import cases, run_case
    from fuzz.world import make_world

    torch.set_num_threads(1)
    start = time.monotonic()
    chosen = cases(given.count, given.only)
    if given.case is not None:
        chosen = [(chosen[0][0], given.case)]
    failures = []
    with tempfile.TemporaryDirectory(prefix="ntk_lpft-fuzz-") as folder:
        os.environ["NTK_LPFT_CACHE"] = str(Path(folder) / "cache")
        os.chdir(folder)
        world = make_world(Path(folder) / "world", suite=any(target.world == "suite" for target, _ in chosen))
        print(f"inputs made in {time.monotonic() - start:.0f} s", flush=True)
        spent: dict[str, float] = {}
        for target, number in chosen:
            begun = time.monotonic()
            failure = run_case(target, number, given.seed, world, Path(folder) / "case")
            spent[target.name] = spent.get(target.name, 0.0) + time.monotonic() - begun
            if failure is not None:
                failures.append(failure)
                print(failure, flush=True)
    for name, seconds in spent.items():
        print(f"{name}: {seconds:.0f} s")
    print(f"{len(chosen)} inputs in {time.monotonic() - start:.0f} s, {len(failures)} failures")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
