"""The tables of a benchmark's report."""

from utilities.benchmark_processes import PEERS


def markdown(report):
    """The report's tables: speed, what checkpoints cost, and what runs gain by being trained together."""
    lines = [
        "| task | format | ms a batch | ms a test image | to the floor | to the format before | first batch (again), s "
        "| peak, GiB | PyTorch eager, ms | compiled, ms | QPyTorch, ms | fastest / ours |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]

    def times(values, digits=1):
        return "{median:.{d}f} ({min:.{d}f} - {max:.{d}f})".format(**values, d=digits)

    for result in report["results"]:
        for name, row in result["formats"].items():
            before = next((row[key] for key in ("to_FLP", "to_FXP") if key in row), None)
            measured = {v: p for v, p in row["peers"].items() if "ms_per_batch" in p}
            cells = [times(measured[v]["ms_per_batch"]) if v in measured else "" for v in PEERS]
            fastest = min(
                (p["to_ours"] for p in measured.values()), key=lambda r: r["median"], default=None
            )
            lines.append(
                "| "
                + " | ".join(
                    [
                        result["task"],
                        name,
                        times(row["ms_per_batch"]),
                        f"{row['ms_per_test_image']['median']:.3f}",
                        f"{row['to_floor']['median']:.2f}",
                        f"{before['median']:.2f}" if before else "",
                        "{:.1f} ({:.1f})".format(*row["to_first_batch_s"]),
                        f"{row['peak_GiB']:.2f}",
                        *cells,
                        times(fastest, 2) if fastest else "",
                    ]
                )
                + " |"
            )
    lines += [
        "",
        "| task | format | checkpoint copied, s | written, s | of the time, % |",
        "|---|---|---|---|---|",
    ]
    for result in report["results"]:
        for name, row in result["formats"].items():
            copied, written = (row["checkpoint"][what]["median"] for what in ("copy_s", "write_s"))
            # As if training stood still while it is written, too.
            share = 100 * (copied + written) / row["checkpoint"]["every_s"]
            lines.append(
                f"| {result['task']} | {name} | {copied:.3f} | {written:.3f} | {share:.2f} |"
            )
    teams = [
        (result["task"], name, row["together"])
        for result in report["results"]
        for name, row in result["formats"].items()
        if "together" in row
    ]
    if teams:
        lines += [
            "",
            "| task | format | runs | one after the other, ms a batch and run | together, ms | gain |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {task} | {name} | {row['runs']} | {times(row['alone_ms'])} | {times(row['together_ms'])} | "
            f"{times(row['gain'], 2)} |"
            for task, name, row in teams
        ]
    rows = [
        (result["task"], row) for result in report["results"] for row in result.get("layers", ())
    ]
    if rows:
        lines += [
            "",
            "| task | layer | product | ours, ms | BLAS, ms | ratio |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {task} | {row['layer']} | {row['product']} | {times(row['ours_ms'])} | {times(row['blas_ms'])} | "
            f"{times(row['to_blas'], 2)} |"
            for task, row in rows
        ]
    return "\n".join(lines) + "\n"
