"""Figures of ./kvarn eval's report, each as the text of an SVG that can stand in an HTML page.

A figure has one panel a (model, text) and regime; the same cache has the same colour and marker in all of them.
"""

import io
import math
import re

import matplotlib

matplotlib.use("Agg")
matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text: smaller, and it can be searched
from matplotlib import pyplot, ticker  # pylint: disable=wrong-import-position  # after the choice of a backend without a screen

LEVEL_COLOURS = ["#1764ab", "#e6740b", "#2a8c3c", "#8a4fae"]
BASELINE_COLOUR = "#4d4d4d"
HOST_COLOUR = "#9a9a9a"
# One colour a cache, from the widest to the narrowest codes, for figures in which every cache is a line.
LEVEL_LINES = ["-", "--", "-.", (0, (1, 1.5))]
LINE_COLOURS = ["#0b3c6f", "#1f77b4", "#17a2b8", "#2a8c3c", "#8fb022", "#e0a100", "#e6740b", "#c8301a", "#7a1f5c", "#b36ad1"]
PIXELS_PER_INCH = 92  # of the page: two panels fill its width
SMALLEST_KLD = 1e-7  # what is below lies on the axis


def is_exact(row):
    return row["codec"] == "f16"


def is_host(row):
    return row["codec"].startswith("host ")


def regime_title(row):
    if row["sink"] is None:
        return None
    if row["tail"] == "none":
        return "no exact tokens" if row["sink"] == 0 else f"first {row['sink']} tokens exact"
    return f"first {row['sink']} and last {row['tail']} tokens exact"


def panels(rows):
    """{(model, text, regime): rows}, in the order of the file; rows that no regime touches stand in every panel of their text."""
    found = {}
    for row in rows:
        if regime_title(row):
            found.setdefault((row["model"], row["text"], regime_title(row)), [])
        elif not any(key[:2] == (row["model"], row["text"]) for key in found):
            found.setdefault((row["model"], row["text"], ""), [])
    named = {key[:2] for key in found if key[2]}
    found = {key: value for key, value in found.items() if key[2] or key[:2] not in named}
    for row in rows:
        for key, panel in found.items():
            if key[:2] == (row["model"], row["text"]) and regime_title(row) in (None, key[2]):
                panel.append(row)
    return found


def grid(count, width=6.4, height=4.4):
    columns = min(2, count)
    lines = math.ceil(count / columns)
    figure, axes = pyplot.subplots(lines, columns, figsize=(width * columns, height * lines), squeeze=False, layout="constrained")
    for unused in axes.flat[count:]:
        unused.set_visible(False)
    return figure, list(axes.flat[:count])


def add_legend(figure, all_axes, order=None):
    """One legend of all panels, below them: as many names beside each other as fit, in this order or that of drawing."""
    handles = {}
    for axes in all_axes:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels())))
    names = [name for name in order or handles if name in handles]
    width, height = figure.get_size_inches()
    name_width = 0.55 + 0.075 * max(map(len, names))  # the line before it, and letters of nine points
    columns = min(len(names), max(1, int(width / name_width)))
    reserved = 0.3 * math.ceil(len(names) / columns) + 0.15
    figure.set_size_inches(width, height + reserved)
    figure.get_layout_engine().set(rect=(0, reserved / (height + reserved), 1, height / (height + reserved)))
    figure.legend([handles[name] for name in names], names, loc="lower center", ncol=columns, fontsize=9, frameon=False)


def svg_text(figure, name):
    """The figure without what only a file of its own needs. Names inside are made from `name`: a page holds several figures."""
    matplotlib.rcParams["svg.hashsalt"] = name
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg"):], flags=re.S)
    width = f'style="max-width: {figure.get_figwidth() * PIXELS_PER_INCH:.0f}px"'
    return re.sub(r'<svg([^>]*?) height="[^"]*"([^>]*?) width="[^"]*"|<svg([^>]*?) width="[^"]*"([^>]*?) height="[^"]*"',
                  lambda match: f"<svg {width}" + "".join(part or "" for part in match.groups()), text, count=1)


def title_of(axes, key):
    model, text, regime = key
    axes.set_title(f"{model} on {text}" + (f"\n{regime}" if regime else ""), fontsize=10)


def log_axis(axes):
    axes.set_yscale("log")
    plain = ticker.FuncFormatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(plain)
    low, high = axes.get_ylim()
    few_decades = high / low < 30  # then the decades alone would leave an axis with one number or none
    axes.yaxis.set_minor_formatter(plain if few_decades else ticker.NullFormatter())
    axes.tick_params(axis="both", which="both", labelsize=8)
    axes.grid(True, which="major", linewidth=0.5, color="0.85")
    axes.grid(True, which="minor", axis="y", linewidth=0.3, color="0.93")
    axes.set_axisbelow(True)


def series_of(row):
    """What a line of the picture of bytes joins: the level, and what fields take where that is not what is usual."""
    return f"KVarN, {row['level']}" + (", fields of a byte" if ":fields=byte" in row["cache"] else "")


def point_name(row):
    """The widths, and the length of a tile where one is named; the rest is in the legend."""
    parts = row["cache"].split("@")[0].removeprefix("host ").split(":")
    return ", ".join(parts[:1] + [part.removeprefix("tile=") for part in parts[1:] if part.startswith("tile=")])


