"""Command lines of all recipes and commands."""

import dataclasses
import importlib
import math
import os
from unittest import mock

import numpy as np

from kdtoolkit.recipes._command import Done, Flags
from tests.fuzz import judge, mutations
from tests.fuzz.areas.edge import package
from tests.fuzz.mutations import pick

_RECIPES = ("born_again", "self_distillation", "distill", "compress", "shrink")
_LAUNCH_MOST = 8  # workers that are really started

_NUMBERS = [
    *("0", "1", "2", "3", "-1", "5", "10", "0.5", "-0.5", "1.0", "0.1", "1e-3", "1e3"),
    *("nan", "NaN", "inf", "-inf", "Infinity", "1e400", "1e-400", "-0.0", "2147483648"),
    *("4294967296", "-9223372036854775809", "1" * 30, "1" * 5000, "0x10", "1_000", "٣", " 1"),
    *("1 ", "1,5", "1e", "--1", "+1", "1.", ".5", "True", "1;2", "½"),
]
_TEXTS = [
    *("", " ", ",", ",,", "a,b", "a,a", "a=b", "=", "--", "-", "--help", "'", '"', "a b", "#"),
    *(name for name in mutations.NAMES),
    *("true", "false", "auto", "none", "None", "yes", "x" * 5000, "\n", "a\n--epochs=3", "\\"),
    *("~", "~/x", "~nobody/x", "$HOME", "digits", "resnet8", "resnet20", "kd", "plain"),
]
_NAMES = {
    "model": ["resnet8", "resnet14", "vgg8", "wrn-16-2", "densenet-bc-100-12", "keras.MobileNetV2"],
    "dataset": ["digits", "cifar10", "mnist", "imagenet2012", "cifar", "./digits"],
    "methods": ["kd", "plain", "mutual", "kd+attention", "fitnet", "probability_shift+focal"],
    "method": ["kd", "self_distillation+focal", "deep_supervision", "label_smooth", "kd+kd"],
    "fitnet_layers": ["stage1:stage2", "stage1", ":", "stage1:stage2:stage3", "a:b,c:d"],
    "quantize": ["int8", "float32", "int8,qat", "int8,int8", "uint8", "float16,dynamic_range"],
    "structure": ["weights", "channels", "2:4", "none"],
    "precision": ["float32", "bfloat16", "auto", "float16"],
    "strategy": ["auto", "one_device", "mirrored", "multi_worker"],
    "patriarch": ["plain", "label_smoothing", "confidence_penalty", "tolerant"],
    "schedule": ["digits", "cifar_resnet", "distillation", "fine_tuning"],
    "seeds": ["1,2", "1,1", "0", "1,", "-1", "2147483648", "1,x"],
    "kd_weight": ["0.5", "0.1,0.9", "0,1", "nan", "0.5,", "1,nan"],
    "focal_normalization": ["l1", "l2", "l3"],
}
_NAMES["teacher"] = _NAMES["student"] = _NAMES["peer"] = _NAMES["model"]


