"""Measurements in the real vLLM, for tests; the result is JSON on the last line. Runs in vLLM's environment:

    python vllm_quality.py MODEL capacity|divergence PRESET
"""

import json
import math
import os
import pathlib
import sys

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_CI_ENV", "1")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from vllm import LLM, SamplingParams  # noqa: E402  # pylint: disable=wrong-import-position

from kvarn_vllm import engine_plan  # noqa: E402  # pylint: disable=wrong-import-position

TOP = 20  # log-probabilities that are compared; the rest counts as one more word
CHUNK = 512  # tokens a step: what is older is read from records


def make_engine(model, kvarn, **options):
    arguments = {"model": model, "dtype": "bfloat16", "max_model_len": 4096, "max_num_seqs": 4, "enforce_eager": True,
                 "max_num_batched_tokens": CHUNK, "enable_prefix_caching": False, "max_logprobs": TOP, "seed": 0}
    return LLM(**(arguments | options), **({"additional_config": {"kvarn": kvarn}} if kvarn is not None else {}))


def capacity(model, preset):
    budget = 1 << 30
    engine = make_engine(model, {"preset": preset}, skip_tokenizer_init=True)
    plan = engine_plan.latest()
    blocks = engine.llm_engine.vllm_config.cache_config.num_gpu_blocks
    print(json.dumps({"budget": budget, "hot_bytes": plan.hot_bytes, "page_bytes": plan.page_bytes[0], "blocks": blocks}))


def log_probabilities(model, kvarn, tokens):
    """For every position the log-probabilities of its likeliest words, by word."""
    engine = make_engine(model, kvarn)
    answers = engine.generate([{"prompt_token_ids": part} for part in tokens],
                              SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=TOP, detokenize=False), use_tqdm=False)
    return [[{word: entry.logprob for word, entry in position.items()} for position in answer.prompt_logprobs[1:]] for answer in answers]


def divergence_of(stock, mine):
    """KL divergence over the words that both list, and the rest as one."""
    both = stock.keys() & mine.keys()
    rest = [max(1e-9, 1 - sum(math.exp(side[word]) for word in both)) for side in (stock, mine)]
    total = sum(math.exp(stock[word]) * (stock[word] - mine[word]) for word in both)
    return total + rest[0] * math.log(rest[0] / rest[1])


def divergence(model, preset):
    text = pathlib.Path(os.environ["KVARN_ROOT"], "docs", "format", "tile_record.md").read_text(encoding="utf-8")
    from transformers import AutoTokenizer  # pylint: disable=import-outside-toplevel

    tokens = AutoTokenizer.from_pretrained(model)(text)["input_ids"][:1600]
    stock = log_probabilities(model, None, [tokens])
    mine = log_probabilities(model, {"preset": preset, "deterministic": True}, [tokens])
    found = [divergence_of(its, ours) for its, ours in zip(stock[0], mine[0])][128:]
    top = sum(max(its, key=its.get) == max(ours, key=ours.get) for its, ours in zip(stock[0], mine[0])) / len(stock[0])
    print(json.dumps({"mean_kld": sum(found) / len(found), "same_top": top, "tokens": len(tokens),
                      "sealed": sum(group.counts["sealed"] for group in engine_plan.latest().groups)}))


if __name__ == "__main__":
    {"capacity": capacity, "divergence": divergence}[sys.argv[2]](sys.argv[1], sys.argv[3])
