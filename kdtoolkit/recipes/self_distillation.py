"""Trains a network whose deepest exit teaches the others, and packs it to stop early."""

import dataclasses
import sys

from kdtoolkit._checks import OneOf, check
from kdtoolkit.export.early_exit_options import (
    BUDGET,
    CERTIFY,
    CONFIDENCE,
    COST_UNIT,
    MAX_ACCURACY_DROP,
    QUANTIZATIONS,
)
from kdtoolkit.export.rows import early_exit_facts
from kdtoolkit.losses.strengths import TOP_K
from kdtoolkit.methods.ways import check_for_exits
from kdtoolkit.models.choices import HEADS
from kdtoolkit.recipes import (
    _command,
    _exit_tables,
    _flags,
    _outputs,
    _pretrained,
    _session,
    _smoke,
)
from kdtoolkit.recipes._command import blaming, blaming_arguments
from kdtoolkit.recipes._methods import MethodFlags

# Be Your Own Teacher's; its embedding's weight is the method's own.
METHODS = MethodFlags({"kd_weight": 0.3, "kd_temperature": 3.0})
_RENAMED = {
    "distillation_weight": "--kd_weight",
    "feature_weight": "--embedding_weight",
    "temperature": "--kd_temperature",
    "adjustment": "--methods=probability_shift+embedding or --methods=label_smooth+embedding",
    "dynamic_temperature": "--methods=focal+embedding or --methods=student_max+embedding",
    "temperature_slope": "--focal_slope or --student_max_slope",
}
_EXPORTS = ("early_exit", "none")


def _define(flags):
    _flags.define_data(flags)
    _flags.define_network(flags)
    _pretrained.define(flags, "Data and network", "model")
    group = "Self-distillation"
    flags.add(
        "list",
        group,
        "exits",
        None,
        "Names of the layers that get an exit, shallow to deep, separated by commas (default: the "
        "network's stages).",
    )
    flags.add("string", group, "head", "bottleneck", f"Of the exits: {' or '.join(HEADS.names)}.")
    flags.add(
        "integer",
        group,
        "head_width",
        None,
        "Channels inside the heads; the paper has 128 (default: each head's own, the widest of 128 "
        "to 8 that costs at most an eighth of the operations that stopping there saves).",
    )
    flags.add("boolean", group, "baseline", False, "Also train the network without exits.")
    flags.add(
        "boolean", group, "deep_supervision", False, "Also train the exits on the labels alone."
    )
    flags.add(
        "string",
        group,
        "teacher",
        None,
        "A network with the same exits, a .keras file or the output directory of this recipe: each "
        "of its exits teaches the same exit of the network too, by --methods.",
    )
    flags.add(
        "float",
        group,
        "primary_score",
        1.0,
        "The largest probability at the optimum of the labels' loss of every exit, in (1/5, 1]; "
        "below 1 that is a tolerant patriarch's, over the five largest scores.",
    )
    METHODS.define(flags, "kd+embedding", "How the deepest exit teaches the others")
    _flags.define_training(flags)
    group = "Early exit"
    flags.add(
        "float",
        group,
        "max_accuracy_drop",
        0.005,
        "Validation accuracy that stopping early may cost against the deepest exit, or the plain "
        "network where --baseline trains it and it is better, a fraction. It picks the cheapest "
        "operating point, and the cheapest network without exits that is exported.",
    )
    flags.add(
        "float",
        group,
        "budget",
        None,
        "Picks them by their cost in place of their accuracy: the most accurate whose mean cost is "
        "at most this fraction of the plain network's, which has no heads.",
    )
    flags.add(
        "float",
        group,
        "certify",
        None,
        "Picks in place of both the cheapest operating point of which no more than this share of "
        "decisions differs from the whole network's, on all images like these: half of the "
        "validation images find points, the other half tests them.",
    )
    flags.add("float", group, "confidence", 0.9, "With which that is so, in (0, 1).")
    flags.add(
        "string",
        group,
        "cost",
        "macs",
        "What costs are, relative to the plain network's: macs, or milliseconds measured on this "
        "machine.",
    )
    flags.add(
        "list",
        group,
        "quantize",
        "float32",
        f"Kinds of files, separated by commas: {', '.join(QUANTIZATIONS)}.",
    )
    _flags.define_output(flags)
    flags.add("string", "Output", "export", "early_exit", f"One of {', '.join(_EXPORTS)}.")


