"""Mistakes on the command line: one line, status 2, before TensorFlow, and nothing written."""

import contextlib
import dataclasses
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from PIL import Image

from kdtoolkit import cli, data, models
from kdtoolkit._checks import ArgumentError, UnsuitableError, Words
from kdtoolkit.methods import KD
from kdtoolkit.recipes import (
    _command,
    _session,
    analyze,
    born_again,
    compress,
    distill,
    self_distillation,
    shrink,
)
from kdtoolkit.recipes.born_again import RECIPE

HEAD = "# kdtoolkit 0.2\n"  # of a config.flags
APPLICATION = ["--model=keras:MobileNet", "--image_size=32"]
TRAINED = [*APPLICATION, "--dataset=cifar10", "--weights=imagenet"]


@pytest.fixture
def in_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--model=resnet21"], ["--model", "resnet21", "resnet20"]),
        (["--dataset=cifar101"], ["--dataset", "cifar101", "cifar100"]),
        (["--patriarch=tolerent"], ["--patriarch", "tolerent", "matches: tolerant"]),
        (["--primary_score=0.2"], ["--primary_score", "(1/5, 1]", "0.2"]),
        (["--primary_score=1.5"], ["--primary_score", "(1/5, 1]", "1.5"]),
        (["--patriarch=label_smoothing", "--primary_score=0.1"], ["--primary_score", "(1/10, 1]"]),
        (["--kd_weight=1.2"], ["--kd_weight", "[0, 1]", "1.2"]),
        (["--kd_weight=0.5,0.6,0.7"], ["--kd_weight", "2 students", "3 values"]),
        (["--kd_weight=half"], ["--kd_weight", "a number", "half"]),
        (["--teacher_weight=0.5"], ["--teacher_weight is now --kd_weight", "CHANGELOG"]),
        (["--permute_secondary"], ["--permute_secondary is now --methods=dkpp"]),
        (["--top_k=11"], ["--top_k", "10", "11"]),
        (["--top_k=1"], ["--top_k", "an integer of at least 2, or adaptive", "1"]),
        (["--top_k=adaptiv"], ["--top_k", "an integer of at least 2, or adaptive", "adaptiv"]),
        (["--top_k=adaptive", "--primary_score=0.5"], ["--primary_score", "(1/2, 1]", "0.5"]),
        (["--top_k=adaptive", "--top_k_share=1"], ["--top_k_share", "in (0, 1)", "1"]),
        (["--top_k_share=0.1"], ["--top_k_share", "applies to --top_k=adaptive"]),
        (["--patriarch=plain", "--primary_score=0.3"], ["--primary_score", "applies to", "0.3"]),
        (["--patriarch=plain", "--top_k=3"], ["--top_k", "applies to a tolerant patriarch", "3"]),
        (["--primary_score=1", "--top_k=3"], ["--top_k", "applies to a tolerant patriarch", "3"]),
        (["--generations=0", "--methods=kdd"], ["--methods", "kdd", "Near matches: kd"]),
        (["--kd_temperature=0"], ["--kd_temperature", "positive", "0"]),
        (["--methods=swap"], ["--methods", "probability_shift", "swap"]),
        (["--methods=label_smooth", "--kd_temperature=4"], ["--kd_temperature", "1", "label_sm"]),
        (["--methods=label_smooth+focal"], ["--methods", "label_smooth", "focal"]),
        (["--methods=label_smooth", "--label_smooth_p=0.1"], ["--label_smooth_p", "(1/10, 1)"]),
        (["--methods=focal", "--focal_slope=-1"], ["--focal_slope", "at least 0", "-1"]),
        (["--methods=focal", "--focal_gamma=-1"], ["--focal_gamma", "at least 0", "-1"]),
        (["--methods=focal", "--focal_normalization=l3"], ["--focal_normalization", "l2", "l3"]),
        (["--focal_slope=2"], ["--focal_slope", "applies to the method focal"]),
        (["--methods=no.such:Method"], ["--methods", "No module named 'no'"]),
        (["--epochs=0"], ["--epochs", "positive", "0"]),
        (["--epochs=many"], ["--epochs", "many"]),
        (["--batch_size=-1"], ["--batch_size", "positive", "-1"]),
        (["--methods=dist", "--batch_size=1"], ["--batch_size", "at least 2 with dist", "=1"]),
        (["--kd_weight=2"], ["--kd_weight", "in [0, 1]", "=2"]),
        (["--methods=ttm+focal"], ["--methods", "ttm has no temperature"]),
        (["--learning_rate=0"], ["--learning_rate", "positive", "0"]),
        (["--weight_decay=-1"], ["--weight_decay", "at least 0", "-1"]),
        (["--validation_fraction=1"], ["--validation_fraction", "(0, 1)", "1"]),
        (["--train_examples=0"], ["--train_examples", "positive", "0"]),
        (["--generations=-1"], ["--generations", "from 0 to 1000", "-1"]),
        (["--generations=2147483648"], ["--generations", "from 0 to 1000"]),  # weights of 16 GiB
        (["--seed=-1"], ["--seed", "-1"]),
        (["--strategy=tpu"], ["--strategy", "mirrored", "tpu"]),
        (
            ["--export=none", "--author=A. Nt"],
            ["--author applies to --export=student, --export=ensemble. Received: --author=A. Nt"],
        ),
        (["--export=onnx"], ["--export", "student, ensemble, none", "onnx"]),
        (["--data_dir=absent"], ["--data_dir", "existing directory", "absent"]),
        (["--label=coarse_label"], ["--label", "left out for 'digits'", "=coarse_label"]),
        (["--dataset=cifar100", "--label=fine"], ["--label", "label, coarse_label", "=fine"]),
        (["--generation=2"], ["generation", "generations"]),
        (["digits"], ["digits", "--name=value"]),
        (["--flagfile=absent.flags"], ["absent.flags"]),
        (["--learning_rate=inf"], ["--learning_rate", "positive", "inf"]),
        (["--output_dir=" + "x" * 300], ["--output_dir", "too long"]),
        (["--model=resnet20", "--image_size=4"], ["--model", "4x4", "8x8"]),
        # What a line of config.flags cannot hold, or be printed.
        (["--output_dir=a\n--epochs=3"], ["one line of UTF-8", r"'--output_dir=a\n--epochs=3'"]),
        (["--output_dir=a\u2028b"], ["one line of UTF-8", r"a\u2028b"]),
        (["--dataset=\udcff"], ["one line of UTF-8", r"\udcff"]),
        (["--output_dir=a "], ["without spaces around it", "'--output_dir=a '"]),
        (["--" + "x" * 5000 + "=1"], ["too long for the name of a flag"]),
        (["--dataset=" + "x" * 300], ["--dataset must be digits, an existing folder"]),
        (["--data_dir=" + "x" * 300], ["--data_dir", "existing directory"]),
        (["--mixup=-1"], ["--mixup must be at least 0", "-1"]),
        (["--cutmix=nan"], ["--cutmix must be at least 0", "nan"]),
        (["--augmentation=photo"], ["--augmentation must be one of crop, photograph", "photo"]),
        (["--weights=imagenet"], ["--weights applies to networks of keras.applications"]),
        (["--freeze_epochs=1"], ["--freeze_epochs applies to networks that start from --weights"]),
        ([*TRAINED, "--freeze_epochs=-1"], ["--freeze_epochs must be at least 0"]),
        (
            [*TRAINED, "--epochs=3", "--freeze_epochs=4"],
            ["--freeze_epochs", "at most", "epochs, 3"],
        ),
        ([*TRAINED, "--backbone_learning_rate=0"], ["--backbone_learning_rate must be positive"]),
        ([*APPLICATION, "--weights=imagenet"], ["--weights applies to images of three channels"]),
        ([*APPLICATION, "--dataset=cifar10", "--weights=a.h5"], ["--weights must be imagenet, or"]),
    ],
    ids=lambda value: " ".join(value)[:40] if value[0].startswith("--") else None,
)
def test_mistake_is_one_line_and_status_2(arguments, parts, in_empty_directory, capsys):
    assert RECIPE.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    for part in ("born_again: ", *parts):
        assert part in captured.err
    assert list(in_empty_directory.iterdir()) == []


