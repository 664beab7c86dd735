"""Cache memory after a prompt of a given length: the plugin's account, and what the system sees of it.

The system's figure is the anonymous resident memory of the process, as growth from a prompt of BASE_TOKENS tokens (so that the
engine's own buffers are in both). The host without the plugin stands in the last rows: it touches the memory of the
whole context when it starts, so it does not grow, and the size of the process is what to compare.
"""

import argparse
import json
import os
import tempfile

from host_commands import path, run, table, write_json


BASE_TOKENS = 1024


def measure(options, preset, tokens):
    model = options.model or path("KVARN_MODEL")
    with open(path("KVARN_TEXT"), encoding="utf-8") as text, tempfile.TemporaryDirectory() as folder:
        prompt = os.path.join(folder, "prompt.txt")
        with open(prompt, "w", encoding="utf-8") as out:
            out.write(text.read()[:int(tokens * options.characters)])
        output = run([path("KVARN_PROGRAM"), "run", "-m", model, "-f", prompt, "--raw", "-n", 2, "-c", options.context, "--json",
                      "--threads", options.threads, "--preset", preset])
    return json.loads([line for line in output.splitlines() if line.startswith("{")][-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-m", "--model", default=None, help="a GGUF file (default: SmolLM2)")
    parser.add_argument("--tokens", default="2048,8192", help="prompt lengths, comma-separated")
    parser.add_argument("--characters", type=float, default=4.5, help="characters of text for one token of prompt")
    parser.add_argument("--context", type=int, default=8704)
    parser.add_argument("--presets", default="k8v8,k4v4,k4v2,k2v2")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json")
    options = parser.parse_args()

    rows = [["cache", "tokens", "MiB", "f16 MiB", "ratio", "bits/value", f"growth from {BASE_TOKENS} tokens, MiB", "the same by the account", "process MiB"]]
    results = []
    for preset in [*options.presets.split(","), "off"]:
        base = measure(options, preset, BASE_TOKENS)
        for tokens in map(int, options.tokens.split(",")):
            line = measure(options, preset, tokens)
            growth = (line["resident_bytes"] - base["resident_bytes"]) / 2**20
            row = ["host f16" if preset == "off" else preset, line["prompt_tokens"], "-", "-", "-", "16.00", f"{growth:.1f}", "-",
                   f"{line['resident_bytes'] / 2**20:.0f}"]
            if preset != "off":
                row[2:6] = [f"{line['cache_bytes'] / 2**20:.2f}", f"{line['f16_bytes'] / 2**20:.2f}",
                            f"{line['cache_bytes'] / line['f16_bytes']:.3f}", f"{line['bits_per_value']:.2f}"]
                row[7] = f"{(line['cache_bytes'] - base['cache_bytes']) / 2**20:.1f}"
            rows.append(row)
            results.append({**line, "preset": row[0], "growth_mib": growth})
    table(rows)
    write_json(options.json, results, options.threads)


if __name__ == "__main__":
    main()
