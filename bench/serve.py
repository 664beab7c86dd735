"""Agents that take turns on one llama-server: memory and processor time of its layouts of slots.

Each of N agents sends a prompt of its own, then a further turn in each round (its earlier text with more behind it), one after the
other; at the end all generate at once. One stream of cells for all slots or one for each; the server's own prompt cache on (its
default) or off. Processor time is that of the server process with one thread, so that other load does not count.
"""

import argparse
import concurrent.futures
import os
import pathlib
import sys
import tempfile

from host_commands import environment, path, table, write_json
from server_process import server_process

LAYOUTS = {
    "unified, prompt cache": ["--kv-unified"],
    "unified": ["--kv-unified", "--cache-ram", "0"],
    "separate, prompt cache": ["--no-kv-unified"],
    "separate": ["--no-kv-unified", "--cache-ram", "0"],
}


def post(running, prompt, tokens):
    status, reply = running.post("/completion", {"prompt": prompt, "n_predict": tokens, "temperature": 0, "cache_prompt": True})
    if status != 200:
        raise SystemExit(f"the server refuses a request: {reply}")
    return reply


def processor_seconds(running):
    fields = pathlib.Path(f"/proc/{running.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def phase(running, work):
    start = processor_seconds(running)
    work()
    return processor_seconds(running) - start


def run_agents(options, running, texts):
    prompts = [text[:options.characters] for text in texts]
    result = {"start_mib": running.resident_mib()}

    def first_turns():
        for prompt in prompts:
            post(running, prompt, 4)

    def further_turns():
        for turn in range(1, options.rounds + 1):
            for agent, text in enumerate(texts):
                prompts[agent] = text[:options.characters + 200 * turn]
                again = post(running, prompts[agent], 4)
                result["read_again"] = result.get("read_again", 0) + again["timings"]["prompt_n"]

    def all_at_once():
        with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
            list(pool.map(lambda prompt: post(running, prompt, options.tokens), prompts))

    result["prompts_s"] = phase(running, first_turns)
    result["parked_mib"] = running.resident_mib()
    result["turns_s"] = phase(running, further_turns)
    result["turns_mib"] = running.resident_mib()
    result["together_s"] = phase(running, all_at_once)
    result["together_mib"] = running.resident_mib()
    return result


def measure(options, layout, preset, texts):
    command = [path("KVARN_ENGINE_BIN") + "/llama-server", "-m", options.model or path("KVARN_MODEL"), "-t", 1, "-np", options.agents,
               "-c", options.agents * options.context, "--fit", "off", *LAYOUTS[layout]]
    variables = environment(None if preset == "off" else preset)
    with tempfile.TemporaryDirectory() as folder, server_process(command, variables, folder) as running:
        return run_agents(options, running, texts)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-m", "--model", default=None, help="a GGUF file (default: SmolLM2)")
    parser.add_argument("--agents", type=int, default=8)
    parser.add_argument("--context", type=int, default=2048, help="tokens of one agent's slot")
    parser.add_argument("--characters", type=int, default=6000, help="of an agent's first prompt")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=32, help="that all agents generate at once")
    parser.add_argument("--presets", default="k4v4,off")
    parser.add_argument("--json")
    options = parser.parse_args()
    text = pathlib.Path(path("KVARN_TEXT")).read_text(encoding="utf-8")
    step = len(text) // (options.agents + 1)
    texts = [text[agent * step:(agent + 1) * step] for agent in range(options.agents)]
    names = ["start_mib", "parked_mib", "turns_mib", "together_mib", "prompts_s", "turns_s", "together_s", "read_again"]
    rows, results = [["cache", "layout", *names]], []
    for preset in options.presets.split(","):
        for layout in LAYOUTS:
            figures = measure(options, layout, preset, texts)
            print(f"{preset}, {layout}: {figures}", file=sys.stderr, flush=True)
            results.append({"preset": preset, "layout": layout, **figures})
            rows.append(["host f16" if preset == "off" else preset, layout, *(f"{figures[name]:.1f}" for name in names)])
    table(rows)
    write_json(options.json, results, 1)


if __name__ == "__main__":
    main()
