"""A plan and a batch as the compiled part takes them. Knows neither engine nor torch."""


def step_arrays(plan, batch):
    return {"early_blocks": plan.early_blocks, "early_units": plan.early_units, "seal_blocks": plan.seal_blocks,
            "seal_units": plan.seal_units, "token_unit": plan.token_unit, "token_row": plan.token_row,
            "block_units": plan.block_units, "is_exact": plan.is_exact, "query_start": batch.query_start,
            "seq_lens": batch.seq_lens, "block_table": batch.block_table}
