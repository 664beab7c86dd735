"""Plots the file of ./kvarn bench attention: time against the number of keys, one panel for every shape and number of queries.

Both axes are logarithmic: a line with the slope of the grid is an attention that costs the same for every key. Bands reach from the
fastest to the slowest round; a dotted line of the same colour is the limit of the machine for that cache.
"""

import argparse
import json
import math
import sys

import matplotlib

matplotlib.use("Agg")
matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text: smaller, and it can be searched
from matplotlib import pyplot, ticker  # pylint: disable=wrong-import-position  # after the choice of a backend without a screen

HOST_COLOURS = {"host f16": "0.1", "host q8_0": "0.4", "host q5_0": "0.55", "host q4_0": "0.7"}
OUR_COLOURS = ["tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink", "tab:olive"]
HOST_MARKERS = {"host f16": "s", "host q8_0": "^", "host q5_0": "v", "host q4_0": "D"}


def panels(results):
    """{(heads, kv_heads, dim, queries): {preset: rows by keys}}, in the order of the file."""
    found = {}
    for row in results:
        panel = found.setdefault((row["heads"], row["kv_heads"], row["dim"], row["queries"]), {})
        panel.setdefault(row["preset"], []).append(row)
    for panel in found.values():
        for rows in panel.values():
            rows.sort(key=lambda row: row["keys"])
    return found


def draw(axes, key, panel, colours):
    heads, kv_heads, dim, queries = key
    for preset, rows in panel.items():
        keys = [row["keys"] for row in rows]
        is_host = preset in HOST_COLOURS
        axes.plot(keys, [row["milliseconds"] for row in rows], color=colours[preset], label=preset,
                  linestyle="--" if is_host else "-", marker=HOST_MARKERS.get(preset, "o"), markersize=4, linewidth=1.2 if is_host else 2)
        axes.fill_between(keys, [row["min_milliseconds"] for row in rows], [row["max_milliseconds"] for row in rows],
                          color=colours[preset], alpha=0.12, linewidth=0)
        if not is_host:
            axes.plot(keys, [row["limit_milliseconds"] for row in rows], color=colours[preset], linestyle=":", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda keys, _: f"{keys / 1024:g}K" if keys >= 1024 else f"{keys:g}"))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda milliseconds, _: f"{milliseconds:g}"))
    axes.grid(True, which="major", linewidth=0.4)
    axes.set_title(f"{heads} heads, {kv_heads} KV heads, dim {dim}, {queries} {'query' if queries == 1 else 'queries'}", fontsize=10)
    axes.set_xlabel("keys")
    axes.set_ylabel("milliseconds of one layer")


def plot(data, file):
    found = panels(data["results"])
    ours = dict.fromkeys(row["preset"] for row in data["results"] if row["preset"] not in HOST_COLOURS)
    colours = HOST_COLOURS | {preset: OUR_COLOURS[index % len(OUR_COLOURS)] for index, preset in enumerate(ours)}
    columns = min(3, len(found))
    rows = math.ceil(len(found) / columns)
    height = 4.2 * rows + 0.8
    figure, grid = pyplot.subplots(rows, columns, figsize=(5.2 * columns + 0.6, height), squeeze=False, layout="constrained")
    for axes, (key, panel) in zip(grid.flat, found.items()):
        draw(axes, key, panel, colours)
    for axes in grid.flat[len(found):]:
        axes.set_visible(False)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    handles.append(pyplot.Line2D([], [], color="0.3", linestyle=":", linewidth=1))
    legend_rows = math.ceil(len(handles) / (4 * columns))
    reserved = 0.28 * legend_rows / height  # the layout knows nothing of a legend outside the panels
    figure.get_layout_engine().set(rect=(0, reserved, 1, 1 - reserved))
    figure.legend(handles, labels + ["machine's limit"], loc="lower center", ncol=math.ceil(len(handles) / legend_rows), fontsize=9)
    machine = data["machine"]
    figure.suptitle(f"Attention of one layer\n{machine['cpu']}, {machine['isa']}, {machine['threads']} threads, commit {machine['commit']}",
                    fontsize=10)
    figure.savefig(file, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", help="the file that ./kvarn bench attention --json wrote")
    parser.add_argument("plot", help="the picture to write: .svg or .png")
    options = parser.parse_args()
    try:
        with open(options.json, encoding="utf-8") as text:
            plot(json.load(text), options.plot)
    except OSError as error:
        sys.exit(f"kvarn: cannot plot: {error}")


if __name__ == "__main__":
    main()
