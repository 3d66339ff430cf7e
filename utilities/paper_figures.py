"""The paper's figures, from run folders."""

from dataclasses import replace

import numpy as np

from utilities.outcomes import by_settings, collect, mean_and_deviation
from utilities.pictures import STYLES, pyplot, save

SWEPT = {  # figure of the paper -> what it is drawn against, its axis, what every run in it has, and tells lines apart
    "fig1": (
        "initial_range",
        "radix point position (integer bits)",
        {"format": ("FXP",), "prop_bits": (31,), "up_bits": (31,)},
    ),
    "fig2": (
        "prop_bits",
        "bit-width of the propagations, without sign",
        {"format": ("FXP", "DFXP"), "up_bits": (31,)},
    ),
    "fig3": (
        "up_bits",
        "bit-width of the parameter updates, without sign",
        {"format": ("FXP", "DFXP"), "prop_bits": (31,)},
    ),
    "fig4": ("max_overflow", "maximum overflow rate (%)", {"format": ("DFXP",)}),
}


def sweep_lines(outcomes, key, common):
    """Lines of one of the paper's figures: {(task, epochs, words): [(x, mean, deviation, runs), ...]}, and FLP errors.

    y is the test error over that of FLP, trained as long on the same task; deviation is over the seeds.
    """
    groups = by_settings([o for o in outcomes if o.complete])
    flp = {
        (s.task, s.epochs, s.streams): np.mean([o.error for o in group])
        for s, group in groups.items()
        if s.format == "FLP"
    }
    lines, without = {}, set()
    for settings, group in groups.items():
        if any(getattr(settings, name) not in values for name, values in common.items()):
            continue
        baseline = flp.get((settings.task, settings.epochs, settings.streams))
        if baseline is None:
            without.add(settings.task)
            continue
        rest = replace(settings, **{key: 1 if key.endswith("bits") else 0})
        mean, deviation = mean_and_deviation([o.error / baseline for o in group])
        lines.setdefault(rest, []).append((getattr(settings, key), mean, deviation, len(group)))
    return {rest: sorted(points) for rest, points in lines.items() if len(points) > 1}, sorted(
        without
    )


def paper(folders, out, sample=False, names=tuple(SWEPT)):
    """The paper's figures (SPEC section 13) that there are runs for, out/fig1.png, .svg, ...; (paths, remarks)."""
    outcomes, remarks = collect(folders, sample)
    remarks += [
        f"{o.folder} was stopped after epoch {o.last['epoch']} of {o.epochs}, left out"
        for o in outcomes
        if not o.complete
    ]
    paths, plt = [], pyplot()
    for name in names:
        key, axis, common = SWEPT[name]
        lines, without = sweep_lines(outcomes, key, common)
        remarks += [f"{name}: no FLP run of {task}, as long, to compare with" for task in without]
        if not lines:
            remarks.append(f"{name}: there are not two runs to draw against the {axis}")
            continue
        figure, axes = plt.subplots(figsize=(6.0, 4.0), layout="constrained")
        scale = 100 if key == "max_overflow" else 1
        for i, (rest, points) in enumerate(lines.items()):
            colour, line, marker = STYLES[i % len(STYLES)]
            x, mean, deviation, _ = map(np.array, zip(*points, strict=True))
            axes.errorbar(
                x * scale,
                mean,
                deviation if deviation.any() else None,
                color=colour,
                linestyle=line,
                marker=marker,
                markersize=4,
                capsize=2,
                label=line_label(rest, key, lines),
            )
        axes.axhline(1, color="0.6", linewidth=0.8)
        # Errors of a network that learns nothing are so large that the rest would be a flat line.
        highest = max(mean for points in lines.values() for _, mean, _, _ in points)
        axes.set(
            xlabel=axis,
            ylabel="test error / test error of FLP",
            yscale="log" if highest > 5 else "linear",
        )
        for set_formatter in (
            (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter) if highest > 5 else ()
        ):
            set_formatter(plt.matplotlib.ticker.FormatStrFormatter("%g"))
        if highest > 5:
            axes.yaxis.set_minor_locator(plt.matplotlib.ticker.LogLocator(subs=(2, 5)))
        if key == "max_overflow":
            smallest = (
                min((x for points in lines.values() for x, *_ in points if x), default=1e-6) * scale
            )
            axes.set_xscale("symlog", linthresh=smallest)
        else:
            axes.xaxis.set_major_locator(plt.matplotlib.ticker.MaxNLocator(integer=True))
        axes.legend()
        files = [out / f"{name}{suffix}" for suffix in (".png", ".svg")]
        save(plt, figure, *files)
        paths += files
    return paths, remarks


def line_label(rest, key, lines):
    """What tells a line from the others of its figure: task, format, and the numbers in which they differ."""
    words = (
        [rest.task.replace("_", " "), rest.format]
        if len({r.task for r in lines}) > 1
        else [rest.format]
    )
    names = {
        "initial_range": "range",
        "prop_bits": "propagation bits",
        "up_bits": "update bits",
        "range_update_frequency": "update every",
        "max_overflow": "overflow",
        "init_epochs": "init epochs",
        "epochs": "epochs",
        "streams": "streams",
    }
    alike = [r for r in lines if r.format == rest.format]
    words += [
        f"{text} {getattr(rest, name)}"
        for name, text in names.items()
        if name != key and len({getattr(r, name) for r in alike}) > 1
    ]
    return ", ".join(words)
