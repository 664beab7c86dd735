"""Cache memory after a prompt of a given length: the plugin's account, and the growth of the process as the system sees it.

The system's figure is the resident memory at the end of a run, less that of the same run with a prompt of a few tokens.
"""

import argparse
import json
import os
import tempfile

from host_commands import path, run, table, write_json


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
    parser.add_argument("--characters", type=float, default=3.4, help="characters of text for one token of prompt")
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--presets", default="k8v8,k4v4,k4v2,k2v2")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json")
    options = parser.parse_args()
    options.characters = float(options.characters)

    rows = [["preset", "tokens", "cache MiB", "f16 MiB", "ratio", "bits/value", "resident growth MiB"]]
    results = []
    for preset in options.presets.split(","):
        base = measure(options, preset, 8)
        for tokens in map(int, options.tokens.split(",")):
            line = measure(options, preset, int(tokens * 0.95))
            growth = line["resident_bytes"] - base["resident_bytes"] if "resident_bytes" in line else 0
            rows.append([preset, line.get("prompt_tokens", tokens), f"{line['cache_bytes'] / 2**20:.2f}", f"{line['f16_bytes'] / 2**20:.2f}",
                         f"{line['cache_bytes'] / line['f16_bytes']:.3f}", f"{line['bits_per_value']:.2f}", f"{growth / 2**20:.1f}"])
            results.append({"preset": preset, "growth_bytes": growth, **line})
    table(rows)
    write_json(options.json, results)


if __name__ == "__main__":
    main()
