"""What this process does with the model at hand: records, exact rows, or vLLM's own cache, and why. One decision for all layers,
made when the first layer is made and final when the model is loaded."""

from dataclasses import dataclass, replace

from kvarn_vllm import _native, settings
from kvarn_vllm.hot_blocks import Keep, PoolShape

TILE, UNIT = _native.TILE_TOKENS, _native.UNIT_TOKENS
# Proposals that come without layers of their own; others would need pages of their own in the plan.
DRAFTS_WITHOUT_LAYERS = {"ngram", "suffix"}


def model_obstacle(config):
    """Why no layer of this model can have compressed pages; None if nothing speaks against it."""
    speculative, parallel = config.speculative_config, config.parallel_config
    if config.kv_transfer_config is not None:
        return "a KV connector would ship unfinished blocks"
    if speculative is not None and speculative.method not in DRAFTS_WITHOUT_LAYERS:
        return f"speculation by '{speculative.method}' has layers of its own"
    if parallel.decode_context_parallel_size > 1 or getattr(parallel, "prefill_context_parallel_size", 1) > 1:
        return "context parallelism divides blocks between machines"
    if config.cache_config.block_size not in (None, TILE):
        return f"blocks have {config.cache_config.block_size} tokens, not {TILE} (leave --block-size out)"
    if config.cache_config.cache_dtype not in ("auto", "float16", "bfloat16"):
        return f"--kv-cache-dtype {config.cache_config.cache_dtype} compresses already"
    if config.use_v2_model_runner:
        return "model runner V2 is not tested (VLLM_USE_V2_MODEL_RUNNER=0)"
    return None


def layer_obstacle(layer):
    """The same for what one layer wants; `layer` has the members of vLLM's attention implementation."""
    if layer.attn_type != "decoder":
        return f"attention of type '{getattr(layer.attn_type, 'value', layer.attn_type)}'"
    if layer.alibi_slopes is not None:
        return "ALiBi"
    if layer.head_size % 16 != 0 or layer.head_size > 1024:
        return f"heads of {layer.head_size} channels"
    if layer.kv_sharing_target_layer_name is not None:
        return "layers that share the cache of another layer"
    return None


@dataclass(frozen=True)
class LayerShape:
    kv_heads: int
    dim: int


class EnginePlan:
    """Settings, obstacles, and the sizes that follow from them."""

    def __init__(self, config, logger):
        self.config = config
        self.logger = logger
        self.settings = settings.read((config.additional_config or {}).get("kvarn"))
        self.is_final = False
        self.layers = 0
        self.hot_bytes = 0
        self.page_bytes = [0, 0]  # of all layers: ours, the engine's
        self.groups = []  # the HotBlocks of every group of layers
        self.shared = {}  # by LayerShape
        self.obstacle = None
        self.k_bits = self.v_bits = 0
        if self.settings.preset == settings.OFF:
            return
        if self.settings.preset != settings.ROWS:
            self.k_bits, self.v_bits = _native.preset_bits(self.settings.preset)
        self.obstacle = model_obstacle(config)
        if self.obstacle is None and self.settings.deterministic and self.speculative_tokens:
            self.obstacle = "deterministic reads and speculation exclude each other"

    @property
    def is_on(self):
        return self.settings.preset != settings.OFF and self.obstacle is None

    @property
    def keeps_records(self):
        return self.is_on and self.settings.preset != settings.ROWS

    @property
    def speculative_tokens(self):
        speculative = self.config.speculative_config
        return 0 if speculative is None else speculative.num_speculative_tokens or 0

    def add_layer(self, layer):
        """A layer that is being made."""
        if self.is_on:
            self.obstacle = layer_obstacle(layer)

    def settle(self):
        """The model is loaded: no obstacle can come up any more. Says once what is done."""
        if self.is_final:
            return
        self.is_final = True
        if self.settings.preset != settings.OFF and self.obstacle is not None:
            self.logger.warning("KVarN is not used, vLLM's own cache is: %s", self.obstacle)

    def pool_shape(self):
        """Units of one layer: what the settings say, and no less than the sequences may need."""
        scheduler = self.config.scheduler_config
        sequences = scheduler.max_num_seqs
        staging = scheduler.max_num_batched_tokens // UNIT + 2 * sequences + 1
        shape = PoolShape(TILE, UNIT, self.settings.hot_tiles * (TILE // UNIT), staging)
        return replace(shape, units=max(shape.units, shape.least_units(sequences, self.speculative_tokens)))

    def keep(self):
        return Keep(self.settings.sink_tiles, self.settings.tail_tiles)

    def bytes_per_token(self, kv_heads, dim):
        """Of one KV head, keys and values."""
        return _native.bytes_per_token(kv_heads, dim, dim, self.k_bits, self.v_bits, self.settings.fields)

    def count_layer(self, hot_bytes, page_bytes, stock_page_bytes):
        """Rows beside the pages are paid for by the memory that the user has set for the cache."""
        self.layers += 1
        self.hot_bytes += hot_bytes
        self.page_bytes[0] += page_bytes
        self.page_bytes[1] += stock_page_bytes
        cache = self.config.cache_config
        if cache.kv_cache_memory_bytes is not None:
            cache.kv_cache_memory_bytes = max(0, cache.kv_cache_memory_bytes - hot_bytes)

    def summary(self, instruction_set):
        mine, stock = self.page_bytes
        return (f"KVarN: {self.layers} layers, preset {self.settings.preset}, {mine} bytes for {TILE} tokens instead of {stock} "
                f"({stock / mine:.2f}x), {self.hot_bytes / 2**20:.0f} MiB of exact rows beside them, {instruction_set}")


_current = None


def current(config, logger):
    """The plan of this configuration; made when it is asked for the first time."""
    global _current  # pylint: disable=global-statement
    if _current is None or _current.config is not config:
        _current = EnginePlan(config, logger)
    return _current


def latest():
    """The plan of the model that was made last; None before any."""
    return _current
