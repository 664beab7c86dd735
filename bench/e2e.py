"""Prompt and generation speed of the unmodified llama-bench and llama-batched-bench with and without the plugin, and single decode steps.

Runs are interleaved; every ratio is of two neighbouring runs. The steps show whether sealing tiles holds up a token.
"""

import argparse
import json
import os
import re
import statistics
import tempfile

from host_commands import path, run, table, write_json

HOST = "host f16"


def numbers(text):
    return [int(number) for number in text.split(",") if number]


def llama_bench(options, preset):
    """Tokens/s by (test, sequences, depth)."""
    command = [os.path.join(path("KVARN_ENGINE_BIN"), "llama-bench"), "-m", options.model, "-t", options.threads,
               "-p", options.prompt, "-n", options.tokens, "-d", options.depths, "-r", 1, "-fa", 1, "-o", "json"]
    runs = json.loads(re.search(r"^\[$.*?^\]$", run(command, preset), re.S | re.M).group(0))
    return {("prompt" if test["n_prompt"] else "generation", 1, test["n_depth"]): test["avg_ts"] for test in runs}


def batched_bench(options, preset):
    """The same for several sequences side by side, each with its own prompt; a depth of 0 has no prompt to measure."""
    depths = [depth for depth in numbers(options.depths) if depth > 0]
    sequences = numbers(options.sequences)
    if not depths or not sequences:
        return {}
    cells = -(-(max(depths) + options.tokens) // 256) * 256  # of one sequence, as the host rounds them
    command = [os.path.join(path("KVARN_ENGINE_BIN"), "llama-batched-bench"), "-m", options.model, "-t", options.threads, "-fa", "on",
               "-c", cells * max(sequences), "-npp", ",".join(map(str, depths)), "-ntg", options.tokens,
               "-npl", options.sequences, "--output-format", "jsonl"]
    measured = {}
    for line in run(command, preset).splitlines():
        if line.startswith('{"n_kv_max"'):
            test = json.loads(line)
            measured["batched prompt", test["pl"], test["pp"]] = test["speed_pp"]
            measured["batched generation", test["pl"], test["pp"]] = test["speed_tg"]
            measured["batched total", test["pl"], test["pp"]] = test["speed"]
    return measured


def speeds(options, presets):
    samples = {name: [] for name in [HOST, *presets]}
    for number in range(options.runs):
        for name, measured in samples.items():
            preset = None if name == HOST else name
            measured.append(llama_bench(options, preset) | batched_bench(options, preset))
        print(f"run {number + 1} of {options.runs} done", flush=True)
    rows = [["cache", "test", "sequences", "depth", "host f16 tokens/s", "tokens/s", "ratio (min to max)"]]
    results = []
    for preset in presets:
        for test, sequences, depth in samples[preset][0]:
            host = [measured[test, sequences, depth] for measured in samples[HOST]]
            ours = [measured[test, sequences, depth] for measured in samples[preset]]
            ratios = [own / other for own, other in zip(ours, host)]
            rows.append([preset, test, sequences, depth, f"{statistics.median(host):.1f}", f"{statistics.median(ours):.1f}",
                         f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"])
            results.append({"preset": preset, "test": test, "sequences": sequences, "depth": depth, "threads": options.threads,
                            "host_tokens_per_second": host, "tokens_per_second": ours, "ratio": statistics.median(ratios)})
    table(rows)
    return results


def steps(options):
    """Single decode steps through libllama, by kvarn-bench, which prints its own table."""
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "steps.json")
        output = run([path("KVARN_BENCH"), "steps", "-m", options.model, "--presets", options.presets, "--steps", options.steps,
                      "--threads", options.threads, "--runs", min(options.runs, 5), "--json", file])
        print("\n" + "\n".join(line for line in output.splitlines() if line.startswith("|")))
        with open(file, encoding="utf-8") as text:
            return [{"test": "single steps", "threads": options.threads, **row} for row in json.load(text)["results"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-m", "--model", default=None, help="a GGUF file (default: SmolLM2)")
    parser.add_argument("--depths", default="0,1024,4096")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--sequences", default="1,2,4", help="of llama-batched-bench, comma-separated; empty: leave it out")
    parser.add_argument("--steps", type=int, default=600, help="single decode steps to time; 0: leave them out")
    parser.add_argument("--presets", default="k4v4")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--json")
    options = parser.parse_args()
    options.model = options.model or path("KVARN_MODEL")

    results = speeds(options, options.presets.split(","))
    if options.steps > 0:
        results += steps(options)
    write_json(options.json, results, options.threads)


if __name__ == "__main__":
    main()
