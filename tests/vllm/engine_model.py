"""A model of the engine's scheduler as the plugin sees it: paged blocks with prefix caching, chunked prompts, preemption,
speculation with rejection, hits on blocks of the very step. It makes batches and knows, for every position of every sequence,
which row must be read there."""

import random
from collections import OrderedDict

import numpy as np

WORDS = 3  # tokens there are: few, so that sequences meet


def follow(previous, token):
    """The row of a token: it depends on everything before it."""
    return (previous * 1000003 + token + 1) & 0x7FFFFFFFFFFFFFFF


class Sequence:
    def __init__(self, prompt, max_new):
        self.tokens = list(prompt)
        self.rows = []  # by position, of `tokens`
        self.prompt_tokens = len(prompt)
        self.max_tokens = len(prompt) + max_new
        self.computed = 0
        self.blocks = []
        self.drafts = []

    def row_values(self):
        while len(self.rows) < len(self.tokens):
            previous = self.rows[-1] if self.rows else 7
            self.rows.append(follow(previous, self.tokens[len(self.rows)]))
        return self.rows


class BlockPool:
    """Blocks 1 to count - 1; a free block keeps its content and its name in the prefix cache until it is used again."""

    def __init__(self, count):
        self.free = OrderedDict((block, None) for block in range(1, count))
        self.users = [0] * count
        self.name_of = [None] * count
        self.by_name = {}

    def take(self):
        block, _ = self.free.popitem(last=False)
        name, self.name_of[block] = self.name_of[block], None
        if name is not None and self.by_name.get(name) == block:
            del self.by_name[name]
        self.users[block] = 1
        return block

    def share(self, block):
        self.free.pop(block, None)
        self.users[block] += 1

    def give_back(self, block):
        self.users[block] -= 1
        if self.users[block] == 0:
            self.free[block] = None

    def publish(self, block, name):
        if self.name_of[block] is None:
            self.name_of[block] = name
            self.by_name.setdefault(name, block)


