"""One HTML page from files of ./kvarn eval --json: figures, tables, how it was measured. The page needs nothing beside it."""

import argparse
import html
import json
import sys

import quality_figures as figures

STYLE = """
body { font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #1c1c1c; background: #fff; max-width: 1180px; margin: 2.5rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.9rem; margin-bottom: .2rem; } h2 { font-size: 1.3rem; margin: 2.4rem 0 .4rem; } p { max-width: 80ch; margin: .5rem 0; }
svg { width: 100%; height: auto; display: block; margin: .6rem 0; }
.table { overflow-x: auto; } table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; margin: .8rem 0; }
caption { text-align: left; font-weight: 600; padding: .4rem 0; white-space: nowrap; }
th, td { padding: .28rem .65rem; border-bottom: 1px solid #e3e3e3; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid #888; vertical-align: bottom; } th:first-child, td:first-child { text-align: left; }
tr.ours td:first-child { font-weight: 600; } .note { color: #555; font-size: .92rem; } code { background: #f3f3f3; padding: .1em .3em; border-radius: 3px; overflow-wrap: anywhere; }
"""


def escape(text):
    return html.escape(str(text))


def number(value, pattern):
    return pattern.format(value) if isinstance(value, (int, float)) else "–"


def exact_tokens(row):
    return "–" if row["sink"] is None else f"{row['sink']}, {row['tail']}"


def table(caption, columns, rows):
    """columns: (title, cell of a row). Rows of KVarN stand out."""
    head = "".join(f"<th>{escape(title)}</th>" for title, _ in columns)
    lines = []
    for row in rows:
        cells = "".join(f"<td>{escape(cell(row))}</td>" for _, cell in columns)
        lines.append(f"<tr{' class=ours' if row['codec'] == 'kvarn' else ''}>{cells}</tr>")
    return f'<div class="table"><table><caption>{escape(caption)}</caption><tr>{head}</tr>{"".join(lines)}</table></div>'


def divergence_columns():
    def figure(title, name, pattern):
        return title, lambda row: number(row.get(name), pattern)
    return [("cache", lambda row: row["cache"]), ("sink, tail", exact_tokens), figure("bits/value sealed", "record_bits_per_value", "{:.3g}"),
            figure("in full", "bits_per_value", "{:.2f}"), figure("mean KLD", "mean_kld", "{:.5f}"),
            ("95 % interval", lambda row: f"{row['mean_kld_low']:.5f} to {row['mean_kld_high']:.5f}"), figure("median", "median_kld", "{:.5f}"),
            figure("99 %", "kld_99", "{:.4f}"), figure("99.9 %", "kld_99_9", "{:.4f}"), figure("same top %", "same_top", "{:.2f}"),
            figure("perplexity ratio", "perplexity_ratio", "{:.4f}")]


def pairs(rows):
    """A line for every cache that a row is set against."""
    return [row | {"other": other} for row in rows for other in row.get("against", [])]


def comparison_columns():
    def ratio(title, name):
        return title, lambda row: (f"{number(row['other'][name], '{:.3f}')} ({number(row['other'][name + '_low'], '{:.3f}')} to "
                                   f"{number(row['other'][name + '_high'], '{:.3f}')})")
    return [("cache", lambda row: row["cache"]), ("sink, tail", exact_tokens), ("bits/value in full", lambda row: number(row["bits_per_value"], "{:.3f}")),
            ("against", lambda row: row["other"]["cache"]), ("its bits", lambda row: number(row["other"]["bits_per_value"], "{:.3f}")),
            ratio("mean KLD", "mean_kld"), ratio("median", "median_kld"), ratio("99.9 %", "kld_99_9")]


def part(name, pattern):
    return lambda row: pattern.format(**row[name]) if name in row else "–"


def task_columns(rows):
    """Only what was measured."""
    columns = [("cache", lambda row: row["cache"]), ("sink, tail", exact_tokens)]
    for name, title, pattern in (
            ("pseudo_decode", "pseudo-decode KLD", "{mean_kld:.5f}"),
            ("greedy", "same greedy tokens", "{median_first_divergence:g} of {tokens}"),
            ("greedy", "never parted", "{never_diverged}"),
            ("retrieval", "lines found", "{correct} of {questions}"),
            ("retrieval", "with f16", "{reference_correct}"),
            ("code", "code as f16", "{same_as_reference} of {questions}"),
            ("code", "right", "{correct}"),
            ("free_run", "free run KLD", "{mean_kld:.5f}")):
        if any(name in row for row in rows):
            columns.append((title, part(name, pattern)))
    return columns if len(columns) > 2 else []


