"""What `self_distillation` ends with: the paper's table, what exits cost, and the files."""

from kdtoolkit.recipes import _report

_FILE_COLUMNS = {
    **_report.EXPORT_COLUMNS,
    "mean_exit_cost": ("mean cost", ".3f"),
    "full_milliseconds_per_image": ("full ms/image", ".3f"),
}


def show(flags, results):
    """Returns the text, from the flags and `results.json`."""
    alone = {name: 1 / speedup for name, speedup in results["speedups"].items()}
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
