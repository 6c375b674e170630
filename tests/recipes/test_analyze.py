"""`analyze`: which networks of a directory it finds, what it says of them, and goes on with."""

import contextlib
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from kdtoolkit import analysis, data, files, models
from kdtoolkit.data import beside
from kdtoolkit.recipes import _analyses, _networks
from kdtoolkit.recipes import analyze as analyze_module
from kdtoolkit.recipes._command import UsageError
from kdtoolkit.recipes.analyze import RECIPE
from kdtoolkit.training import evaluation, record
from tests.report.browser import NEEDS_CHROMIUM, check_pages

DRAWN = True
IMAGES = 60


def write_run(directory, recipe, networks, flags="", **results):
    """A finished run as its recipe leaves it; networks by name."""
    for name, network in networks.items():
        (directory / name).mkdir(parents=True)
        network.save(directory / name / "network.keras")
        record.write(directory / name, {}, {"name": name})
    (directory / "config.flags").write_text(f"# kdtoolkit 0.2\n{flags}")
    files.write_record(directory / "results.json", {"recipe": recipe, **results})


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, digits):
    """Two generations, a network with exits beside its baseline, and a file."""
    keras.utils.set_random_seed(0)
    root = tmp_path_factory.mktemp("runs")
    plain = [models.build("resnet8", (8, 8, 1), 10) for _ in range(3)]
    names = [f"generation_{g}" for g in range(2)]
    rows = [{"generation": g} for g in range(2)]
    flags = "--methods=kd\n--kd_weight=0.6\n"
    write_run(
        root / "born",
        *("born_again", dict(zip(names, plain, strict=False)), flags),
        generations=rows,
    )
    exits = models.add_exits(models.build("resnet8", (8, 8, 1), 10), ["stage1", "stage2"], mid=4)
    both = {"baseline": plain[2], "self_distillation": exits}
    rows = [{"method": name} for name in both]
    write_run(root / "exits", "self_distillation", both, exits=rows)
    plain[2].save(root / "alone.keras")
    preprocessing = data.Preprocessing((8, 8, 1), [0.1], [0.7])  # of images that it was trained on
    beside.write(root / "alone.keras", preprocessing, digits.info.labels)
    return root


def analyze(runs, *arguments):
    with contextlib.chdir(runs):
        return RECIPE.main([f"--images={IMAGES}", *arguments])


ALL = ("born", "exits", "alone.keras", "--transfer_dataset=digits", "--output_dir=all")


@pytest.fixture(scope="module")
def analyzed(runs):
    assert analyze(runs, *ALL, "--sigmas=0,0.1") == 0
    return files.read_record(runs / "all" / "results.json")["analyses"]


def test_networks_are_found_by_name(runs):
    found = _networks.find([str(runs / "born"), str(runs / "alone.keras")], "--networks")
    assert [(x.name, x.teacher, x.weight) for x in found] == [
        ("born/generation_0", None, None),
        ("born/generation_1", "born/generation_0", 0.6),
        ("alone", None, None),
    ]
    (*_, last) = _networks.find([str(runs / "born")], "--networks")
    assert last.name == "generation_1" and last.sha256 == files.sha256(last.path)


def test_files_of_one_name_are_told_apart(runs, tmp_path):
    for name in ("n.keras", "n.zip"):
        shutil.copy(runs / "alone.keras", tmp_path / name)
    found = _networks.find([str(tmp_path / name) for name in ("n.keras", "n.zip")], "--networks")
    assert [network.name for network in found] == ["n", "n.zip"]


@pytest.mark.parametrize(
    ("flags", "weights"),
    [
        ("--methods=kd\n", [0.6, 0.6]),
        ("--methods=kd\n--kd_weight=0.5,0.7\n", [0.5, 0.7]),
        ("--methods=kd\n--kd_weight=0.5\n--kd_temperature=1\n", [0.5, 0.5]),
        ("--methods=kd\n--kd_temperature=1,4\n", [None, None]),
        ("--methods=kd+attention\n", [None, None]),
    ],
)
def test_weights_are_those_of_eqn_4_alone(flags, weights, runs, tmp_path):
    network = keras.models.load_model(runs / "alone.keras")
    networks = {f"generation_{g}": network for g in range(3)}
    rows = [{"generation": g} for g in range(3)]
    write_run(tmp_path / "run", "born_again", networks, flags, generations=rows)
    found = _networks.find([str(tmp_path / "run")], "--networks")
    assert [x.weight for x in found] == [None, *weights]


