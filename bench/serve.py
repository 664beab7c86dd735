"""Agents that take turns on one llama-server: memory and processor time of its layouts of slots.

Each of N agents sends a prompt of its own, then a further turn in each round (its earlier text with more behind it), one after the
other; at the end all generate at once. One stream of cells for all slots or one for each; the server's own prompt cache on (its
default) or off. Processor time is that of the server process with one thread, so that other load does not count.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

from host_commands import path, table, write_json

LAYOUTS = {
    "unified, prompt cache": ["--kv-unified"],
    "unified": ["--kv-unified", "--cache-ram", "0"],
    "separate, prompt cache": ["--no-kv-unified"],
    "separate": ["--no-kv-unified", "--cache-ram", "0"],
}


def post(address, prompt, tokens):
    body = json.dumps({"prompt": prompt, "n_predict": tokens, "temperature": 0, "cache_prompt": True}).encode()
    request = urllib.request.Request(address + "/completion", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=3600) as answer:
        return json.load(answer)


def wait_until_ready(address, process):
    for _ in range(1200):
        if process.poll() is not None:
            raise SystemExit("the server did not start")
        try:
            with urllib.request.urlopen(address + "/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the server did not become ready")


def processor_seconds(process):
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def anonymous_mib(process):
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def phase(process, work):
    start = processor_seconds(process)
    work()
    return processor_seconds(process) - start


def run_agents(options, address, process, texts):
    prompts = [text[:options.characters] for text in texts]
    result = {"start_mib": anonymous_mib(process)}

    def first_turns():
        for prompt in prompts:
            post(address, prompt, 4)

    def further_turns():
        for turn in range(1, options.rounds + 1):
            for agent, text in enumerate(texts):
                prompts[agent] = text[:options.characters + 200 * turn]
                again = post(address, prompts[agent], 4)
                result["read_again"] = result.get("read_again", 0) + again["timings"]["prompt_n"]

    def all_at_once():
        with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
            list(pool.map(lambda prompt: post(address, prompt, options.tokens), prompts))

    result["prompts_s"] = phase(process, first_turns)
    result["parked_mib"] = anonymous_mib(process)
    result["turns_s"] = phase(process, further_turns)
    result["turns_mib"] = anonymous_mib(process)
    result["together_s"] = phase(process, all_at_once)
    result["together_mib"] = anonymous_mib(process)
    return result


def measure(options, layout, preset, texts):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [path("KVARN_ENGINE_BIN") + "/llama-server", "-m", options.model or path("KVARN_MODEL"), "-t", "1", "-np", str(options.agents),
               "-c", str(options.agents * options.context), "--host", "127.0.0.1", "--port", str(port), "--no-webui", "--fit", "off",
               *LAYOUTS[layout]]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("KVARN_P", "GGML_"))}
    if preset != "off":
        environment |= {"GGML_BACKEND_PATH": path("KVARN_PLUGIN"), "KVARN_PRESET": preset}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        address = f"http://127.0.0.1:{port}"
        try:
            wait_until_ready(address, process)
            return run_agents(options, address, process, texts)
        finally:
            process.terminate()


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
