"""What `self_distillation` ends with: the paper's table, what exits cost, and the files."""

from kdtoolkit import files, report
from kdtoolkit.recipes import _report

_FILE_COLUMNS = {
    **_report.EXPORT_COLUMNS,
    "mean_exit_cost": ("mean cost", ".3f"),
    "full_milliseconds_per_image": ("full ms/image", ".3f"),
}


def show(flags, results):
    """Returns the text, from the flags and `results.json`."""
    alone = _alone(results)
    lines = [
        f"\n{flags.model} on {flags.dataset}, {len(alone)} exits, {flags.epochs} epochs, "
        f"seed {flags.seed} (one run): test accuracy\n",
        _report.table(*_paper_table(results["exits"], list(alone))),
        "\nMultiply-accumulates of stopping at an exit, the plain network without heads "
        f"({results['macs']:,}) = 1\n",
        _report.table(*_cost_table(alone, results["exit_costs"])),
        _report.exports_table(results, flags.output_dir, _FILE_COLUMNS),
    ]
    for row in results["exports"]:
        if "not_compared" in row:
            lines.append(
                f"{row['path']} is right, and not compared with the whole network in a file of the "
                f"same kind, which is wrong: {row['not_compared']}"
            )
    if "early_exit" in results:
        lines.append(results["early_exit"]["verdict"])
    return "\n".join(lines)


def page(flags, results, directory):
    """Returns title and sections of the run's page."""
    from kdtoolkit.report import pictures

    alone = _alone(results)
    curves = {
        row["method"].replace("_", " "): [
            (cost, row["exits"][name]["test_accuracy"]) for name, cost in alone.items()
        ]
        for row in results["exits"]
        if "network" not in row["exits"]
    }
    plain = {
        row["method"]: (1.0, row["exits"]["network"]["test_accuracy"])
        for row in results["exits"]
        if "network" in row["exits"]
    }
    label = "multiply-accumulates, plain network without heads = 1"
    parts = [
        report.Table.of(*_paper_table(results["exits"], list(alone))),
        report.Table.of(*_cost_table(alone, results["exit_costs"])),
        report.Picture(
            pictures.accuracy_against_cost(curves, plain, label),
            "Test accuracy of the network cut at each exit, against what that costs.",
        ),
    ]
    sections = [report.Section("Exits", parts), *_early_exit(results, directory)]
    return f"{flags['model']} with exits on {flags['dataset']}", sections


def _early_exit(results, directory):
    """What stopping early gains, from the curve that the run left."""
    path = directory / "export" / "early_exit.json"
    if "early_exit" not in results or not path.is_file():
        return
    from kdtoolkit.report import pictures

    found = files.read_json(path)
    points, certified = found["operating_points"], found["certificate"] is not None
    stopping = "certified operating points" if certified else "operating points"
    curves = {stopping: [(row["test_cost"], row["test_accuracy"]) for row in points]}
    marked = {one["name"]: (one["cost"], one["test_accuracy"]) for one in found["alone"]}
    if found["operating_point"] is not None:
        chosen = points[found["operating_point"]]
        marked["chosen"] = (chosen["test_cost"], chosen["test_accuracy"])
    label = f"mean cost of an image ({found['cost_unit']}, plain network without heads = 1)"
    drawn = pictures.accuracy_against_cost(curves if points else {}, marked, label)
    caption = (
        "Test accuracy against mean cost: images that stop when they are sure, and the network cut "
        "at one exit for all of them. Points were found on validation images."
    )
    parts = [results["early_exit"]["verdict"], report.Picture(drawn, caption)]
    yield report.Section("Early exit", parts)


def _alone(results):
    """Exit -> what the network cut there costs, relative to the plain one."""
    return {name: 1 / speedup for name, speedup in results["speedups"].items()}


def _paper_table(rows, exits):
    """Rows and columns as the paper prints them: a method a row, an exit a column."""
    count = len(exits)
    columns = {"method": ("method", "")}
    columns |= {name: (f"{k}/{count}", ".2%") for k, name in enumerate(exits, start=1)}
    columns |= {"ensemble": ("ensemble", ".2%"), "seconds": ("seconds", ".0f")}
    table = []
    for row in rows:
        accuracies = {name: figures["test_accuracy"] for name, figures in row["exits"].items()}
        if "network" in accuracies:  # the baseline has one output, as deep as the last exit
            accuracies[exits[-1]] = accuracies.pop("network")
        method = row["method"].replace("_", " ")
        table.append({"method": method, "seconds": row["seconds"], **accuracies})
    return table, columns


def _cost_table(alone, behind):
    """Rows and columns: what exits cost on their own, and behind the heads before them."""
    columns = {"run": ("run", "")}
    columns |= {name: (f"{k}/{len(alone)}", ".3f") for k, name in enumerate(alone, start=1)}
    return [{"run": "cut there", **alone}, {"run": "with the heads before it", **behind}], columns