def tables(rows, columns_of):
    parts = []
    for model, text in dict.fromkeys((row["model"], row["text"]) for row in rows):
        own = [row for row in rows if (row["model"], row["text"]) == (model, text)]
        columns = columns_of(own)
        if columns:
            parts.append(table(f"{model} on {text}", columns, own))
    return "".join(parts)


def section(title, text, content):
    return f"<h2>{escape(title)}</h2><p>{text}</p>{content}" if content else ""


def method(rows, files):
    row = rows[0]
    step = row["position_step"]
    lines = [
        f"The reference is llama.cpp's own f16 cache with its own flash attention, in the same process and on the same tokens: "
        f"{row['chunks']} chunk(s) of {row['context']} tokens a text, micro-batches of {row['ubatch']}. Figures count positions from "
        f"{row['first_position']} on{'' if step == 1 else f', every {step}th'} ({row['positions']} a cache).",
        f"Divergence is KL(reference || cache) of the next token's distribution, sums in double precision. Intervals: "
        f"{100 * row['bootstrap']['confidence']:.0f} %, bootstrap over blocks of {row['bootstrap']['block_positions']} positions, "
        f"{row['bootstrap']['resamples']} resamples, seed {row['bootstrap']['seed']}.",
        "Caches with the same sink and tail keep the same tokens exact: they differ in their codec alone. A tail of “none” seals a tile before "
        "the micro-batch that completes it attends. “In full” counts records, exact rows and unused memory at the end of the first chunk; "
        "for ggml's codecs inside the cache it is computed from the same share of sealed values. <code>f16</code> holds exact tiles: its "
        "divergence is the noise of another order of sums.",
    ]
    lines += [f"{escape(data['machine']['cpu'])}, {escape(data['machine']['isa'])}, {data['machine']['threads']} threads, commit "
              f"{escape(data['machine']['commit'])}: <code>{escape(data['machine']['command'])}</code>" for data in files]
    return "".join(f"<p>{line}</p>" for line in lines)


def page(files):
    rows = [row for data in files for row in data["results"]]
    models = ", ".join(dict.fromkeys(row["model"] for row in rows))
    sections = [
        section("Quality against bytes", "Lower and further left is better. Lines join presets with equal widths for keys and values; bars are "
                "95 % intervals. Both axes count what is sealed; exact tokens are the same for all caches of a panel.", figures.pareto(rows)),
        section("Divergence", "Mean, quantiles and agreement over all positions that count.", tables(rows, lambda _: divergence_columns())),
        section("One cache over another", "The ratio of their figures on the same positions, below 1 where the first loses less. Intervals draw the "
                "same blocks of positions for both.", tables(pairs(rows), lambda _: comparison_columns())),
        section("Divergence against position", "Means of ranges of positions, from the start of a chunk.", figures.position(rows)),
        section("Error of attention by layer", "Attention's output before its projection, in the last micro-batch of the first chunk: root mean "
                "square of the difference from the reference over that of the reference. It holds what earlier layers have added.",
                figures.layers(rows)),
        section("Drift over a long text", "The reference writes greedily, every cache reads the same tokens one by one.", figures.free_run(rows)),
        section("Tasks", "Pseudo-decode: the first chunk again in small micro-batches, so that every query reads what was sealed before. Greedy "
                "text: tokens until a cache's own text parts from the reference's (median). Lines: exact digits of a line in a long list. Code: the next line, "
                "compared with the reference's and with the right one.", tables(rows, task_columns)),
        section("How it was measured", "", method(rows, files)),
    ]
    return (f"<!DOCTYPE html><html lang=en><head><meta charset=utf-8><title>KVarN: quality of compressed caches</title>"
            f'<meta name=viewport content="width=device-width"><style>{STYLE}</style></head><body><h1>Quality of compressed KV caches</h1>'
            f"<p class=note>{escape(models)}; KL divergence from llama.cpp's own f16 cache</p>{''.join(sections)}</body></html>\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", nargs="+", help="files that ./kvarn eval --json wrote")
    parser.add_argument("-o", "--output", required=True, help="the page to write: .html")
    options = parser.parse_args()
    try:
        files = []
        for name in options.json:
            with open(name, encoding="utf-8") as text:
                files.append(json.load(text))
        if not any(data["results"] for data in files):
            sys.exit("kvarn: cannot report: the files hold no results")
        with open(options.output, "w", encoding="utf-8") as out:
            out.write(page(files))
    except (OSError, json.JSONDecodeError) as error:
        sys.exit(f"kvarn: cannot report: {error}")


if __name__ == "__main__":
    main()