def _check(flags):
    if flags.teacher is None and flags.weights is None:
        _smoke.shrink(flags, "model", head_width=8)
    else:  # which fit their own network and data
        _smoke.shrink(flags, data=False, freeze_epochs=1)
    info = _flags.check_data(flags)
    family = _flags.check_network(flags, info)
    _pretrained.check(flags, info, family, "model")
    flags.require_one_of("head", HEADS.names)
    flags.require("head_width", flags.head_width is None or flags.head_width > 0, "positive")
    chosen = METHODS.parse(flags, flags.methods)
    METHODS.check(flags, chosen, info.classes)
    with blaming_arguments(flags):
        check_for_exits("methods", chosen)
    if flags.teacher is not None:
        _outputs.check_network(flags, "teacher")
    scores = min(TOP_K, info.classes or TOP_K)
    in_range = 1 / scores < flags.primary_score <= 1
    flags.require("primary_score", in_range, f"in (1/{scores}, 1]")
    in_range = flags.max_accuracy_drop in MAX_ACCURACY_DROP
    flags.require("max_accuracy_drop", in_range, MAX_ACCURACY_DROP)
    flags.require("budget", flags.budget is None or flags.budget in BUDGET, BUDGET)
    flags.require("certify", flags.certify is None or flags.certify in CERTIFY, CERTIFY)
    flags.require("confidence", flags.confidence in CONFIDENCE, CONFIDENCE)
    both = flags.certify is not None and flags.budget is not None
    flags.require("budget", not both, "left out beside --certify")
    flags.require_use(flags.certify is not None, "--certify", "confidence")
    alone = flags.certify is None and flags.budget is None
    accepted = "a run without --budget and --certify, which pick in its place"
    flags.require_use(alone, accepted, "max_accuracy_drop")
    flags.require_one_of("cost", COST_UNIT.names)
    _flags.check_export(flags, _EXPORTS)
    own = ("max_accuracy_drop", "budget", "certify", "cost", "quantize")
    flags.require_use(flags.export == "early_exit", "--export=early_exit", *own)
    flags.require("quantize", any(flags.quantize), "at least one kind")
    with blaming_arguments(flags):
        for kind in flags.quantize:
            check("quantize", kind, OneOf(QUANTIZATIONS))
    usual = _flags.usual_schedule(
        flags, family.schedule if flags.weights is None else _pretrained.SCHEDULE
    )
    _flags.check_training(flags, usual)
    _pretrained.check_epochs(flags, flags.epochs)
    _flags.default_output_dir(flags, RECIPE.name, flags.model, flags.seed)
    return usual


def _run(flags, usual):
    session = _session.Session(RECIPE.name, flags, usual)
    path = None if flags.teacher is None else _outputs.fetch(flags, "teacher")

    from kdtoolkit import models
    from kdtoolkit.training import evaluation

    data = session.data
    start = _pretrained.Start(flags, data, "model")
    teacher = None
    if path is not None:
        with session.compute.policy(), blaming("teacher"):
            teacher = _outputs.load(path)
            models.exit_names(teacher)  # says so where it has none
        _outputs.say_normalisation(flags, "teacher", path, data.preprocessing)
    builder = _Builder(flags, data.info, start.options, teacher)
    with blaming("exits"), blaming_arguments(flags, at="exits", mid="head_width"):
        example = builder.with_exits()
    _check_budget(flags, models.cut_costs(example))
    tests = flags.certify is None or len(data.validation) > 1
    flags.require("certify", tests, "left out where there is but one validation image")
    METHODS.check(flags, builder.methods, data.info.classes)
    with blaming_arguments(flags):
        builder.taught(example)
    session.begin()
    given = {}
    start.remember(session.output_dir, given)
    if path is not None:
        given["teacher"] = _outputs.remember(flags, "teacher", path, session.output_dir)
    costs = models.exit_costs(example)
    if session.is_chief:
        _say_dear(costs)

    def evaluate(name, network):
        on_test = evaluation.predict(network, data.test)
        on_validation = evaluation.predict(network, data.validation)
        return {"method": name, "exits": evaluation.exit_figures(*on_test, *on_validation)}

    networks, rows = session.train(builder.variants(), evaluate, start.transfer)
    network = networks["self_distillation"]
    alone = models.cut_costs(network)
    parts = {
        "given": given,
        "exits": list(rows.values()),
        "macs": models.macs(models.cut(network, list(alone)[-1])),
        "exit_costs": costs,
        "speedups": {name: 1 / cost for name, cost in alone.items()},
    }

    def package():
        made = _package(flags, session, network, networks.get("baseline"))
        parts["early_exit"] = dataclasses.asdict(made.choice)
        rows = [early_exit_facts(file, session.output_dir) for file in made.files]
        return rows + session.export(made.classifier, made.choice.alone)

    return session.finish(parts, package)


