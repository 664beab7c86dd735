"""Clients of a running vLLM server, through the OpenAI package; the result is JSON on the last line. Runs in vLLM's environment:

    python vllm_clients.py URL REQUESTS ROUNDS

Every request is asked once with nobody else there, then all at once, ROUNDS times over, each time in another order.
"""

import concurrent.futures
import json
import pathlib
import random
import sys

from openai import OpenAI

TEXT = pathlib.Path(__file__).resolve().parents[2].joinpath("examples", "the_lighthouse.txt").read_text(encoding="utf-8")
LONGEST = 6000  # characters of a prompt


def request(number):
    """Prompts of mixed lengths; many begin alike."""
    chooser = random.Random(number)
    first = chooser.choice([0, 0, chooser.randrange(2000)])
    return {"prompt": TEXT[first : first + chooser.randrange(40, LONGEST)], "max_tokens": chooser.randrange(4, 48)}


def ask(client, model, number):
    return client.completions.create(model=model, temperature=0, **request(number)).choices[0].text


def main():
    url, count, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    client = OpenAI(base_url=f"{url}/v1", api_key="none", timeout=1200, max_retries=0)
    model = client.models.list().data[0].id
    quiet = [ask(client, model, number) for number in range(count)]
    wrong = []
    for turn in range(rounds):
        order = list(range(count))
        random.Random(turn).shuffle(order)
        with concurrent.futures.ThreadPoolExecutor(count) as team:
            busy = dict(zip(order, team.map(lambda number: ask(client, model, number), order)))
        wrong += [(turn, number) for number in order if busy[number] != quiet[number]]
    print(json.dumps({"requests": count, "rounds": rounds, "wrong": wrong, "characters": sum(map(len, quiet))}))


if __name__ == "__main__":
    main()