class Commands:
    """A command line is refused in one line with status 2, or it is accepted.

    Recipes are run up to where they begin to write. What was accepted is written down as a run's
    `config.flags`; read again, the flags are the same, and belong to the same run. No number that
    was accepted is infinite or not a number.
    """

    def __init__(self, directory):
        from kdtoolkit import cli
        from kdtoolkit.edge import __main__ as edge
        from kdtoolkit.recipes import _session

        self._cli, self._edge, self._session = cli.main, edge.main, _session
        self._recipes = {
            name: importlib.import_module(f"kdtoolkit.recipes.{name}").RECIPE for name in _RECIPES
        }
        self._directory = directory
        self._output = directory / "output"
        self._files = self._write_files(directory)
        self._home = os.getcwd()

    def _write_files(self, directory):
        """Paths that flags may name: whole ones, and others."""
        from kdtoolkit import models

        network = directory / "network.keras"
        models.build("resnet8", (8, 8, 1), 10).save(network)
        np.savez(
            directory / "data.npz",
            images=np.zeros((20, 8, 8), np.uint8),
            labels=np.arange(20) % 2,
        )
        (directory / "broken.npz").write_bytes(b"PK")
        (directory / "broken.keras").write_bytes(network.read_bytes()[:500])
        (directory / "empty").mkdir(exist_ok=True)
        (directory / "finished").mkdir(exist_ok=True)
        (directory / "finished" / "results.json").write_text('{"recipe": "compress"}')
        (directory / "data.flags").write_text("--epochs=3\n# a comment\n--seed=1\n")
        (directory / "again.flags").write_text(f"--flagfile={directory}/again.flags\n--seed=2\n")
        (directory / "bytes.flags").write_bytes(b"--seed=\xff\xfe\0\n")
        (directory / "wrong.flags").write_text("--none=3\nseed\n--seed\n")
        for name in ("pipe", "pipe.npz", "pipe.keras", "pipe.flags"):
            if not (directory / name).exists():
                os.mkfifo(directory / name)
        package(directory / "whole.tflite")
        return sorted(str(path) for path in directory.iterdir() if path.name != "log")

    def attempt(self, rng):
        kind = rng.random()
        os.chdir(self._directory / "empty")
        try:
            if kind < 0.9:
                return self._recipe(rng)
            if kind < 0.96:
                return self._describe(rng)
            return pick(rng, [self._any, self._launch, self._classify])(rng)
        finally:
            os.chdir(self._home)

    # Recipes

    def _recipe(self, rng):
        recipe = self._recipes[pick(rng, _RECIPES)]
        flags = self._defined(recipe)
        names = [
            name for name in flags if name not in ("flagfile", "undefok", "help", "output_dir")
        ]
        arguments = [self._argument(flags[pick(rng, names)], rng) for _ in range(_few(rng))]
        if recipe.name == "compress" and rng.random() < 0.8:
            arguments.append(f"--model={self._directory / 'network.keras'}")
        if rng.random() < 0.1:
            arguments.append(pick(rng, self._special))
        if rng.random() < 0.9:
            arguments.append(f"--output_dir={self._output}")
        arguments = [pick(rng, arguments) if rng.random() < 0.02 else a for a in arguments]
        if rng.random() < 0.02:
            arguments = [_damaged(argument, rng) for argument in arguments]
        if any(a.lstrip("-") in ("help", "h") for a in arguments):
            status, output, error = judge.command(recipe.main, arguments)
            judge.require(status == 0 and output.startswith(recipe.summary) and not error, error)
            return "accepted"
        accepted = []

        def stop(flags, checked):
            accepted.append(flags)
            raise Done

        stopped = dataclasses.replace(recipe, run=stop)
        self._refusable(stopped.main, arguments, recipe.name, accepted)
        if not accepted:
            return "refused"
        self._same_again(recipe, accepted[0])
        if rng.random() < 0.06 and self._is_small(accepted[0]):
            return self._begin(recipe, arguments)
        return "accepted"

    @property
    def _special(self):
        flagfiles = [f"--flagfile={path}" for path in (*self._files, "absent", "")]
        return [
            *flagfiles,
            *("--undefok=none", "--none=1", "none", "--", "-", "--no", "--=3", "-seed=3", "--seed"),
            *(
                "--help",
                "-h",
                "--nosmoke",
                "--smoke=maybe",
                "--smoke",
                "--nostrict_data",
                "---seed=1",
            ),
            *(f"--output_dir={path}" for path in (*self._files, *_TEXTS, "/proc/x", "/dev/null")),
        ]

    def _defined(self, recipe):
        flags = Flags()
        recipe.define(flags)
        return flags

    def _argument(self, flag, rng):
        kind = flag.flag_type()
        if kind == "bool" and rng.random() < 0.7:
            return pick(rng, [f"--{flag.name}", f"--no{flag.name}"])
        likely = _NUMBERS if kind in ("int", "float") else _NAMES.get(flag.name, _TEXTS)
        if flag.name in ("dataset", "data_dir", "model", "teacher") and rng.random() < 0.4:
            likely = self._files
        pool = likely if rng.random() < 0.8 else pick(rng, [_NUMBERS, _TEXTS])
        separator = "=" if rng.random() < 0.98 else " "
        return f"--{flag.name}{separator}{pick(rng, pool)}"

    def _refusable(self, main, arguments, name, accepted):
        status, output, error = judge.command(main, arguments)
        if accepted:
            judge.require(status == 0 and not error, f"status {status}, {error}")
            return
        judge.require(status == 2, f"status {status} without a run: {output[:200]!r} {error}")
        judge.require(not output and error[0].startswith(f"{name}: "), f"{output!r} {error}")

    def _same_again(self, recipe, flags):
        """What is accepted can be written down, and read again."""
        for name in flags:
            value = flags[name].value
            judge.require(
                not isinstance(value, float) or math.isfinite(value), f"accepted: --{name}={value}"
            )
        text = flags.flags_into_string()
        path = self._directory / "config.flags"
        path.write_text(text)
        again = self._defined(recipe)
        again([recipe.name, f"--flagfile={path}"])
        recipe.check(again)
        judge.require(
            again.effective() == flags.effective(),
            f"other flags from config.flags: {again.effective()} for {flags.effective()}",
        )

    def _is_small(self, flags):
        """Whether a network of it can be built at once; what is asked for may be huge."""
        most = {"image_size": 64, "head_width": 512, "batch_size": 10**6, "generations": 3}
        sizes = {name: flags[name].value or 0 for name in most if name in flags}
        here = flags.dataset == "digits" or os.path.exists(flags.dataset)
        names = [flags[name].value for name in ("model", "teacher", "student") if name in flags]
        small = all(str(n) in ("resnet8", "resnet14", "vgg8") or "/" in str(n) for n in names)
        return here and small and all(sizes[name] <= most[name] for name in sizes)

    def _begin(self, recipe, arguments):
        """Runs it to where it would write: with its data, networks and trainers."""
        begun = []

        def begin(flags, *_):
            begun.append(flags)
            raise Done

        # Operations of this process stay as they are.
        with (
            mock.patch.object(self._session, "begin", begin),
            mock.patch.object(self._session, "prepare_process", lambda flags: None),
        ):
            status, output, error = judge.command(recipe.main, arguments)
        judge.require(bool(begun) == (status == 0), f"status {status}, {output!r}, {error}")
        judge.require(not self._output.exists(), f"{self._output} was written")
        return "refused" if status else "accepted"

    # Other commands

    def _describe(self, rng):
        models = ["resnet8", "vgg8", "resnet", *self._files, *_TEXTS]
        sizes = ["0", "1", "-1", "8", "32", "33", "224", "x", "1.5", "", "nan", "1" * 5000]
        arguments = [pick(rng, models)]
        for flag in ("image_size", "classes"):
            if rng.random() < 0.5:
                arguments.append(f"--{flag}={pick(rng, sizes)}")
        if rng.random() < 0.3:
            arguments.append(pick(rng, ["--exits", "--exit", "--none", "--exits=3", "-x", ""]))
        return self._plain(["describe", *arguments], "describe")

    def _any(self, rng):
        name = pick(rng, ["recipes", "born_agan", "recipe", *(t for t in _TEXTS if t != "--help")])
        return self._plain([name, *(pick(rng, _TEXTS) for _ in range(_few(rng) - 1))], None)

    def _launch(self, rng):
        workers = pick(rng, ["0", "-1", "1", "2", str(_LAUNCH_MOST), "x", "", "1.5", "1" * 5000])
        end = pick(rng, [["--", "true"], ["--"], [], ["--", "absent"], ["true"]])
        return self._plain(["launch", f"--workers={workers}", *end], None)

    def _classify(self, rng):
        model = pick(rng, [str(self._directory / "whole.tflite"), *self._files])
        flags = [
            f"--operating_point={pick(rng, _NUMBERS)}",
            f"--threads={pick(rng, ['1', '2', 'x', '0', '-1', ''])}",
        ]
        images = [pick(rng, [*self._files, *_TEXTS]) for _ in range(_few(rng) - 1)]
        arguments = [model, *images, *(f for f in flags if rng.random() < 0.5)]
        if any(a.startswith("-h") or a.startswith("--h") for a in arguments):
            return "accepted"
        status, _, _ = judge.command(self._edge, arguments)
        return "refused" if status else "accepted"

    def _plain(self, arguments, name):
        status, output, error = judge.command(self._cli, arguments)
        if not status:
            judge.require((output or arguments[0] == "launch") and not error, f"{output!r} {error}")
            return "accepted"
        judge.require(name is None or error[0].startswith(f"{name}: "), f"{error}")
        return "refused"


def _damaged(argument, rng):
    """What a shell can pass: any bytes but zero."""
    content = argument.encode(errors="surrogateescape")
    content = mutations.damage(content, rng).replace(b"\0", b"")
    return content.decode(errors="surrogateescape")


def _few(rng):
    return int(pick(rng, [1, 1, 2, 2, 3, 4]))