def test_students_of_distill_and_the_network_of_compress(runs, tmp_path):
    network = keras.models.load_model(runs / "alone.keras")
    rows = [{"method": "kd", "seed": seed} for seed in (1, 2)]
    students = {f"kd/seed_{seed}": network for seed in (1, 2)}
    write_run(tmp_path / "trained", "distill", {"teacher": network, **students}, methods=rows)
    write_run(tmp_path / "given", "distill", students, methods=rows)
    path = runs / "alone.keras"
    note = {"path": str(path), "sha256": files.sha256(path)}
    files.write_json(tmp_path / "given" / "teacher.json", note)
    write_run(tmp_path / "less", "compress", {"pruned": network}, network="pruned")
    for run in ("trained", "given"):
        teacher, *others = _networks.find([str(tmp_path / run)], "--networks")
        assert teacher.name == "teacher"
        assert [(x.name, x.teacher) for x in others] == [(name, "teacher") for name in students]
    assert (teacher.path, teacher.given_as) == (path, "auto")
    files.write_json(tmp_path / "given" / "teacher.json", {**note, "sha256": "of another"})
    assert [x.teacher for x in _networks.find([str(tmp_path / "given")], "-")] == [None, None]
    assert [x.name for x in _networks.find([str(tmp_path / "less")], "-")] == ["pruned"]


def test_ways_without_a_teacher_have_none(runs, tmp_path):
    network = keras.models.load_model(runs / "alone.keras")
    names = ("plain", "mutual", "self_distillation+focal", "kd+focal")
    students = {f"{name}/seed_0": network for name in names}
    rows = [{"method": name, "seed": 0} for name in names]
    write_run(tmp_path / "run", "distill", {"teacher": network, **students}, methods=rows)
    found = _networks.find([str(tmp_path / "run")], "--networks")
    assert {x.name: x.teacher for x in found if x.teacher} == {"kd+focal/seed_0": "teacher"}


def test_a_given_teacher_sees_the_pixels_that_it_taught_on(tmp_path, digits):
    """Of 0 to 1, and of another size: those that `distill` resized for it."""
    keras.utils.set_random_seed(2)
    image = keras.Input((4, 4, 1))
    teacher = keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(image)))
    teacher.save(tmp_path / "unit.keras")
    run, path = tmp_path / "run", tmp_path / "unit.keras"
    students = {"kd/seed_1": models.build("resnet8", (8, 8, 1), 10)}
    flags = "--teacher_input=unit\n"
    write_run(run, "distill", students, flags, methods=[{"method": "kd", "seed": 1}])
    files.write_json(run / "teacher.json", {"path": str(path), "sha256": files.sha256(path)})
    assert analyze(tmp_path, "run", "--only=energy", "--output_dir=new") == 0
    rows = files.read_record(tmp_path / "new" / "results.json")["analyses"]["energy"]["networks"]
    images, labels = digits.train.spread(IMAGES)
    x = tf.image.resize(images / np.float32(255), (4, 4))
    expected = analysis.true_score(teacher(x), labels)
    assert rows["teacher"]["true_score"] == pytest.approx(expected, rel=1e-4)


def test_numbers_are_those_of_the_library(runs, analyzed, digits):
    """Of images from all over a split, normalised as network.json says where it is there."""
    images, labels = digits.train.spread(IMAGES)
    scores = []
    for generation in range(2):
        network = keras.models.load_model(runs / f"born/generation_{generation}/network.keras")
        logits = network.predict(digits.preprocessing(images), verbose=0)
        scores.append(analysis.true_score(logits, labels))
    rows = [analyzed["energy"]["networks"][f"born/generation_{g}"] for g in range(2)]
    np.testing.assert_allclose([row["true_score"] for row in rows], scores, rtol=1e-4)
    closed = analysis.expected_true_scores(scores[0], [0.6])
    expected = [row["expected_true_score"] for row in rows]
    assert expected == [None, pytest.approx(closed[1], rel=1e-4)]
    network = keras.models.load_model(runs / "alone.keras")
    logits = network.predict((images / np.float32(255) - 0.1) / 0.7, verbose=0)
    found = analyzed["energy"]["networks"]["alone"]["true_score"]
    assert found == pytest.approx(analysis.true_score(logits, labels), rel=1e-4)
    test = data.Split(*digits.test.spread(IMAGES), digits.preprocessing)
    exits = keras.models.load_model(runs / "exits/self_distillation/network.keras")
    features = analysis.features_by_exit(exits, test)
    row = analyzed["exit_features"]["networks"]["exits/self_distillation"]
    ratio = analysis.scatter_ratio(features["exit_3"], test.labels)
    assert row["last_scatter"] == pytest.approx(ratio, rel=1e-3)
    logits = evaluation.predict(exits, test)[0]
    pair = analysis.teacher_agreement(logits["exit_3"], logits["exit_2"])
    row = analyzed["agreement"]["networks"]["exits/self_distillation"]
    assert row["agreement"] == pytest.approx(pair.share)


