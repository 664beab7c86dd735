"""KL divergence against the host's own f16 cache: presets of KVarN and the host's quantized caches, same text, same batches.

Prints a Markdown table (mean, median, 99.9 % KLD in nats, same top token) and writes results[] with --json FILE.
"""

import argparse
import os
import re
import tempfile

from host_commands import path, run, table, write_json

HOST_CACHES = ["q8_0", "q5_0", "q4_0"]
FIGURES = {"mean_kld": r"Mean +KLD: +([-0-9.]+)", "median_kld": r"Median +KLD: +([-0-9.]+)", "kld_99_9": r"99\.9% +KLD: +([-0-9.]+)",
           "same_top": r"Same top p: +([0-9.]+)"}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-m", "--model", default=None, help="a GGUF file (default: SmolLM2)")
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--chunks", type=int, default=1)
    parser.add_argument("--ubatch", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--presets", default="k8v8,k4v4,k4v2,k2v2", help="comma-separated; empty for none")
    parser.add_argument("--host-caches", default=",".join(HOST_CACHES), help="comma-separated; empty for none")
    parser.add_argument("--level", default="scaled", choices=["scaled", "official"])
    parser.add_argument("--sink", type=int, default=128)
    parser.add_argument("--tail", default="128", help="tokens, or none: tiles are sealed before their own micro-batch attends")
    parser.add_argument("--json")
    options = parser.parse_args()

    model = options.model or path("KVARN_MODEL")
    with tempfile.TemporaryDirectory() as folder:
        logits = os.path.join(folder, "logits")
        common = [os.path.join(path("KVARN_ENGINE_BIN"), "llama-perplexity"), "-m", model, "-f", path("KVARN_TEXT"), "-c", options.context,
                  "-b", max(options.context, options.ubatch), "-ub", options.ubatch, "--chunks", options.chunks, "-t", options.threads,
                  "--kl-divergence-base", logits]
        run(common)
        rows = [["cache", "mean KLD", "median", "99.9 %", "same top %"]]
        results = []

        def measure(name, extra, preset=None, **settings):
            output = run(common + ["--kl-divergence"] + extra, preset, **settings)
            figures = {figure: float(re.search(pattern, output).group(1)) for figure, pattern in FIGURES.items()}
            rows.append([name] + [f"{figures[figure]:.6f}" for figure in ("mean_kld", "median_kld", "kld_99_9")] + [f"{figures['same_top']:.2f}"])
            results.append({"model": os.path.basename(model), "codec": name, "level": options.level, "ubatch": options.ubatch, **figures})
            print(f"{name}: {figures}", flush=True)

        measure("host f16", [])
        for preset in filter(None, options.presets.split(",")):
            measure(preset, [], preset, level=options.level, sink=options.sink, tail=options.tail)
        for cache in filter(None, options.host_caches.split(",")):
            measure(f"host {cache}", ["-ctk", cache, "-ctv", cache, "-fa", "on"])
    table(rows)
    write_json(options.json, results, options.threads)


if __name__ == "__main__":
    main()
