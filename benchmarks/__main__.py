"""Everything that is compared, in one report: training steps, replicas, input pipeline, latency.

    python -m benchmarks [--device=auto]

Prints Markdown; what is being done goes to the standard error. Every contender of a training step
is a process of its own, which gets no `TF_*` variable but those that its row is about. The rounds
are interleaved over the processes, which all wait in memory meanwhile: that takes about 1 GB each.
"""

import argparse
import contextlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import device, input_pipeline, latency, processes, replicas, report, step_time
from benchmarks.measure import Contender, cores, environment, interleave

PACKAGES = ("kdtoolkit", "tensorflow", "keras", "ai-edge-litert", "numpy", "torch")
STEPS = (
    *(step_time.BASELINE, "Patriarch, plain", "Student", "Self-distillation", "Distiller"),
    *("PyTorch", "PyTorch, teacher", "PyTorch, compiled", "PyTorch, compiled, teacher"),
)
AS_CHOSEN = {
    "Patriarch, as chosen": "Patriarch, plain",
    "Student, as chosen": "Student",
    "Self-distillation, as chosen": "Self-distillation",
    "plain, bfloat16": "plain",
    "Distiller, bfloat16": "Distiller",
}
IN_BFLOAT16 = ("PyTorch, bfloat16", "PyTorch, bfloat16, teacher")
AS_STARTED = {
    "plain, as started": "plain",
    "Student, as started": "student",
    "Distiller, as started": "distiller",
}
WITHOUT_ONEDNN = {"Distiller, as started, no oneDNN": "distiller"}
COMPILING_ANEW = {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
FULL = {
    "steps": {"steps": 5, "rounds": 11},
    "replicas": {"steps": 5, "rounds": 7, "precision": "auto"},
    "latency": {"steps": latency.STEPS, "rounds": 15},
    "pipeline": [],
    "at_once": 1,
}
_SMALL = {"network": "resnet8", "image_size": 8, "classes": 4, "batch_size": 4, "head_width": 4}
_SMALL |= {"steps": 1, "rounds": 1}
QUICK = {
    **dict.fromkeys(("steps", "replicas", "latency"), _SMALL),
    "pipeline": ["--images=64", "--size=8", "--batch_size=32", "--epochs=1"],
    "at_once": cores(),
}

NOTES = {
    "steps": """
        The same network, batch and optimizer for all. The step alone is repeated on batches at
        hand: float32, oneDNN on in TensorFlow, XLA where `compute.choose` (for ours) or Keras (for
        its own) has it on this device, PyTorch channels last. *As chosen* is in the precision that
        `compute.choose` takes by itself (above); beside it *bfloat16*, Keras' `mixed_bfloat16` and
        PyTorch's `torch.autocast`.""",
    "started": """
        A whole `fit` on arrays with each library's defaults: Keras as its documentation shows,
        `Student` in the precision, with XLA or without, as `compute.choose` takes them by
        itself.""",
    "onednn": """
        *No oneDNN* sets `TF_ENABLE_ONEDNN_OPTS=0`, which is what TensorFlow does by itself on a CPU
        without AVX512; on one that has it, users start the row above it.""",
    "memory": "Peak memory is that of the process, resident",
    "gpu_memory": "Peak memory is what the library allocated on the GPU",
    "start": "seconds to the first step are a process's own: imports, network, compilation.",
    "ratios": "Above 1 the second of the two is the faster one. Medians over the rounds.",
    "replicas": """
        The same global batch through `Patriarch.fit` as `compute.choose` says, crops and flips
        included; below 1 is faster than one device.""",
    "cpu_replicas": """
        One device and the two logical CPUs share one pool of {cores} threads; each of the two
        workers, processes on the loopback interface, has a pool of {half}.""",
    "gpu_replicas": "One GPU computes with XLA, which several replicas cannot.",
    "pipeline": "random images in memory, shuffled, cropped, flipped, normalised; no training.",
    "latency": """
        One image at a time on the CPU: LiteRT files and the early-exit classifier on one thread,
        Keras on TensorFlow's own. The weights are random; thresholds of 0 and 2 let the classifier
        stop where a row says.""",
}


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--device", choices=device.DEVICES, default="auto")
    parser.add_argument("--quick", action="store_true", help="to see it work: times mean nothing")
    arguments = parser.parse_args(argv)
    sizes = QUICK if arguments.quick else FULL
    lines = environment(PACKAGES)
    found = processes.call("benchmarks.device:describe", {}, device.variables(arguments.device))
    if arguments.device == "gpu" and not found["gpus"]:
        parser.error("--device=gpu needs a GPU that TensorFlow can use")
    variables = device.variables("gpu" if found["gpus"] else "cpu")
    sections = {
        **training(sizes, variables, found["gpus"], found["precision"]),
        "Replicas": over_replicas(sizes, variables, found["gpus"]),
        "Input pipeline": pipeline(sizes),
        "Latency": latencies(sizes),
    }
    introduction = report.items([*lines, found["summary"]])
    print(report.document("Benchmarks", introduction, sections))


def training(sizes, variables, gpus, precision):
    """Returns the sections about training steps."""
    same = {**variables, device.ONEDNN: "1", **COMPILING_ANEW}
    settings = settings_of(sizes["steps"])
    steps = {name: {"contender": name} for name in STEPS}
    if precision == "bfloat16":
        steps |= {name: {"contender": name} for name in IN_BFLOAT16}
        steps |= {
            name: {"contender": contender, "precision": "auto"}
            for name, contender in AS_CHOSEN.items()
        }
    alone = [
        remote(name, "step_time:build", {**settings, **changes}, same)
        for name, changes in steps.items()
    ]
    started = [
        remote(name, f"as_started:{make}", settings, variables) for name, make in AS_STARTED.items()
    ]
    if not gpus:
        started += [
            remote(name, f"as_started:{make}", settings, {**variables, device.ONEDNN: "0"})
            for name, make in WITHOUT_ONEDNN.items()
        ]
    columns = f"{NOTES['gpu_memory' if gpus else 'memory']}; {NOTES['start']}"
    # One group after the other: all processes at once can be more than the memory holds.
    first, timings = table_of(alone, settings, sizes["at_once"])
    second, more = table_of(started, settings, sizes["at_once"])
    started_notes = NOTES["started"] + ("" if gpus else NOTES["onednn"])
    return {
        "Training step": [
            size(settings),
            report.prose(NOTES["steps"]),
            report.prose(columns),
            *first,
        ],
        "Training as users start it": [size(settings), report.prose(started_notes), *second],
        "Ratios": [report.prose(NOTES["ratios"]), report.targets({**timings, **more})],
    }


def table_of(contenders, settings, at_once):
    """Times contenders of a training step; returns parts of a section, and the timings."""
    timings, runs, seconds, failures = timed(contenders, settings, at_once)
    memory = {name: (run.before, run.peak) for name, run in runs.items()}
    baseline = contenders[0].name
    table = report.steps(timings, baseline, settings["batch_size"], memory, seconds)
    return [table, report.missing(failures)], timings


def over_replicas(sizes, variables, gpus):
    """Returns the section about several replicas."""
    settings = settings_of(sizes["replicas"])
    contenders = replicas.contenders(settings, {**variables, device.ONEDNN: "1"}, gpus)
    timings, _, _, failures = timed(contenders, settings, sizes["at_once"])
    threads = NOTES["cpu_replicas"].format(cores=cores(), half=replicas.threads(workers=2))
    notes = NOTES["replicas"] + (NOTES["gpu_replicas"] if gpus else threads)
    table = report.plain(timings, replicas.BASELINE, settings["batch_size"])
    return [size(settings), report.prose(notes), table, report.missing(failures)]


def pipeline(sizes):
    """Returns the section about the input pipeline."""
    tell("input pipeline")
    settings = vars(input_pipeline.parse(sizes["pipeline"]))
    seconds = processes.call("benchmarks.input_pipeline:measure", settings, device.variables("cpu"))
    images = f"{settings['images']:,} images of {settings['size']}x{settings['size']}x3"
    return [f"{images}: {NOTES['pipeline']}", input_pipeline.summary(settings["images"], seconds)]


def latencies(sizes):
    """Returns the section about the time of one image."""
    tell("latency")
    settings = settings_of(sizes["latency"])
    variables = {**device.variables("cpu"), device.ONEDNN: "1"}
    try:
        measured = processes.call("benchmarks.latency:measure", settings, variables)
    except processes.ProcessFailed as failure:
        return [report.missing({"latency": failure})]
    timings = latency.timings(measured)
    table = report.plain(timings, latency.BASELINE, batch_size=1)
    ratios = report.ratios(timings, latency.pairs(timings))
    notes = report.prose(f"{settings['network']}. {NOTES['latency']}")
    return [notes, table, report.prose(NOTES["ratios"]), ratios]


def timed(contenders, settings, at_once):
    """Starts contenders and interleaves them; returns timings, runs, seconds and failures.

    Raises:
        ProcessFailed: the first contender, which others are compared to, could not start.
    """
    with contextlib.ExitStack() as stack:
        runs, seconds, failures = processes.start(
            contenders, at_once=at_once, stack=stack, report=tell
        )
        if contenders[0].name in failures:
            raise processes.ProcessFailed(failures[contenders[0].name])
        timings = interleave(
            processes.started(runs), steps=settings["steps"], rounds=settings["rounds"], report=tell
        )
    return timings, runs, seconds, failures


def remote(name, function, settings, variables):
    """Returns a contender in a process of its own."""
    function = f"benchmarks.{function}"
    return Contender(name, lambda: processes.Remote(function, settings, [variables]))


def settings_of(changes):
    """Returns the settings of `step_time` as a dict."""
    return vars(step_time.parse([], **changes)[1])


def size(settings):
    pixels = f"{settings['image_size']}x{settings['image_size']}x3"
    return (
        f"{settings['network']}, {pixels}, {settings['classes']} classes, batch "
        f"{settings['batch_size']}, {settings['rounds']} rounds of {settings['steps']} steps."
    )


def tell(line):
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