def test_every_analysis_has_numbers_or_says_why_not(analyzed):
    names = [f"born/generation_{g}" for g in range(2)]
    names += ["exits/baseline", "exits/self_distillation", "alone"]
    for result in analyzed.values():
        assert sorted([*result["networks"], *result["left_out"]]) == sorted(names)
        assert result["networks"]
    with_exits = analyzed["gradients"]
    assert list(with_exits["networks"]) == ["exits/self_distillation"]
    assert set(with_exits["left_out"].values()) == {"it has one exit"}
    assert analyzed["agreement"]["left_out"]["alone"] == "none of the networks taught it"


def test_page_and_table_show_all(runs, analyzed, capsys):
    page = (runs / "all" / "report.html").read_text()
    assert page.count("<svg") >= len(analyzed) + 1
    written = (runs / "all" / "config.flags").read_text()
    assert "--images=60" in written and "--strategy" not in written  # which it does not have
    for name in analyzed:
        assert f">{name.replace('_', ' ')}<" in page
    assert analyze(runs, *ALL, "--sigmas=0,0.1") == 0
    shown, said = capsys.readouterr()
    assert "finished on" in said
    for words in ("born/generation_1", "closed form", "gradients leaves out", "5 networks"):
        assert words in shown


@NEEDS_CHROMIUM
def test_page_in_a_browser(runs, analyzed, tmp_path):
    check_pages({runs / "all" / "report.html": len(analyzed) + 1}, tmp_path)


def test_goes_on_with_what_is_finished(runs, capsys):
    """Of a killed call each finished analysis stays, unless a network is another one now."""
    network = keras.models.load_model(runs / "alone.keras")
    network.save(runs / "changing.keras")
    arguments = ("changing.keras", "--output_dir=again")
    assert analyze(runs, *arguments, "--only=energy") == 0
    capsys.readouterr()
    kept = runs / "again" / "analysis" / "energy.json"
    before = kept.stat().st_mtime_ns
    (runs / "again" / "results.json").unlink()
    assert analyze(runs, *arguments, "--only=energy,second_choices") == 0
    said = capsys.readouterr().err
    assert "second_choices of 1" in said and "energy of" not in said
    assert kept.stat().st_mtime_ns == before
    network.layers[-1].bias.assign([3.0] * 10)
    network.layers[-1].kernel.assign(network.layers[-1].kernel * 2)
    network.save(runs / "changing.keras")
    assert analyze(runs, *arguments, "--only=energy") == 0
    assert "energy of 1" in capsys.readouterr().err
    kept.write_text("damaged")
    assert analyze(runs, *arguments, "--only=energy") == 0
    assert "energy of 1" in capsys.readouterr().err
    assert files.read_record(kept)["networks"]


@pytest.mark.parametrize(
    ("recipe", "why"), [("compress", "it trained no network"), ("shrink", "it is that of shrink")]
)
def test_directory_without_networks_says_why(recipe, why, tmp_path):
    (tmp_path / "run").mkdir()
    write_run(tmp_path / "run", recipe, {}, network=None)
    with pytest.raises(UsageError, match=f"ValueError: {why}"):
        _networks.find([str(tmp_path / "run")], "--networks")


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_noise_beyond_what_numbers_hold(runs, monkeypatch):
    """A loss that is not finite has no number in a record, and no point in a picture."""
    monkeypatch.chdir(runs)
    image = keras.Input((8, 8, 1))
    x = keras.layers.Dense(8)(keras.layers.Dense(8)(keras.layers.Flatten()(image)))
    keras.Model(image, keras.layers.Dense(10)(x)).save("dense.keras")
    flags = ["dense.keras", "--only=flatness", "--sigmas=0,1e25", "--output_dir=wild"]
    assert analyze(runs, *flags) == 0
    record = files.read_record(runs / "wild" / "analysis" / "flatness.json")
    calm, wild = (row["losses"] for row in record["networks"]["dense"]["noisy"])
    assert None not in calm and None in wild


