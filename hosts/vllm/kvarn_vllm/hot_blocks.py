"""Which rows of a paged cache are exact, and when a block becomes a record: the book-keeping of one step.

A page of the engine's cache holds the record of one block (a tile) and nothing else. Rows of a block that has no record yet
lie in a pool of small units (16 rows), found by the number of the physical block. The engine says, for every step, which rows
of which blocks it writes and reads; it never says that a block was freed. This module turns that into a plan: where every new
row goes, which blocks are encoded, which units stay. It knows numbers only: no rows, no records, no engine, no torch.

Three rules carry everything:
- A write to the first row of a block begins a new life of it.
- A block is sealed in the step in which its last row is known to stay, before anything attends in that step: the engine may
  show a full block to another sequence in the very step that fills it.
- Rows that lie nowhere else are never dropped while a sequence may still need them; a read of rows that are gone is an error.
"""

from dataclasses import dataclass

import numpy as np

NONE = -1
NULL_BLOCK = 0  # the engine's name for "no block"


class LostRows(RuntimeError):
    """A sequence reads rows that the pool no longer holds."""


class PoolExhausted(RuntimeError):
    """More unfinished blocks at once than the pool was made for."""


@dataclass(frozen=True)
class PoolShape:
    tile_tokens: int = 128
    unit_tokens: int = 16
    units: int = 0  # that stay between steps
    staging_units: int = 0  # for rows that are encoded in the step that brings them

    @property
    def tile_units(self):
        return self.tile_tokens // self.unit_tokens

    def least_units(self, sequences, speculative_tokens):
        """What so many sequences may need at once. Each holds the tile that it fills in this step until the next one, and behind
        it an unfinished tile with tokens that may be taken back."""
        return sequences * (2 * self.tile_units + -(-speculative_tokens // self.unit_tokens) + 1)


@dataclass(frozen=True)
class Batch:
    """What the engine says of one step. Row r computes `query_start[r + 1] - query_start[r]` tokens, the last of which is token
    `seq_lens[r] - 1` of its sequence, and reads all tokens before; token t lies in block `block_table[r, t // tile_tokens]`."""

    query_start: np.ndarray  # [rows + 1]
    seq_lens: np.ndarray  # [rows]
    block_table: np.ndarray  # [rows, blocks]
    is_prompt: np.ndarray  # [rows]; no token of such a row can be taken back


@dataclass
class StepPlan:
    """What a layer does in one step: seal the early blocks, store the new rows, seal the others, then attend."""

    early_blocks: np.ndarray  # [early], encoded before anything is stored: their units are used again in this step
    early_units: np.ndarray  # [early, tile_units]
    token_unit: np.ndarray  # [tokens]; units from PoolShape.units on are staging; NONE: the row is stored nowhere
    token_row: np.ndarray  # [tokens], row of the unit
    seal_blocks: np.ndarray  # [seals], encoded to their pages in this step
    seal_units: np.ndarray  # [seals, tile_units]
    block_units: np.ndarray  # [blocks, tile_units]: the units of blocks whose rows can be read exactly; NONE beyond them
    is_exact: np.ndarray  # [blocks], whether block_units holds the rows; else the page holds their record


@dataclass
class Keep:
    """Which sealed blocks keep their exact rows too, while there is room."""

    sink_tiles: int = 1
    tail_tiles: int = 1


class HotBlocks:
    """The state that lives from step to step. One for all layers that share block tables."""

    def __init__(self, shape, speculative_tokens=0, keep=None):
        if shape.tile_tokens % shape.unit_tokens != 0:
            raise ValueError("a tile is a whole number of units")
        if not 0 <= speculative_tokens < shape.tile_tokens:
            raise ValueError("fewer speculative tokens than a tile has rows")
        self.shape = shape
        self.speculative_tokens = speculative_tokens
        self.keep = keep or Keep()
        self.step = 0
        self.filled = np.zeros(0, np.int32)  # rows of this life
        self.sealed = np.zeros(0, bool)  # the page holds this life's record
        self.is_sink = np.zeros(0, bool)
        self.last_use = np.zeros(0, np.int64)
        self.units_of = np.zeros((0, shape.tile_units), np.int32)
        self.hot = {}  # blocks that hold units, in the order in which they began to
        self._free = list(range(shape.units - 1, -1, -1))
        self._leaving = []  # blocks whose units are free from the next step on
        self.counts = {"sealed": 0, "bonus_dropped": 0, "dead_dropped": 0, "orphans_sealed": 0}

    # ---- what can be asked

    @property
    def free_units(self):
        return len(self._free)

    def known_tokens(self, start, length, is_prompt):
        """Of a row that computes tokens [start, length): how many tokens of its sequence cannot be taken back."""
        if is_prompt or self.speculative_tokens == 0:
            return length
        return max(start + 1, length - self.speculative_tokens)

    # ---- one step

    def plan(self, batch):
        """The plan of the next step. Its arrays stay valid until the step after it is planned."""
        self.step += 1
        self._staged = 0
        self._early = []
        self._release_leaving()
        starts, lengths = self._row_ranges(batch)
        self._make_room_in_tables(batch)
        table = self._touched_table(batch, lengths)
        self._touch(table)
        tokens = int(batch.query_start[-1])
        token_unit = np.full(tokens, NONE, np.int32)
        token_row = np.zeros(tokens, np.int32)
        seals = self._due(batch, table, starts, lengths)
        self._begin_lives(batch, starts, lengths)
        for are_sealed in (False, True):  # what must stay gets its room before what may
            for row in range(len(lengths)):
                self._write_row(batch, row, (starts[row], lengths[row]), seals, are_sealed, (token_unit, token_row))
        self._check_reads(batch, table, lengths)
        seal_blocks, seal_units = self._seal(seals)
        early_blocks = np.array([block for block, _ in self._early], np.int32)
        early_units = np.array([units for _, units in self._early], np.int32).reshape(-1, self.shape.tile_units)
        return StepPlan(early_blocks, early_units, token_unit, token_row, seal_blocks, seal_units, self.units_of, self._is_exact())

    def _row_ranges(self, batch):
        counts = np.diff(batch.query_start)
        return (batch.seq_lens - counts).tolist(), batch.seq_lens.tolist()

    def _make_room_in_tables(self, batch):
        need = int(batch.block_table.max(initial=0)) + 1
        have = len(self.filled)
        if need <= have:
            return
        more = max(need, have * 2, 64) - have
        self.filled = np.concatenate([self.filled, np.zeros(more, np.int32)])
        self.sealed = np.concatenate([self.sealed, np.zeros(more, bool)])
        self.is_sink = np.concatenate([self.is_sink, np.zeros(more, bool)])
        self.last_use = np.concatenate([self.last_use, np.zeros(more, np.int64)])
        self.units_of = np.concatenate([self.units_of, np.full((more, self.shape.tile_units), NONE, np.int32)])

    def _touched_table(self, batch, lengths):
        """The block table with everything beyond a row's sequence (and padding rows) as NULL_BLOCK."""
        tiles = (np.asarray(lengths) + self.shape.tile_tokens - 1) // self.shape.tile_tokens
        tiles = np.where(np.diff(batch.query_start) > 0, tiles, 0)
        width = int(tiles.max(initial=0))
        table = batch.block_table[: len(lengths), :width]
        return np.where(np.arange(width)[None, :] < tiles[:, None], table, NULL_BLOCK)

    def _touch(self, table):
        self.last_use[table.ravel()] = self.step

    # ---- which blocks are sealed in this step

    def _due(self, batch, table, starts, lengths):
        """Blocks that are not sealed and end at or before what is known of their row; with it, whether they keep their rows.
        A block that the step writes from its first row on counts as not sealed, whatever it was."""
        tile = self.shape.tile_tokens
        due = {}
        for row, (start, length) in enumerate(zip(starts, lengths)):
            if batch.query_start[row + 1] == batch.query_start[row]:
                continue
            complete = self.known_tokens(start, length, bool(batch.is_prompt[row])) // tile
            blocks = table[row, :complete]
            new_life = -(-start // tile)  # tiles from here on are written from their first row on
            pending = ~self.sealed[blocks]
            pending[new_life:] = True
            pending &= blocks != NULL_BLOCK
            first_tail = length // tile - self.keep.tail_tiles
            for index in np.flatnonzero(pending):
                stays = bool(index < self.keep.sink_tiles or index >= first_tail)
                block = int(blocks[index])
                due[block] = due.get(block, False) or stays
            self._let_go_of_old_tail(blocks, first_tail)
        return due

    def _let_go_of_old_tail(self, blocks, first_tail):
        """The block that has just left the tail is as good as never used: it goes before any other."""
        index = first_tail - 1
        if self.keep.sink_tiles <= index < len(blocks):
            block = int(blocks[index])
            if self.sealed[block] and block in self.hot:
                self.last_use[block] = 0

    def _seal(self, seals):
        blocks = np.fromiter(seals, np.int32, len(seals))
        units = self.units_of[blocks].copy() if len(blocks) else np.zeros((0, self.shape.tile_units), np.int32)
        if (units == NONE).any() or (self.filled[blocks] != self.shape.tile_tokens).any():
            raise LostRows("a block is full and known, but its rows are not all there")
        self.sealed[blocks] = True
        self.counts["sealed"] += len(blocks)
        for block, stays in seals.items():
            if not stays or (self.units_of[block] >= self.shape.units).any():
                self._leaving.append(block)
        return blocks, units

    # ---- where rows go

    def _begin_lives(self, batch, starts, lengths):
        """Blocks that are written from their first row on give up what they held, before anyone asks for room."""
        tile = self.shape.tile_tokens
        for row, (start, length) in enumerate(zip(starts, lengths)):
            if batch.query_start[row + 1] == batch.query_start[row]:
                continue
            for index in range(-(-start // tile), (length - 1) // tile + 1):
                block = int(batch.block_table[row, index])
                self._forget(block)
                self.is_sink[block] = index < self.keep.sink_tiles

    def _write_row(self, batch, row, tokens, seals, are_sealed, places):
        """Places for the new rows of one row of the batch: those in blocks that the step seals, or all others."""
        if batch.query_start[row + 1] == batch.query_start[row]:
            return
        start, length = tokens
        tile = self.shape.tile_tokens
        first = int(batch.query_start[row])
        for index in range(start // tile, (length - 1) // tile + 1):
            block = int(batch.block_table[row, index])
            if (block in seals) != are_sealed:
                continue
            begin, end = max(start - index * tile, 0), min(length - index * tile, tile)
            if block == NULL_BLOCK:
                raise LostRows("a row of the batch is written to no block")
            if begin > 0:
                self._go_on(block, begin)
            at = slice(first + index * tile + begin - start, first + index * tile + end - start)
            self._place_rows(block, (begin, end), seals, [place[at] for place in places])

    def _place_rows(self, block, rows, seals, places):
        begin, end = rows
        unit_tokens = self.shape.unit_tokens
        for unit in range(begin // unit_tokens, (end - 1) // unit_tokens + 1):
            if self.units_of[block, unit] == NONE:
                self.units_of[block, unit] = self._take_unit(seals.get(block, True), block in seals)
        offsets = np.arange(begin, end)
        token_unit, token_row = places
        token_unit[:] = self.units_of[block, offsets // unit_tokens]
        token_row[:] = offsets % unit_tokens
        self.filled[block] = end
        self.hot[block] = None

    def _go_on(self, block, begin):
        if self.sealed[block]:
            raise LostRows(f"block {block} is sealed and written again from row {begin} on")
        if self.filled[block] < begin or (self.units_of[block, : -(-begin // self.shape.unit_tokens)] == NONE).any():
            raise LostRows(f"block {block} is written from row {begin} on, but the rows before are gone")
        # Rows beyond were taken back: their units go with them.
        rest = self.units_of[block, -(-begin // self.shape.unit_tokens) :]
        self._give_back(rest)
        rest[:] = NONE

    def _take_unit(self, stays, is_sealed_now):
        """A unit for new rows: of the pool if they are needed after the step, of the staging area if not, or if the pool is
        full and they are needed for nothing but closeness."""
        if is_sealed_now and (not stays or not self._has_room(optional=True)):
            self._staged += 1
            if self._staged > self.shape.staging_units:
                raise PoolExhausted("more rows in one step than the staging area holds")
            return self.shape.units + self._staged - 1
        if not self._has_room(optional=False):
            raise PoolExhausted("the hot pool is full of unfinished blocks")
        return self._free.pop()

    def _has_room(self, optional):
        if self._free:
            return True
        block = self._least_needed(optional)
        if block is None:
            return False
        if self.sealed[block]:
            self.counts["bonus_dropped"] += 1
        elif self.filled[block] == self.shape.tile_tokens:
            self._early.append((block, self.units_of[block].copy()))
            self.sealed[block] = True
            self.counts["orphans_sealed"] += 1
        else:
            self.filled[block] = 0
            self.counts["dead_dropped"] += 1
        self._drop_units(block)
        return True

    def _least_needed(self, optional):
        """The block whose units go next: sealed ones first, of these the one used longest ago, those of a sequence's beginning
        last; a record says the same as its rows, less closely. Then blocks that no row of this step has: one that the engine
        still needs was used more recently than as many others as there are sequences, so the oldest belongs to none. If it is
        full, its sequence may have ended in the step that filled it, and the engine may show it to another: it is sealed."""
        sealed = [b for b in self.hot if self.sealed[b] and not (optional and self.last_use[b] == self.step)]
        if sealed:
            return min(sealed, key=lambda b: (self.last_use[b] == self.step, self.is_sink[b], self.last_use[b]))
        idle = [] if optional else [b for b in self.hot if self.last_use[b] < self.step]
        return min(idle, key=lambda b: self.last_use[b]) if idle else None

    # ---- giving back

    def _release_leaving(self):
        for block in self._leaving:
            self._drop_units(block)
        self._leaving = []

    def _drop_units(self, block):
        self._give_back(self.units_of[block])
        self.units_of[block] = NONE
        self.hot.pop(block, None)

    def _forget(self, block):
        if block in self.hot:
            self._drop_units(block)
        if block in self._leaving:
            self._leaving.remove(block)
        self.filled[block] = 0
        self.sealed[block] = False

    def _give_back(self, units):
        self._free.extend(int(unit) for unit in units if NONE < unit < self.shape.units)

    # ---- what is read

    def _check_reads(self, batch, table, lengths):
        """Every token below a row's length lies in a sealed block or in units."""
        tile = self.shape.tile_tokens
        if table.size == 0:
            return
        need = np.minimum(np.asarray(lengths)[:, None] - np.arange(table.shape[1])[None, :] * tile, tile)
        missing = (table != NULL_BLOCK) & ~self.sealed[table] & (self.filled[table] < need)
        if missing.any():
            row, index = np.argwhere(missing)[0]
            raise LostRows(f"row {row} reads block {table[row, index]}, whose rows are gone")

    def _is_exact(self):
        exact = np.zeros(len(self.filled), bool)
        if self.hot:
            exact[np.fromiter(self.hot, np.int64, len(self.hot))] = True
        return exact