def test_methods_that_do_not_suit_the_network_leave_the_directory(
    in_empty_directory, capsys, monkeypatch
):
    # Tests share a process, in which operations stay as they are.
    monkeypatch.setattr("kdtoolkit.recipes._session.prepare_process", lambda flags: None)
    assert RECIPE.main(["--methods=fitnet", "--fitnet_layers=stage9:stage9"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--fitnet_layers" in line and "stage9" in line
    assert list(in_empty_directory.iterdir()) == []


def test_options_of_each_student():
    flags = _command.Flags()
    RECIPE.define(flags)
    flags.parse(["--generations=3", "--kd_weight=0.3,0.6,1", "--kd_temperature=2"])
    RECIPE.check(flags)
    expected = [(KD(0.3, 2.0),), (KD(0.6, 2.0),), (KD(1.0, 2.0),)]
    assert born_again._check_methods(flags, 10) == expected


def test_flag_files_that_are_none(tmp_path, capsys):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "bytes").write_bytes(b"--seed=\xff")
    (tmp_path / "itself").write_text(f"--flagfile={tmp_path / 'itself'}")
    (tmp_path / "within").write_text(f"--flagfile={tmp_path / 'fifo'}")
    (tmp_path / "zero").write_bytes(b"--dataset=a\0b")
    for name, part in {
        "fifo": "fifo cannot be read",
        "bytes": "bytes cannot be read",
        "itself": "itself reads itself",
        "within": "fifo cannot be read",
        "zero": "one line of UTF-8",
    }.items():
        assert RECIPE.main([f"--flagfile={tmp_path / name}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert part in line


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--head=neck"], ["--head", "bottleneck", "neck"]),
        (["--head_width=0"], ["--head_width", "positive", "0"]),
        (["--weights=imagenet"], ["--weights applies to networks of keras.applications"]),
        (["--primary_score=0.2"], ["--primary_score", "(1/5, 1]", "0.2"]),
        (["--teacher=absent"], ["--teacher", "a .keras file or a recipe's output", "absent"]),
        (["--kd_weight=2"], ["--kd_weight", "[0, 1]", "2"]),
        (["--methods=fitnet"], ["--methods must be those that compare logits", "fitnet"]),
        (["--embedding_weight=-1"], ["--embedding_weight", "at least 0", "-1"]),
        (["--embedding_weight=inf"], ["--embedding_weight", "at least 0", "inf"]),
        (["--distillation_weight=1"], ["--distillation_weight is now --kd_weight"]),
        (["--kd_temperature=0"], ["--kd_temperature", "positive"]),
        (["--max_accuracy_drop=1"], ["--max_accuracy_drop", "[0, 1)"]),
        (["--budget=2"], ["--budget", "(0, 1]", "2"]),
        (["--confidence=0.5"], ["--confidence", "applies to --certify", "0.5"]),
        (["--budget=0.9", "--max_accuracy_drop=0.1"], ["--max_accuracy_drop", "without --budget"]),
        (["--export=none", "--quantize=int8"], ["--quantize", "applies to --export=early_exit"]),
        (["--cost=joules"], ["--cost", "macs", "joules"]),
        (["--quantize=int4"], ["--quantize", "int8", "int4"]),
        (["--export=all"], ["--export", "early_exit", "all"]),
        (["--model=resnet9"], ["--model", "resnet9", "resnet8"]),
        # These need the network, and so TensorFlow; still nothing is written.
        (["--exits=stage1,stge2"], ["--exits", "stge2", "stage2"]),
        (["--exits=stage2,stage1"], ["--exits", "order", "stage2"]),
        (["--budget=0.01"], ["--budget", "0.447, the cost of exit_1 alone", "0.01"]),
        (["--budget=0.9", "--head_width=128"], ["--budget", "1.000, the cost of exit_3 alone"]),
        (["--exits=stage1,stage3"], ["--exits", "costs less than going on", "'stage3'"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else None,
)
def test_mistakes_in_self_distillation(arguments, parts, in_empty_directory, capsys, monkeypatch):
    # Tests share a process, in which operations stay as they are.
    monkeypatch.setattr("kdtoolkit.recipes._session.prepare_process", lambda flags: None)
    assert self_distillation.RECIPE.main(arguments) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    for part in ("self_distillation: ", *parts):
        assert part in error
    assert list(in_empty_directory.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--methods=kdd"], ["--methods", "kdd", "Near matches: kd"]),
        (["--methods=kd,kd"], ["--methods", "different", "kd,kd"]),
        (["--methods=plain+kd"], ["--methods", "plain"]),
        (["--methods=plan"], ["--methods", "plan", "matches: plain"]),
        (["--methods=focal+student_max"], ["--methods", "one of a kind", "temperature"]),
        (["--methods=self_distillation+fitnet"], ["--methods", "deepest exit"]),
        (["--method=kd", "--methods=plain"], ["--method ", "--methods", "both"]),
        (["--methods=kd,label_smooth", "--kd_temperature=2"], ["--kd_temperature", "label_smo"]),
        (["--kd_weight=2"], ["--kd_weight", "[0, 1]"]),
        (["--teacher=resnet21"], ["--teacher", "resnet20"]),
        (["--teacher=absent.keras"], ["--teacher", "a .keras file", "absent"]),
        (["--teacher=./absent"], ["--teacher", "output directory", "absent"]),
        (["--teacher=./" + "x" * 300], ["--teacher", "output directory"]),
        (["--teacher_input=unit"], ["--teacher_input", "normalized"]),
        (["--teacher_input=float"], ["--teacher_input", "bytes"]),
        (["--teacher_epochs=0"], ["--teacher_epochs", "positive"]),
        (["--teacher_seed=-1"], ["--teacher_seed", "-1"]),
        (["--methods=plain", "--teacher=resnet56"], ["--teacher", "methods that have a teacher"]),
        (["--methods=plain", "--teacher_seed=1"], ["--teacher_seed", "applies to a teacher"]),
        (["--teacher_weights=imagenet"], ["--teacher_weights applies", "--teacher=keras:NAME"]),
        (
            ["--teacher_freeze_epochs=1"],
            ["--teacher_freeze_epochs", "from --teacher_weights"],
        ),
        (["--method=plain", "--teacher_freeze_epochs=1"], ["--teacher_freeze_epochs applies"]),
        (["--student=resnet21"], ["--student", "resnet20"]),
        (["--peer=resnet8"], ["--peer", "mutual"]),
        (["--method=mutual", "--peer=resnet21"], ["--peer", "resnet20"]),
        (["--seeds=1,one"], ["--seeds", "integers", "one"]),
        (["--seeds=1,1"], ["--seeds", "different", "1,1"]),
        (["--seeds=1,2", "--seed=3"], ["--seed ", "left out", "3"]),
        (["--cache_teacher", "--views=0"], ["--views", "positive"]),
        (["--cache_teacher", "--mixup=1"], ["--mixup must be 0 with --cache_teacher", "1"]),
        (["--method=plain", "--cache_teacher"], ["--cache_teacher", "have a teacher"]),
        (["--method=fitnet", "--fitnet_layers=stage2"], ["--fitnet_layers", "STUDENT:TEACHER"]),
        (["--method=fitnet", "--fitnet_weight=-1"], ["--fitnet_weight", "at least 0"]),
        (["--fitnet_weight=5"], ["--fitnet_weight", "applies", "fitnet"]),
        (["--hint_weight=5"], ["--hint_weight is now --fitnet_weight"]),
        (["--attention_layers=a:b"], ["--attention_layers", "applies", "attention"]),
        (["--method=plain", "--kd_temperature=2"], ["--kd_temperature", "applies", "kd"]),
        (["--method=fitnet", "--kd_weight=0.5"], ["--kd_weight", "applies", "kd"]),
        (["--views=4"], ["--views", "applies", "--cache_teacher"]),
        (["--method=plain", "--teacher_epochs=4"], ["--teacher_epochs", "trained here"]),
        (["--method=rkd", "--batch_size=1"], ["--batch_size", "at least 2 with rkd", "=1"]),
        (["--method=dkd", "--dkd_warmup=1.5"], ["--dkd_warmup", "[0, 1]", "1.5"]),
        (["--method=reviewkd", "--reviewkd_warmup=2"], ["--reviewkd_warmup", "[0, 1]", "2"]),
        (["--export=all"], ["--export", "best", "all"]),
        (["--export=none", "--license=MIT"], ["--license", "applies to --export=best", "MIT"]),
        # These need the networks, and so TensorFlow; still nothing is written.
        (["--method=fitnet", "--fitnet_layers=stage2:stge"], ["--fitnet_layers", "stge", "stage"]),
        (["--method=fitnet", "--fitnet_layers=stage1:stage2"], ["--fitnet_layers", "height and"]),
        (["--method=attention", "--attention_layers=a:b"], ["--attention_layers=a", "resnet8"]),
        (["--method=embedding", "--teacher=wrn-16-2"], ["--methods", "64 of the student, 128 of"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else None,
)
def test_mistakes_in_distill(arguments, parts, in_empty_directory, capsys, monkeypatch):
    monkeypatch.setattr("kdtoolkit.recipes._session.prepare_process", lambda flags: None)
    assert distill.RECIPE.main(arguments) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    for part in ("distill: ", *parts):
        assert part in error
    assert list(in_empty_directory.iterdir()) == []


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "network.keras"
    models.build("resnet8", (8, 8, 1), 10).save(path)
    return path


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["--model", ".keras file"]),
        (["--model=absent.keras"], ["--model", "absent"]),
        (["--model=."], ["--model", "output directory"]),
        (["--sparsity=1"], ["--sparsity", "[0, 1)"]),
        (["--sparsity=-0.1"], ["--sparsity", "[0, 1)"]),
        (["--structure=blocks"], ["--structure", "channels", "blocks"]),
        (["--structure=2:4", "--sparsity=0.6"], ["--sparsity", "0.5", "2:4"]),
        (["--structure=2:4", "--threshold=global"], ["--threshold", "2:4"]),
        (["--importance=taylor"], ["--importance", "structure weights"]),
        (["--rounds=2"], ["--rounds", "structure weights"]),
        (["--structure=channels", "--target=macs"], ["--target", "macs=0.5, parameters"]),
        (["--structure=channels", "--target=ms=3.5"], ["--target", "ms=3.5ms"]),
        (["--structure=channels", "--target=macs=0.5", "--sparsity=0.5"], ["--target", "sparsity"]),
        (["--structure=channels", "--target=macs=0.001"], ["--target", "the smallest that"]),
        (["--threshold=model"], ["--threshold", "global"]),
        (["--quantize=int3"], ["--quantize", "int8", "int3"]),
        (["--quantize=int8,int8"], ["--quantize", "different"]),
        (["--quantize=mixed", "--max_accuracy_drop=2"], ["--max_accuracy_drop", "2"]),
        (["--max_accuracy_drop=0.02"], ["--max_accuracy_drop", "no mixed file"]),
        (["--structure=none", "--quantize=float32"], ["--quantize", "nothing is pruned"]),
        (["--structure=none", "--epochs=3"], ["--epochs applies to what is trained", "=3"]),
        (["--structure=none", "--kd_weight=0.3"], ["--kd_weight applies to what is trained"]),
        (["--structure=none", "--methods=plain"], ["--methods applies to what is trained"]),
        (["--calibration_images=0"], ["--calibration_images", "positive"]),
        (["--kd_weight=-1"], ["--kd_weight", "[0, 1]"]),
        (["--kd_temperature=0"], ["--kd_temperature", "positive"]),
        (["--methods=plain", "--kd_temperature=2"], ["--kd_temperature", "applies", "kd"]),
        (["--nodistill"], ["--nodistill is now --methods=plain"]),
        (["--model_input=float"], ["--model_input", "bytes"]),
        # These need the network, and so TensorFlow; still nothing is written.
        (["--exit=exit_1"], ["--exit", "multi-exit"]),
        (["--layers=stge2*"], ["--layers", "stge2"]),
        (["--layers=stge2*", "--structure=channels"], ["--layers", "stge2"]),
        (["--epochs=1", "--train_examples=20"], ["--epochs", "two steps"]),
        (["--image_size=9"], ["--model", "(9, 9, 1)"]),
    ],
    ids=lambda value: " ".join(value) if not value or value[0].startswith("--") else None,
)
def test_mistakes_in_compress(arguments, parts, network, in_empty_directory, capsys, monkeypatch):
    monkeypatch.setattr("kdtoolkit.recipes._session.prepare_process", lambda flags: None)
    if arguments and not arguments[0].startswith("--model="):
        arguments = [f"--model={network}", *arguments]
    assert compress.RECIPE.main(arguments) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    for part in ("compress: ", *parts):
        assert part in error
    assert list(in_empty_directory.iterdir()) == []


def test_home_directory_in_paths(network, tmp_path, monkeypatch):
    """Few shells expand `~` behind `=`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(network, tmp_path / "network.keras")
    images, labels = np.zeros((20, 8, 8, 1), np.uint8), np.arange(20) % 2
    np.savez(tmp_path / "d.npz", images=images, labels=labels)
    given, data = f"{tmp_path}/network.keras", "--dataset=~/d.npz"
    for recipe, flag in (
        *((compress, "model"), (shrink, "model")),
        *((distill, "teacher"), (self_distillation, "teacher")),
    ):
        flags, _ = recipe.RECIPE.parse([data, f"--{flag}=~/network.keras"])
        assert (flags[flag].value, flags.dataset) == (given, f"{tmp_path}/d.npz")
    flags, _ = analyze.RECIPE.parse([data, "--transfer_dataset=~/d.npz", "~/network.keras"])
    assert (flags.networks, flags.transfer_dataset) == ([given], flags.dataset)


def test_directory_of_a_smoke_run():
    for given in ("runs/a", "runs/a/", "runs/a-smoke", "runs/a-smoke/"):
        flags, _ = RECIPE.parse(["--smoke", f"--output_dir={given}"])
        assert flags.output_dir == "runs/a-smoke"


def test_two_of_four_of_six_channels(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("kdtoolkit.recipes._session.prepare_process", lambda flags: None)
    layers = keras.layers
    small = [layers.Conv2D(6, 3, name="first"), layers.Conv2D(8, 3, name="second")]
    ends = [layers.GlobalAveragePooling2D(), layers.Dense(10)]
    path = tmp_path / "network.keras"
    keras.Sequential([keras.Input((8, 8, 1)), *small, *ends]).save(path)
    flags = [f"--model={path}", f"--output_dir={tmp_path / 'run'}", "--structure=2:4"]
    assert compress.RECIPE.main(flags) == 2
    error = capsys.readouterr().err
    for part in ("compress: --structure", "second"):
        assert part in error
    assert not (tmp_path / "run").exists()


def test_teacher_that_is_no_classifier_of_these_classes(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("kdtoolkit.recipes._session.prepare_process", lambda flags: None)
    teacher = tmp_path / "teacher.keras"
    flags = [f"--teacher={teacher}", f"--output_dir={tmp_path / 'run'}"]
    teacher.write_text("weights")
    assert distill.RECIPE.main(flags) == 2
    assert "--teacher" in (error := capsys.readouterr().err)
    assert "is not a .keras file" in error
    models.build("resnet8", (8, 8, 1), 7).save(teacher)
    assert distill.RECIPE.main(flags) == 2
    assert "must tell 10 classes apart" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_last_batch_too_small_for_the_replicas(
    in_empty_directory, capsys, monkeypatch, two_replicas
):
    """301 images in batches of 50 leave one image for two replicas."""
    monkeypatch.setattr("kdtoolkit.recipes._session.prepare_process", lambda flags: None)
    monkeypatch.setattr(
        "kdtoolkit.training.distribution.strategy", lambda name: {"mirrored": two_replicas}[name]
    )
    flags = ["--strategy=mirrored", "--train_examples=301", "--batch_size=50"]
    assert RECIPE.main(flags) == 2
    error = capsys.readouterr().err
    for part in ("--batch_size", "at least 2 images", "leaves 1 of 301"):
        assert part in error
    assert list(in_empty_directory.iterdir()) == []


def test_config_that_is_no_file_is_not_waited_for(in_empty_directory, capsys):
    os.mkfifo(in_empty_directory / "config.flags")
    assert RECIPE.main([f"--output_dir={in_empty_directory}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--output_dir" in line and "Not a regular file" in line


def test_output_directory_that_is_a_file(in_empty_directory, capsys):
    (in_empty_directory / "taken").write_text("")
    assert RECIPE.main(["--output_dir=taken/run"]) == 2
    assert "--output_dir" in capsys.readouterr().err


def test_directory_of_another_run_is_refused_with_what_differs(in_empty_directory, capsys):
    run = in_empty_directory / "run"
    run.mkdir()
    (run / "config.flags").write_text(f"{HEAD}--epochs=3\n--seed=0\n--output_dir=elsewhere\n")
    assert RECIPE.main(["--output_dir=run", "--epochs=4"]) == 2
    error = capsys.readouterr().err
    assert "--epochs=3 there, --epochs=4 here" in error
    assert "--output_dir=elsewhere" not in error
    assert "--seed" not in error
    assert [path.name for path in run.iterdir()] == ["config.flags"]


def test_scores_compared_where_classes_are_known_later(tmp_path):
    """As of a data set that is still to be downloaded."""
    arguments = ["--dataset=beans", f"--data_dir={tmp_path}", "--image_size=32"]
    flags, _ = RECIPE.parse(arguments)
    assert flags.top_k is None
    born_again.check_classes(flags, 3)
    assert flags.top_k == "3"


def test_directory_of_version_0_1_is_refused(in_empty_directory, capsys):
    run = in_empty_directory / "run"
    run.mkdir()
    (run / "config.flags").write_text("--epochs=3\n--teacher_weight=0.6\n")
    assert RECIPE.main(["--output_dir=run", "--epochs=3"]) == 2
    error = capsys.readouterr().err
    assert "run of kdtoolkit 0.1" in error and "another directory" in error
    assert len(error.splitlines()) == 1


def test_directory_of_an_older_version_is_gone_on_with(in_empty_directory, capsys):
    """It knows fewer flags, and one that is no more: the next mistake is looked for."""
    run = in_empty_directory / "run"
    run.mkdir()
    (run / "config.flags").write_text(f"{HEAD}--gone=1\n--epochs=3\n")
    assert RECIPE.main(["--output_dir=run", "--epochs=3", "--top_k=4"]) == 2
    error = capsys.readouterr().err
    assert "--top_k= there, --top_k=4 here" in error
    assert "--seed" not in error
    assert "--gone" not in error


def test_directory_that_is_no_run_is_not_taken_over(in_empty_directory, capsys):
    (in_empty_directory / "mine").mkdir()
    (in_empty_directory / "mine" / "thesis.txt").write_text("")
    assert RECIPE.main(["--output_dir=mine"]) == 2
    assert "new or empty directory" in capsys.readouterr().err


def checked_flags(*arguments):
    """Flags of a born_again command, up to where it would write."""
    flags = _command.Flags()
    RECIPE.define(flags)
    flags(["born_again", *arguments])
    RECIPE.check(flags)
    flags.remember(arguments, contextlib.ExitStack())
    return flags


def test_directory_of_a_run_that_was_killed_at_its_first_file(in_empty_directory):
    run = in_empty_directory / "run"
    run.mkdir()
    (run / ".partial-00000000-config.flags").write_text("--epochs")
    flags = checked_flags("--output_dir=run")
    _command.check_output_dir(flags)
    assert [path.name for path in run.iterdir()] == [".partial-00000000-config.flags"]
    _command.claim_output_dir(flags)
    assert "--epochs=40" in (run / "config.flags").read_text()
    assert not list(run.glob(".partial-*"))
    flags.held.close()


def test_directory_in_use_is_refused_before_anything_is_written(in_empty_directory, capsys):
    flags = checked_flags("--output_dir=run")
    _command.claim_output_dir(flags)
    scratch = in_empty_directory / "run" / ".partial-00000000-network.keras"
    scratch.write_text("half")

    def state():
        return {p.name: p.stat().st_mtime_ns for p in (in_empty_directory / "run").iterdir()}

    def claim(*arguments):
        late = checked_flags(*arguments)
        with late.held:
            _command.claim_output_dir(late)

    before = state()
    # Another thread is held off as another process is.
    with ThreadPoolExecutor() as other:
        assert other.submit(RECIPE.main, ["--output_dir=run"]).result() == 2
        error = capsys.readouterr().err
        assert error.startswith("born_again: --output_dir=run is in use by another run")
        assert len(error.splitlines()) == 1
        # One that came while this one looked, or that now has other flags.
        with pytest.raises(_command.UsageError, match="in use by another run"):
            other.submit(claim, "--output_dir=run").result()
        assert state() == before
        flags.held.close()
        with pytest.raises(_command.UsageError, match="--seed=0 there, --seed=1 here"):
            other.submit(claim, "--output_dir=run", "--seed=1").result()
    assert state() == before


def test_directory_that_was_removed_meanwhile(in_empty_directory, capsys):
    def run(flags, checked):
        output_dir = _command.claim_output_dir(flags)
        shutil.rmtree(output_dir)
        digits = data.load("digits")
        return _session.finish("born_again", flags, output_dir, digits, {"generations": []})

    assert dataclasses.replace(RECIPE, run=run).main(["--output_dir=run"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert "run, or its .lock, was removed or replaced" in captured.err
    assert list(in_empty_directory.iterdir()) == []


def test_boolean_flags_differ_by_name(in_empty_directory, capsys):
    run = in_empty_directory / "run"
    run.mkdir()
    (run / "config.flags").write_text(f"{HEAD}--nobaseline\n")
    assert self_distillation.RECIPE.main(["--output_dir=run", "--baseline"]) == 2
    assert "--baseline=false there, --baseline=true here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ArgumentError("exits", "deep", ["a", "b"]), "--exits must be deep. Received: --exits=a,b"),
        (
            ArgumentError("at", "layers", Words("'a', which is none"), "See b.", must="name"),
            "--exits must name layers. Received: 'a', which is none. See b.",
        ),
        (
            ArgumentError("p", "above 0", -1.0, owner="kd"),
            "--kd_p must be above 0. Received: --kd_p=-1",
        ),
        (UnsuitableError("exits", None, "there are none"), "--exits: there are none"),
        (ArgumentError("network", "built", None), None),
    ],
)
def test_an_error_about_an_argument_names_its_flag(error, said):
    flags = _command.Flags()
    for name in ("exits", "kd_p"):
        flags.add("string", "", name, None, "")
    with pytest.raises(ValueError) as caught, _command.blaming_arguments(flags, at="exits"):
        raise error
    if said is None:  # it is no flag's
        assert caught.value is error
    else:
        assert type(caught.value) is _command.UsageError
        assert str(caught.value) == said


def test_data_flag_that_does_not_fit_is_named(in_empty_directory, capsys, monkeypatch):
    monkeypatch.setattr("kdtoolkit.recipes._session.prepare_process", lambda flags: None)
    assert RECIPE.main(["--train_examples=5000"]) == 2
    assert "born_again: --train_examples must be from 1 to 1294, the" in capsys.readouterr().err


def test_images_of_several_sizes(in_empty_directory, capsys, monkeypatch):
    monkeypatch.setattr("kdtoolkit.recipes._session.prepare_process", lambda flags: None)
    for name, size in (("cat", 9), ("dog", 12)):
        folder = in_empty_directory / "pets" / name
        folder.mkdir(parents=True)
        Image.fromarray(np.zeros((size, size, 3), np.uint8)).save(folder / "0.png")
    assert RECIPE.main(["--dataset=./pets"]) == 2
    error = capsys.readouterr().err
    assert "--image_size must be given: the images of './pets' have different sizes" in error


@pytest.mark.parametrize("arguments", [["--help"], ["--model=resnet21"]])
def test_help_and_mistakes_do_not_import_tensorflow(arguments):
    script = (
        "import sys\n"
        "from kdtoolkit.recipes.born_again import RECIPE\n"
        f"RECIPE.main({arguments})\n"
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras')))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 0


def test_import_of_the_package_is_light():
    script = (
        "import sys, kdtoolkit\n"
        "assert {'losses', 'models', 'training'} <= set(dir(kdtoolkit))\n"
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_help_has_groups_and_defaults(capsys):
    assert RECIPE.main(["--help"]) == 0
    text = capsys.readouterr().out
    for group in ("Data and network:", "Generations:", "Training:", "Output:"):
        assert group in text
    assert "--primary_score" in text
    assert "(default: 0.6)" in text


def test_flagfile_is_read_and_later_flags_win(in_empty_directory, capsys):
    (in_empty_directory / "row.flags").write_text("# a row\n--top_k=3\n--epochs=0\n")
    assert RECIPE.main(["--flagfile=row.flags"]) == 2
    assert "--epochs=0" in capsys.readouterr().err
    assert RECIPE.main(["--flagfile=row.flags", "--epochs=1", "--top_k=40"]) == 2
    assert "--top_k=40" in capsys.readouterr().err


def test_console_command_lists_and_dispatches(capsys):
    assert cli.main([]) == 0
    listed = capsys.readouterr().out
    for name, summary in cli.recipe_summaries().items():
        assert re.search(rf"^  {name} +{re.escape(summary)}$", listed, re.MULTILINE)
    assert cli.main(["born_agian"]) == 2
    assert "Near matches: born_again." in capsys.readouterr().err
    assert cli.main(["born_again", "--epochs=0"]) == 2
    assert "--epochs" in capsys.readouterr().err