class EngineModel:
    """Call step() again and again: it returns the rows of one batch as (sequence, start, length, is_prompt), or []."""

    def __init__(self, seed, tile_tokens, blocks, sequences, budget, speculative_tokens, prompt_tiles=4):
        self.random = random.Random(seed)
        self.tile = tile_tokens
        self.pool = BlockPool(blocks)
        self.max_sequences = sequences
        self.budget = budget
        self.speculative_tokens = speculative_tokens
        self.prompt_tiles = prompt_tiles
        self.running = []
        self.waiting = []
        self.prefixes = [self.random_tokens(self.random.randint(1, prompt_tiles * tile_tokens)) for _ in range(4)]
        self.last_batch = []

    def random_tokens(self, count):
        return [self.random.randrange(WORDS) for _ in range(count)]

    def new_sequence(self):
        prefix = self.random.choice(self.prefixes)
        cut = self.random.randint(0, len(prefix))
        prompt = prefix[:cut] + self.random_tokens(self.random.randint(1, 2 * self.tile))
        if self.random.random() < 0.3:
            prompt = list(prefix)  # the very same prompt again
        return Sequence(prompt, self.random.randint(1, 4 * self.tile))

    # ---- one step of the scheduler

    def step(self):
        self.take_results()
        self.end_some()
        while len(self.waiting) < 3:
            self.waiting.append(self.new_sequence())
        batch, left = [], self.budget
        for sequence in list(self.running):
            if left <= 0 or sequence not in self.running:
                break
            if self.random.random() < 0.05:
                continue  # not this time
            left -= self.schedule(sequence, left, batch)
        preempted = self.preempted
        self.preempted = False
        while left > 0 and self.waiting and len(self.running) < self.max_sequences and not preempted:
            sequence = self.waiting[0]
            self.find_prefix(sequence)
            taken = self.schedule(sequence, left, batch, is_new=True)
            if taken == 0:
                break
            left -= taken
            self.running.append(self.waiting.pop(0))
        self.last_batch = batch
        return batch

    preempted = False

    def schedule(self, sequence, left, batch, is_new=False):
        want = len(sequence.tokens) + len(sequence.drafts) - sequence.computed
        count = min(want, left)
        if self.random.random() < 0.2:
            count = self.random.randint(1, count)
        while not self.allocate(sequence, sequence.computed + count):
            if is_new or not self.preempt_last(sequence, batch):
                self.release(sequence)
                return 0
        length = sequence.computed + count
        del sequence.drafts[max(0, length - len(sequence.tokens)) :]
        self.publish(sequence, min(length, len(sequence.tokens)))
        batch.append((sequence, sequence.computed, length, sequence.computed < sequence.prompt_tokens))
        return count

    def allocate(self, sequence, tokens):
        need = -(-tokens // self.tile) - len(sequence.blocks)
        if need > len(self.pool.free):
            return False
        sequence.blocks += [self.pool.take() for _ in range(need)]
        return True

    def preempt_last(self, sequence, batch):
        scheduled = [entry[0] for entry in batch]
        victim = self.running[-1]
        if victim is sequence or victim in scheduled:
            if sequence in self.running:
                self.preempt(sequence)
            return False
        self.preempt(victim)
        return True

    def preempt(self, victim):
        self.preempted = True
        self.running.remove(victim)
        self.release(victim)
        victim.computed = 0
        victim.drafts = []
        self.waiting.insert(0, victim)

    def release(self, sequence):
        for block in reversed(sequence.blocks):
            self.pool.give_back(block)
        sequence.blocks = []
        if sequence not in self.running:
            sequence.computed = 0

    def find_prefix(self, sequence):
        rows = sequence.row_values()
        for index in range((len(sequence.tokens) - 1) // self.tile):
            block = self.pool.by_name.get(rows[(index + 1) * self.tile - 1])
            if block is None:
                break
            self.pool.share(block)
            sequence.blocks.append(block)
            sequence.computed += self.tile

    def publish(self, sequence, tokens):
        rows = sequence.row_values()
        for index in range(tokens // self.tile):
            self.pool.publish(sequence.blocks[index], rows[(index + 1) * self.tile - 1])

    # ---- between steps

    def take_results(self):
        """What the last batch computed: some drafts are accepted, a new token follows, new drafts are proposed."""
        for sequence, _, length, _ in self.last_batch:
            if sequence not in self.running:
                continue
            certain = min(length, len(sequence.tokens))
            if length < len(sequence.tokens):
                sequence.computed = length
                continue
            drafts = sequence.drafts[: length - certain]
            accepted = self.random.choice([0, len(drafts), self.random.randint(0, len(drafts))]) if drafts else 0
            sequence.tokens += drafts[:accepted] + self.random_tokens(1)
            sequence.computed = certain + accepted
            proposals = self.random.randint(0, self.speculative_tokens)
            sequence.drafts = self.random_tokens(proposals) if self.random.random() < 0.8 else []
        self.last_batch = []

    def end_some(self):
        for sequence in list(self.running):
            if len(sequence.tokens) >= sequence.max_tokens or self.random.random() < 0.002:
                self.running.remove(sequence)
                self.release(sequence)
        if self.running and self.random.random() < 0.01:
            self.preempt(self.running[-1])
            self.preempted = False

    # ---- what the plugin sees

    def expected_rows(self, sequence, length):
        rows = list(sequence.row_values()[:length])
        for token in sequence.drafts[: length - len(rows)]:
            rows.append(follow(rows[-1], token))
        return np.array(rows, np.int64)

    def arrays(self, batch):
        """query_start, seq_lens, block_table, is_prompt of a batch; blocks beyond a sequence are of other sequences' past."""
        width = max(len(entry[0].blocks) for entry in batch) + 1
        table = np.random.default_rng(self.random.getrandbits(32)).integers(0, len(self.pool.users), (len(batch), width), np.int32)
        for row, (sequence, _, _, _) in enumerate(batch):
            table[row, : len(sequence.blocks)] = sequence.blocks
        counts = [length - start for _, start, length, _ in batch]
        return (np.concatenate([[0], np.cumsum(counts)]).astype(np.int32), np.array([e[2] for e in batch], np.int32), table,
                np.array([e[3] for e in batch]))
