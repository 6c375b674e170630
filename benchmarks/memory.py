"""Peak memory of training steps: what each contender adds to a process.

    python benchmarks/memory.py [--markdown] [--network=resnet20] [--batch_size=128] [--rounds=3]

Each measurement is a fresh process, because memory that was once freed is not given back. It builds
the contender, looks at its peak resident memory (VmHWM, so on Linux only; on a GPU at what the
library allocated there), takes some steps and looks again: the difference holds activations,
gradients, the optimizer's state and what compiling takes, but not the libraries, the networks'
weights and the images. Of several processes, in turn, the median is reported.
"""

import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import device, step_time
from benchmarks.measure import environment, format_table

NAMES = (
    *("plain", "Patriarch, plain", "Student", "Student, cached teacher"),
    *("Deep supervision", "Self-distillation", "mutual learning", "Distiller"),
)
MEASURE = "KDTOOLKIT_BENCHMARK_CONTENDER"  # which one a fresh process measures


def measure(arguments, name):
    """Returns MiB: peak of the process before the first step, and what the steps add to it."""
    arguments.contender = name
    run = step_time.build(arguments)
    before = peak()
    run(arguments.steps)
    return before, peak() - before


def peak():
    """MiB of this process's peak memory: on its GPU, where it computes on one, or resident."""
    torch, tf = (sys.modules.get(name) for name in ("torch", "tensorflow"))
    if torch and torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    if tf and tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def table(found):
    """Returns a header and a row per contender; `found` is a dict name -> rounds of `measure`."""
    header = ("contender", "before, MiB", "steps, MiB", "min..max", f"/ {step_time.BASELINE}")
    baseline = statistics.median(added for _, added in found[step_time.BASELINE])
    rows = []
    for name, rounds in found.items():
        before, added = zip(*rounds, strict=True)
        median = statistics.median(added)
        row = (name, f"{statistics.median(before):.0f}", f"{median:.0f}")
        rows.append((*row, f"{min(added):.0f}..{max(added):.0f}", f"{median / baseline:.3f}"))
    return [header, *rows]


def main(argv=None):
    parser, arguments = step_time.parse(argv, rounds=3)
    device.prepare(arguments.device)
    if MEASURE in os.environ:
        print(json.dumps(measure(arguments, os.environ[MEASURE])))
        return
    names = step_time.named(parser, arguments, NAMES)
    lines = environment(("tensorflow", "keras"))
    command = [sys.executable, *sys.argv] if argv is None else [sys.executable, __file__, *argv]
    found = {name: [] for name in names}
    for number in range(arguments.rounds):
        for name in names:
            print(f"round {number + 1}: {name}", file=sys.stderr, flush=True)
            child = subprocess.run(
                command, env={**os.environ, MEASURE: name}, stdout=subprocess.PIPE, check=True
            )
            found[name].append(json.loads(child.stdout.splitlines()[-1]))
    bullet = "- " if arguments.markdown else ""
    print("\n".join(bullet + line for line in lines), end="\n\n")
    print(format_table(table(found), arguments.markdown))


if __name__ == "__main__":
    main()
