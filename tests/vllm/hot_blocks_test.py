"""The plugin's book-keeping against a model that knows every position: whatever the scheduler does, every row that is read is
the row that was written for that position of that sequence."""

import os
import time
from dataclasses import replace

import numpy as np
import pytest
from engine_model import EngineModel

from kvarn_vllm.hot_blocks import NONE, Batch, HotBlocks, Keep, LostRows, PoolExhausted, PoolShape

TILE, UNIT = 8, 2


class Memory:
    """Units and pages as a layer has them; a row is one number. Staging holds nothing from one step to the next."""

    def __init__(self, shape, blocks):
        self.shape = shape
        self.units = np.full((shape.units + shape.staging_units, shape.unit_tokens), -1, np.int64)
        self.pages = np.full((blocks, shape.tile_tokens), -2, np.int64)

    def apply(self, plan, rows):
        self.units[self.shape.units :] = -3
        for block, units in zip(plan.early_blocks, plan.early_units):
            self.pages[block] = self.units[units].ravel()
        stored = plan.token_unit != NONE
        self.units[plan.token_unit[stored], plan.token_row[stored]] = rows[stored]
        for block, units in zip(plan.seal_blocks, plan.seal_units):
            self.pages[block] = self.units[units].ravel()

    def read(self, plan, blocks, length):
        tiles = []
        for block in blocks[: -(-length // self.shape.tile_tokens)]:
            tiles.append(self.units[plan.block_units[block]].ravel() if plan.is_exact[block] else self.pages[block])
        return np.concatenate(tiles)[:length]

    def read_records(self, blocks, length):
        return self.pages[blocks[: length // self.shape.tile_tokens]].ravel()


def run_schedule(seed, steps, speculative, keep, room=1.0, sequences=6, budget=24, blocks=40):
    """room: of the pool, in parts of what it needs at least."""
    engine = EngineModel(seed, TILE, blocks, sequences, budget, speculative)
    shape = PoolShape(TILE, UNIT, 0, budget // UNIT + 2 * sequences + 1)
    shape = replace(shape, units=int(room * shape.least_units(sequences, speculative)))
    hot = HotBlocks(shape, speculative, keep)
    memory = Memory(shape, blocks)
    reads = 0
    for step in range(steps):
        batch = engine.step()
        if not batch:
            continue
        query_start, seq_lens, table, is_prompt = engine.arrays(batch)
        plan = hot.plan(Batch(query_start, seq_lens, table, is_prompt))
        expected = [engine.expected_rows(entry[0], entry[2]) for entry in batch]
        memory.apply(plan, np.concatenate([rows[entry[1] :] for rows, entry in zip(expected, batch)]))
        for row, (sequence, start, length, prompt) in enumerate(batch):
            got = memory.read(plan, table[row], length)
            wrong = np.flatnonzero(got != expected[row])
            assert len(wrong) == 0, f"seed {seed}, step {step}: row {row} reads something else at {wrong[:4]} of {length}"
            known = hot.known_tokens(start, length, prompt) // TILE * TILE
            assert (memory.read_records(table[row], known) == expected[row][:known]).all(), f"seed {seed}, step {step}: records"
            reads += length
    return hot, reads


# room, sequences, tokens of a step, blocks
SHAPES = [(1, 6, 24, 40), (1, 3, 9, 24), (1.3, 12, 64, 90), (1, 1, 30, 12)]
CASES = [(spec, keep) for spec in (0, 1, 3, 7) for keep in (Keep(), Keep(0, 0), Keep(1, 3))]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_every_read_row_is_the_one_written_for_its_position(case):
    speculative, keep = CASES[case]
    hot, reads = run_schedule(1000 + case, 600, speculative, keep, *SHAPES[case % len(SHAPES)])
    assert reads > 3000 and hot.counts["sealed"] > 50


@pytest.mark.long
def test_a_million_steps_without_a_wrong_read():
    steps, seed, begun = 0, int(os.environ.get("KVARN_SEED", "1")), time.monotonic()
    wanted = int(os.environ.get("KVARN_FUZZ_STEPS", "1000000"))
    while steps < wanted:
        speculative, keep = CASES[seed % len(CASES)]
        run_schedule(seed, 5000, speculative, keep, *SHAPES[seed // len(CASES) % len(SHAPES)])
        steps, seed = steps + 5000, seed + 1
        print(f"{steps} steps, seed {seed}", flush=True)
    print(f"{steps} steps in {time.monotonic() - begun:.0f} s, seeds up to {seed - 1}")


def batch(rows):
    """rows: (start, length, blocks, is_prompt)"""
    width = max(len(row[2]) for row in rows)
    return Batch(np.cumsum([0] + [row[1] - row[0] for row in rows]).astype(np.int32), np.array([row[1] for row in rows], np.int32),
                 np.array([list(row[2]) + [0] * (width - len(row[2])) for row in rows], np.int32), np.array([row[3] for row in rows]))


def small(units=16, staging=8, speculative=0, keep=Keep(0, 0)):
    return HotBlocks(PoolShape(TILE, UNIT, units, staging), speculative, keep)


def test_a_block_that_fills_is_sealed_in_that_step():
    hot = small()
    assert list(hot.plan(batch([(0, 7, [1], True)])).seal_blocks) == []
    assert list(hot.plan(batch([(7, 8, [1], False)])).seal_blocks) == [1]


def test_a_block_shown_to_another_sequence_in_the_step_that_fills_it_is_sealed_once():
    plan = small().plan(batch([(0, 9, [1, 2], True), (8, 10, [1, 3], True)]))
    assert list(plan.seal_blocks) == [1]


def test_rows_that_may_be_taken_back_are_not_sealed():
    hot = small(speculative=3)
    hot.plan(batch([(0, 6, [1], True)]))
    assert list(hot.plan(batch([(6, 9, [1, 2], False)])).seal_blocks) == []  # one certain token and two drafts
    assert list(hot.plan(batch([(7, 9, [1, 2], False)])).seal_blocks) == [1]  # the draft before was taken: row 7 is certain


def test_a_sequence_that_is_computed_again_is_sealed_up_to_its_last_drafts():
    hot = small(speculative=3)
    assert list(hot.plan(batch([(0, 20, [1, 2, 3], False)])).seal_blocks) == [1, 2]


def test_a_write_to_the_first_row_begins_a_new_life():
    hot = small()
    hot.plan(batch([(0, 8, [1], True)]))
    plan = hot.plan(batch([(0, 3, [1], True)]))
    assert plan.is_exact[1] and list(plan.seal_blocks) == []


def test_rows_that_are_gone_are_an_error_and_never_read():
    with pytest.raises(LostRows):
        small().plan(batch([(8, 9, [1, 2], True)]))
    hot = small()
    hot.plan(batch([(0, 8, [1], True)]))
    with pytest.raises(LostRows):
        hot.plan(batch([(5, 6, [1], False)]))


def test_a_pool_that_is_too_small_says_so():
    with pytest.raises(PoolExhausted):
        small(units=3).plan(batch([(0, 7, [1], True)]))


def test_rows_that_must_stay_get_their_room_before_rows_that_may():
    hot = small(units=9, staging=18, keep=Keep(1, 3))
    plan = hot.plan(batch([(0, 20, [1, 2, 3], True)]))
    assert list(plan.seal_blocks) == [1, 2] and (plan.token_unit[16:] < 9).all()


def test_the_least_pool_lets_every_sequence_fill_a_block_in_one_step():
    shape = PoolShape(TILE, UNIT, 0, 64)
    hot = HotBlocks(replace(shape, units=shape.least_units(4, 3)), 3, Keep(0, 0))
    hot.plan(batch([(0, 7, [10 + row], True) for row in range(4)]))
    plan = hot.plan(batch([(7, 11, [10 + row, 20 + row], False) for row in range(4)]))
    assert sorted(plan.seal_blocks) == [10, 11, 12, 13]


def test_a_block_that_begins_a_new_life_gives_its_old_rows_room_first():
    hot = small(units=9, staging=18)
    hot.plan(batch([(0, 7, [10], True)]))
    hot.plan(batch([(0, 7, [8], True)]))
    plan = hot.plan(batch([(7, 21, [8, 10, 2], True)]))
    assert sorted(plan.seal_blocks) == [8, 10]


def test_unfinished_blocks_of_sequences_that_ended_make_room_for_new_ones():
    hot = small(units=8)
    for block in range(1, 30):
        hot.plan(batch([(0, 7, [block], True)]))
    assert hot.counts["dead_dropped"] >= 27


def test_sealed_rows_give_way_before_unfinished_ones():
    hot = small(units=8, keep=Keep(1, 1))
    hot.plan(batch([(0, 8, [1], True)]))
    hot.plan(batch([(8, 9, [1, 2], False)]))
    assert hot.plan(batch([(9, 10, [1, 2], False)])).is_exact[1]
    hot.plan(batch([(0, 7, [3], True)]))
    plan = hot.plan(batch([(10, 11, [1, 2], False)]))
    assert not plan.is_exact[1] and plan.is_exact[2]