def test_features_of_the_classes_that_are_there(monkeypatch):
    """The first ten of them, though few images may be looked at and all be of later classes."""
    random, labels = np.random.default_rng(0), np.arange(30) % 12 + 50
    found = {"exit_1": random.normal(size=(30, 4)), "exit_2": random.normal(size=(30, 4))}
    monkeypatch.setattr(analysis, "features_by_exit", lambda network, split: found)
    split = data.Split(np.zeros((30, 2, 2, 1), np.uint8), labels, None)
    subject = _analyses.Subject(None, "with exits", "deepest", {"test": split})
    numbers = _analyses.plain(_analyses._exit_features(None, subject))
    assert sorted(set(numbers["labels"])) == list(range(50, 60))
    (figure,) = _analyses._exit_features_pictures({"one": numbers}).values()
    assert [len(axes.lines) for axes in figure.axes] == [10, 10]


def test_groups_come_from_the_data(monkeypatch):
    """Of the test images, which must be the same ones in the same order by both labels."""
    random = np.random.default_rng(0)
    x, fine = random.integers(0, 256, (12, 4, 4, 1), np.uint8), np.arange(12) % 4
    coarse, asked = fine // 2, {}

    def loaded(labels, order=slice(None)):
        test = x[order], labels[order]
        return data.from_arrays(x, labels, test_data=test, validation_fraction=0)

    def load(name, data_dir, **options):
        asked.update(options)
        return loaded(coarse, order)

    monkeypatch.setattr("kdtoolkit.data.load", load)
    flags = RECIPE._defined([])
    flags(["", "--group_label=coarse", "--train_examples=7"])
    order = slice(None)
    np.testing.assert_array_equal(analyze_module._groups(flags, loaded(fine)), [0, 0, 1, 1])
    assert (asked["label"], asked["train_examples"]) == ("coarse", 7)
    order = slice(None, None, -1)
    with pytest.raises(UsageError, match="another order"):
        analyze_module._groups(flags, loaded(fine))
    flags.group_label = None
    assert analyze_module._groups(flags, loaded(fine)) is None


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["--networks", "given"]),
        (["absent"], ["--networks", "a .keras file or a recipe's output directory", "absent"]),
        (["text.keras"], ["--networks", "a .keras file", "text.keras"]),
        (["."], ["--networks", "not the output directory of a finished born_again"]),
        (["alone.keras", "./alone.keras"], ["--networks", "different", "twice"]),
        (["alone.keras", "--only=energi"], ["--only", "energi", "energy"]),
        (["alone.keras", "--images=0"], ["--images", "positive", "0"]),
        (["alone.keras", "--sigmas=0,-1"], ["--sigmas", "at least 0", "-1"]),
        (["alone.keras", "--sigmas=a"], ["--sigmas", "numbers", "a"]),
        (["alone.keras", "--group_label=coarse_label"], ["--group_label", "digits"]),
        (["alone.keras", "--transfer_dataset=cifra10"], ["--transfer_dataset", "cifar10"]),
        (["alone.keras", "--strategy=mirrored"], ["strategy"]),
        (["alone.keras", "--seed=-1"], ["--seed", "-1"]),
    ],
)
def test_mistake_is_one_line(arguments, parts, runs, capsys, monkeypatch):
    monkeypatch.chdir(runs)
    monkeypatch.setattr(analyze_module._session, "load", None)  # what is said before data are read
    (runs / "text.keras").write_text("no archive")
    assert RECIPE.main(arguments) == 2
    shown, said = capsys.readouterr()
    assert not shown and said.count("\n") == 1
    for part in parts:
        assert part in said
    assert not (runs / "saved_models").exists()


def test_network_of_other_images_is_one_line(runs, capsys, monkeypatch):
    monkeypatch.chdir(runs)
    models.build("resnet8", (8, 8, 1), 3).save("three.keras")
    assert RECIPE.main(["three.keras"]) == 2
    assert "10 classes" in capsys.readouterr().err


def test_mistakes_are_found_without_tensorflow(runs):
    code = (
        "import sys; from kdtoolkit.recipes.analyze import RECIPE; "
        "status = RECIPE.main(['born', '--only=energi']); "
        "assert not {'tensorflow', 'keras', 'sklearn'} & set(sys.modules); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=runs, env=_environment())
    assert done.returncode == 2


def _environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
