"""Many contexts that stay in the cache of one llama-server: what they take, how fast each goes on, how many fit under a limit.

Parked: every context is read into a slot of its own, then all are resumed in turn, some times over, with a few tokens more. Memory is the
growth of the process's anonymous resident memory from the first context to the last, and a share of it for the first one, which also
brings the engine's buffers of working memory. The host without the plugin touches the memory of the whole cache when it starts: what its
log says of that is added. Under a limit: as many contexts as fit into it are read and then all decode at once.
Both caches run the same script on the same server options.
"""

import argparse
import concurrent.futures
import os
import re
import statistics
import tempfile
import time

from host_commands import environment, path, table, write_json
from server_process import server_process

HOST = "host f16"
MORE = " And then"   # what a resumed context is asked to go on from
ROOM_TOKENS = 128    # of a slot, beside its prompt
SAMPLE_CONTEXTS = 3  # that tell what one takes


def prompts(options, count, tokens):
    """Texts of about so many tokens that begin apart."""
    with open(path("KVARN_TEXT"), encoding="utf-8") as file:
        text = file.read()
    length = int(tokens * options.characters)
    step = max(1, (len(text) - length) // count)
    return [text[index * step:index * step + length] for index in range(count)]


def start(options, name, contexts, tokens, folder):
    layout = "--kv-unified" if options.unified else "--no-kv-unified"
    cells = -(-(tokens + ROOM_TOKENS) // 256) * 256  # of one slot, as the host rounds them
    command = [os.path.join(path("KVARN_ENGINE_BIN"), "llama-server"), "-m", options.model, "-t", options.threads, "-np", contexts,
               "-c", cells * contexts, "--cache-ram", 0, "--log-verbosity", 4, layout]
    return server_process(command, environment(None if name == HOST else name), folder)


def ask(running, prompt, slot, tokens):
    """Seconds until the whole answer was there, and the server's own timings."""
    begin = time.monotonic()
    status, reply = running.post("/completion", {"prompt": prompt, "id_slot": slot, "n_predict": tokens, "temperature": 0,
                                                 "cache_prompt": True, "ignore_eos": True})
    if status != 200:
        raise SystemExit(f"the server refuses a request: {reply}")
    return time.monotonic() - begin, reply["timings"]


def preallocated_mib(running):
    """What the host without the plugin has touched of its cache before the first request."""
    return sum(float(size) for size in re.findall(r"CPU KV buffer size = +([\d.]+) MiB", running.output()))


def park(options, name, contexts, tokens):
    """At least two contexts."""
    texts = prompts(options, contexts, tokens)
    with tempfile.TemporaryDirectory() as folder, start(options, name, contexts, tokens, folder) as running:
        read, first = 0, 0.0
        for slot, text in enumerate(texts):
            read += ask(running, text, slot, 1)[1]["prompt_n"]
            first = first or running.resident_mib()
        resumed = []
        for turn in range(options.turns):
            for slot, text in enumerate(texts):
                resumed.append(ask(running, text + MORE * (turn + 1), slot, options.answer)[0])
        cache = preallocated_mib(running) + (running.resident_mib() - first) * contexts / (contexts - 1)
    return {"cache": name, "contexts": contexts, "tokens": read, "cache_mib": cache, "resume_seconds": statistics.median(resumed),
            "resume_seconds_all": resumed}


def under_limit(options, name, context_mib):
    """All contexts that fit decode at once; a context's time for one token is that of its answer over its tokens."""
    contexts = max(1, int(options.limit / context_mib))
    texts = prompts(options, contexts, options.limit_tokens)
    with tempfile.TemporaryDirectory() as folder, start(options, name, contexts, options.limit_tokens, folder) as running:
        for slot, text in enumerate(texts):
            ask(running, text, slot, 1)
        begin = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(contexts) as pool:
            answers = list(pool.map(lambda slot: ask(running, texts[slot] + MORE, slot, options.limit_answer), range(contexts)))
        seconds = time.monotonic() - begin
        per_token = sorted(timings["predicted_per_token_ms"] for _, timings in answers)
    return {"cache": name, "contexts": contexts, "tokens_per_second": contexts * options.limit_answer / seconds,
            "p50_ms": statistics.median(per_token), "p99_ms": per_token[min(len(per_token) - 1, int(len(per_token) * 0.99))]}


def parked_rows(options, names):
    """Measures every cache; a row a cache and size, with its ratios to the host's."""
    rows = [["cache", "contexts", "tokens", "cache MiB", "of the host's", "resume, ms", "of the host's"]]
    results = []
    for size in options.sizes.split(","):
        contexts, tokens = map(int, size.split("x"))
        host = None
        for name in [HOST, *names]:
            result = park(options, name, contexts, tokens)
            host = host or result
            rows.append([name, contexts, result["tokens"], f"{result['cache_mib']:.1f}", f"{result['cache_mib'] / host['cache_mib']:.3f}",
                         f"{result['resume_seconds'] * 1000:.0f}", f"{result['resume_seconds'] / host['resume_seconds']:.2f}"])
            results.append({"test": "parked", **result})
    table(rows)
    return results


def limit_rows(options, names):
    rows = [["cache", f"contexts in {options.limit} MiB", "tokens/s", "of the host's", "p50 ms a token", "p99"]]
    results = []
    host = None
    for name in [HOST, *names]:
        few = park(options, name, SAMPLE_CONTEXTS, options.limit_tokens)
        result = under_limit(options, name, few["cache_mib"] / SAMPLE_CONTEXTS)
        host = host or result
        rows.append([name, f"{result['contexts']} ({result['contexts'] / host['contexts']:.1f}x)", f"{result['tokens_per_second']:.1f}",
                     f"{result['tokens_per_second'] / host['tokens_per_second']:.2f}", f"{result['p50_ms']:.1f}", f"{result['p99_ms']:.1f}"])
        results.append({"test": "under a limit", "limit_mib": options.limit, **result})
    table(rows)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-m", "--model", default=None, help="a GGUF file (default: SmolLM2)")
    parser.add_argument("--sizes", default="64x2048,8x8064", help="contexts x tokens, comma-separated; empty: leave parking out")
    parser.add_argument("--characters", type=float, default=4.2, help="characters of text for one token of prompt")
    parser.add_argument("--turns", type=int, default=2, help="times that every context is resumed")
    parser.add_argument("--answer", type=int, default=8, help="tokens of the answer of a resumed context")
    parser.add_argument("--limit", type=int, default=1024, help="MiB for the cache; 0: leave this part out")
    parser.add_argument("--limit-tokens", type=int, default=4096)
    parser.add_argument("--limit-answer", type=int, default=64)
    parser.add_argument("--unified", action="store_true", help="one stream for all slots, in place of one each")
    parser.add_argument("--presets", default="k4v4")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json")
    options = parser.parse_args()
    options.model = options.model or path("KVARN_MODEL")

    names = options.presets.split(",")
    results = parked_rows(options, names) if options.sizes else []
    if options.limit > 0:
        results += limit_rows(options, names)
    write_json(options.json, results, options.threads)


if __name__ == "__main__":
    main()
