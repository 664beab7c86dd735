"""One run of the real vLLM, for tests: a scenario by name, its result as JSON on the last line. Runs in vLLM's environment:

    python vllm_run.py MODEL SCENARIO [KEY=VALUE...]    (keys: dtype, kvarn: a JSON object)
"""

import json
import os
import random
import sys

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_CI_ENV", "1")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from vllm import LLM, SamplingParams  # noqa: E402  # pylint: disable=wrong-import-position

WORDS = 60


def numbers(seed, count):
    chooser = random.Random(seed)
    return [chooser.randrange(2, 2 + WORDS) for _ in range(count)]


def repeating(seed, count):
    """A prompt in which n-grams come again, so that proposals are found, right and wrong ones."""
    phrase = numbers(seed, 17)
    text = []
    while len(text) < count:
        text += phrase + numbers(seed + len(text), 3)
    return text[:count]


def shared_prefix():
    """The same beginning for all, some prompts twice: hits on blocks that the very step fills."""
    prefix = numbers(1, 300)
    prompts = [prefix + numbers(10 + i, 5 + 40 * i) for i in range(4)] + [prefix[:256] + numbers(77, 9)]
    return prompts + prompts[:2], {}


def mixed():
    """Short and long ones at once: more than the blocks hold, so that some are put off and computed again."""
    return [numbers(20 + i, 10 + 97 * (i % 5)) for i in range(10)], {}


def chunks():
    return [numbers(40 + i, 460 - 90 * i) for i in range(4)], {"max_num_batched_tokens": 96, "max_num_seqs": 4}


def ngram():
    options = {"speculative_config": {"method": "ngram", "num_speculative_tokens": 5, "prompt_lookup_max": 3, "prompt_lookup_min": 1}}
    return [repeating(60 + i, 60 + 66 * i) for i in range(6)], options


SCENARIOS = {"shared_prefix": (shared_prefix, 60), "mixed": (mixed, 150), "chunks": (chunks, 40), "ngram": (ngram, 140)}


def preemptions(engine):
    found = [metric for metric in engine.get_metrics() if metric.name == "vllm:num_preemptions"]
    return sum(metric.value for metric in found)


def hits(engine):
    return sum(metric.value for metric in engine.get_metrics() if metric.name == "vllm:prefix_cache_hits")


def accepted(engine):
    return sum(metric.value for metric in engine.get_metrics() if metric.name == "vllm:spec_decode_num_accepted_tokens")


def make_engine(model, options, given):
    kvarn = json.loads(given.get("kvarn", "null"))
    arguments = {"model": model, "dtype": given.get("dtype", "float32"), "max_model_len": 768, "max_num_seqs": 8, "enforce_eager": True,
                 "max_num_batched_tokens": 768, "num_gpu_blocks_override": 16, "skip_tokenizer_init": True, "seed": 0,
                 "disable_log_stats": False, **options}
    return LLM(**arguments, **({"additional_config": {"kvarn": kvarn}} if kvarn is not None else {}))


def main():
    model, scenario = sys.argv[1:3]
    given = dict(word.split("=", 1) for word in sys.argv[3:])
    make, count = SCENARIOS[scenario]
    prompts, options = make()
    engine = make_engine(model, options, given)
    sampling = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True, detokenize=False)
    answers = engine.generate([{"prompt_token_ids": prompt} for prompt in prompts], sampling, use_tqdm=False)
    print(json.dumps({"tokens": [list(answer.outputs[0].token_ids) for answer in answers], "preemptions": preemptions(engine),
                      "hits": hits(engine), "accepted": accepted(engine)}))


if __name__ == "__main__":
    main()