def draw_points(axes, rows, style, named):
    """Points with intervals; those with equal widths for keys and values are joined. Widths in `named` have their names already."""
    label, colour, marker, line = style
    rows = sorted(rows, key=lambda row: row["record_bits_per_value"])
    bits = [row["record_bits_per_value"] for row in rows]
    means = [max(row["mean_kld"], SMALLEST_KLD) for row in rows]
    below = [mean - min(mean, max(row["mean_kld_low"], SMALLEST_KLD)) for mean, row in zip(means, rows)]
    above = [max(row["mean_kld_high"] - mean, 0) for mean, row in zip(means, rows)]
    axes.errorbar(bits, means, yerr=[below, above], fmt=marker, color=colour, markersize=6, capsize=2.5, linewidth=1.2, label=label, zorder=3)
    even = [(bit, mean) for bit, mean, row in zip(bits, means, rows) if row["k_bits"] == row["v_bits"]]
    axes.plot([bit for bit, _ in even], [mean for _, mean in even], color=colour, linewidth=1.2, linestyle=line, alpha=0.7)
    for bit, mean, row in zip(bits, means, rows):
        name = point_name(row)
        if name in named:
            continue
        named.add(name)
        axes.annotate(name, (bit, mean), textcoords="offset points", xytext=(6, 5), fontsize=8,
                      color=colour)


def pareto(rows):
    found = panels(rows)
    figure, all_axes = grid(len(found))
    series = list(dict.fromkeys(series_of(row) for row in rows if row["codec"] == "kvarn"))
    for (key, panel), axes in zip(found.items(), all_axes):
        named = set()
        for index, one in enumerate(series):
            ours = [row for row in panel if row["codec"] == "kvarn" and series_of(row) == one]
            draw_points(axes, ours, (one, LEVEL_COLOURS[index % len(LEVEL_COLOURS)], "o", "-"), named)
        baselines = [row for row in panel if row["codec"] not in ("kvarn", "f16") and not is_host(row)]
        if baselines:
            draw_points(axes, baselines, ("ggml's codecs in the same cache", BASELINE_COLOUR, "s", "--"), named)
        host = [row for row in panel if is_host(row) and row["k_bits"] < 16]
        if host:
            draw_points(axes, host, ("llama.cpp's own caches", HOST_COLOUR, "D", "--"), set())
        for row in panel:
            if is_exact(row):
                axes.axhline(max(row["mean_kld"], SMALLEST_KLD), color="0.35", linestyle=":", linewidth=1.2, label="noise floor (exact tiles)")
        log_axis(axes)
        axes.margins(x=0.08, y=0.1)
        axes.set_xlabel("bits per sealed value, metadata included")
        axes.set_ylabel("mean KL divergence, nats")
        title_of(axes, key)
    add_legend(figure, all_axes)
    return svg_text(figure, "pareto")


def line_styles(rows):
    """Colour and line style by cache. KVarN: a colour for each pair of widths, widest first, a line style for each level. Others: grey."""
    caches = {row["cache"]: row for row in sorted(rows, key=lambda row: -row["record_bits_per_value"])}
    ours = {cache: row for cache, row in caches.items() if row["codec"] == "kvarn"}
    widths = list(dict.fromkeys((row["k_bits"], row["v_bits"]) for row in ours.values()))
    levels = list(dict.fromkeys(row["level"] for row in ours.values()))
    styles = {}
    for cache, row in ours.items():
        place = widths.index((row["k_bits"], row["v_bits"])) * (len(LINE_COLOURS) - 1) // max(1, len(widths) - 1)
        styles[cache] = {"color": LINE_COLOURS[place], "linestyle": LEVEL_LINES[levels.index(row["level"]) % len(LEVEL_LINES)], "linewidth": 1.7}
    greys = [cache for cache in caches if cache not in ours]
    for index, cache in enumerate(greys):
        shade = str(0.15 + 0.55 * index / max(1, len(greys) - 1))
        styles[cache] = {"color": shade, "linestyle": ":" if cache == "f16" else "--", "linewidth": 1.3}
    return styles


def lines(rows, name, curve, labels):
    """One line a cache; curve(row) gives its points or None, labels are (x, y)."""
    rows = [row for row in rows if curve(row) and not (is_host(row) and row["k_bits"] == 16)]
    if not rows:
        return None
    found = panels(rows)
    styles = line_styles(rows)
    figure, all_axes = grid(len(found))
    for (key, panel), axes in zip(found.items(), all_axes):
        for row in panel:
            points = curve(row)
            axes.plot([point[0] for point in points], [max(point[1], SMALLEST_KLD) for point in points], label=row["cache"],
                      marker="o", markersize=3, **styles[row["cache"]])
        log_axis(axes)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        title_of(axes, key)
    add_legend(figure, all_axes, styles)
    return svg_text(figure, name)


def ranges_curve(ranges):
    return [((part["first"] + part["last"]) / 2, part["mean_kld"]) for part in ranges] if ranges else None


def position(rows):
    return lines(rows, "position", lambda row: ranges_curve(row.get("kld_by_position")), ("position in the text, tokens", "mean KL divergence, nats"))


def layers(rows):
    return lines(rows, "layers", lambda row: row.get("layers"), ("layer", "relative RMS error of attention's output"))


def free_run(rows):
    return lines(rows, "drift", lambda row: ranges_curve(row.get("free_run", {}).get("ranges")),
                 ("tokens written", "mean KL divergence, nats"))
