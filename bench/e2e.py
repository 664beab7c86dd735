"""Prompt and generation speed of the unmodified llama-bench with and without the plugin: interleaved runs, medians, ratios."""

import argparse
import json
import os
import re
import statistics

from host_commands import path, run, table, write_json


def measure(options, preset):
    command = [os.path.join(path("KVARN_ENGINE_BIN"), "llama-bench"), "-m", options.model or path("KVARN_MODEL"), "-t", options.threads,
               "-p", options.prompt, "-n", options.tokens, "-d", options.depths, "-r", 1, "-fa", 1, "-o", "json"]
    output = run(command, preset)
    runs = json.loads(re.search(r"^\[$.*?^\]$", output, re.S | re.M).group(0))
    return {("prompt" if test["n_prompt"] else "generation", test["n_depth"]): test["avg_ts"] for test in runs}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-m", "--model", default=None, help="a GGUF file (default: SmolLM2)")
    parser.add_argument("--depths", default="0,1024,4096")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--presets", default="k4v4")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--json")
    options = parser.parse_args()

    presets = options.presets.split(",")
    samples = {name: [] for name in ["host f16", *presets]}
    for number in range(options.runs):
        for name, measured in samples.items():
            measured.append(measure(options, None if name == "host f16" else name))
        print(f"run {number + 1} of {options.runs} done", flush=True)
    rows = [["cache", "test", "depth", "host f16 tokens/s", "tokens/s", "ratio (min to max)"]]
    results = []
    for preset in presets:
        for test, depth in samples[preset][0]:
            host = [run_of[test, depth] for run_of in samples["host f16"]]
            ours = [run_of[test, depth] for run_of in samples[preset]]
            ratios = [own / other for own, other in zip(ours, host)]
            rows.append([preset, test, depth, f"{statistics.median(host):.1f}", f"{statistics.median(ours):.1f}",
                         f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"])
            results.append({"preset": preset, "test": test, "depth": depth, "threads": options.threads, "host_tokens_per_second": host,
                            "tokens_per_second": ours, "ratio": statistics.median(ratios)})
    table(rows)
    write_json(options.json, results)


if __name__ == "__main__":
    main()