class _Builder:
    """Builds the networks of a run, and what trains them.

    Args:
        flags: of the run.
        info: of its data.
        options: of `models.build`.
        teacher: multi-exit network, or None.
    """

    def __init__(self, flags, info, options, teacher):
        self._flags, self._info, self._options, self._teacher = flags, info, options, teacher
        self.methods = METHODS.parse(flags, flags.methods)

    def variants(self):
        """Name -> a function that builds a network, and one that builds what trains it."""
        from kdtoolkit import training

        flags, own = self._flags, self._training()
        found = {}
        if flags.baseline:
            found["baseline"] = (
                self.plain,
                lambda: training.Patriarch(self.plain(), "plain", **own),
            )
        if flags.deep_supervision:
            found["deep_supervision"] = (
                self.with_exits,
                lambda: training.SelfDistillation(self.with_exits(), (), **own),
            )
        found["self_distillation"] = self.with_exits, lambda: self.taught(self.with_exits())
        return found

    def plain(self):
        from kdtoolkit import models

        info = self._info
        return models.build(self._flags.model, info.image_shape, info.classes, **self._options)

    def with_exits(self):
        from kdtoolkit import models

        flags = self._flags
        return models.add_exits(self.plain(), flags.exits, flags.head, flags.head_width)

    def taught(self, network):
        """What trains a network with exits by the methods that were asked for."""
        from kdtoolkit import training

        return training.SelfDistillation(
            network,
            self.methods,
            teacher=self._teacher,
            teacher_methods=self.methods,
            primary_score=self._flags.primary_score,
            **self._training(),
        )

    def _training(self):
        return {"weight_decay": self._flags.weight_decay, "seed": self._flags.seed}


def _package(flags, session, network, baseline):
    """Writes the files that stop early; returns what `package_early_exit` does."""
    from kdtoolkit import export

    with session.guarded(), blaming_arguments(flags, quantizations="quantize", cost_unit="cost"):
        return export.package_early_exit(
            network,
            session.data,
            session.output_dir / "export",
            baseline=baseline,
            quantizations=flags.quantize,
            max_accuracy_drop=flags.max_accuracy_drop,
            budget=flags.budget,
            cost_unit=flags.cost,
            certify=flags.certify,
            confidence=flags.confidence,
            keep_beaten=flags.smoke,  # whose figures mean nothing: it writes every file
            wide_heads_hint="--head_width sets their width",
            about=_flags.about(flags),
            before_file=session.before_file,
        )


def _check_budget(flags, alone):
    """Checks that a network cut at an exit keeps the budget, where costs are counted."""
    if flags.budget is not None and flags.cost == "macs":
        cheapest = min(alone, key=alone.get)
        accepted = f"at least {alone[cheapest]:.3f}, the cost of {cheapest} alone"
        flags.require("budget", flags.budget >= alone[cheapest], accepted)


def _say_dear(costs):
    """Says which exits, but for the deepest, save nothing."""
    dear = [f"{name} ({cost:.2f})" for name, cost in list(costs.items())[:-1] if cost >= 1]
    if dear:
        print(
            f"Stopping at {', '.join(dear)} costs as much as the plain network (1) or more: heads "
            "this wide teach, and save nothing; --head_width sets their width",
            file=sys.stderr,
        )


RECIPE = _command.Recipe(
    name="self_distillation",
    summary=__doc__.strip(),
    define=_define,
    check=_check,
    run=_run,
    show=_exit_tables.show,
    page=_exit_tables.page,
    renamed=_RENAMED,
)

if __name__ == "__main__":
    sys.exit(RECIPE.main())
