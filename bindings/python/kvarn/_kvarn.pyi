"""What the compiled module holds. kvarn.h says more about each call."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import Buffer

Side = Literal["k", "v"]
Level = Literal["default", "official", "scaled", "fast", "best", "plain"]
Fields = Literal["half", "byte"]

__version__: str

def kernels() -> str:
    """The kernels in use, for example "avx2"."""

def choose_kernels(name: str) -> None:
    """Uses other kernels from now on, in the whole process, while no other call runs: for tests and comparisons. Raises
    InvalidArgument if the processor has none of this name."""

def checksum(bytes: Buffer) -> int:
    """XXH3, 64 bits, of memory that lies side by side: finds damage, not forgery."""

class Error(Exception):
    """A call of the library that failed; it has changed nothing, unless it says otherwise."""

class InvalidArgument(Error, ValueError):
    """A number outside its documented range."""

class NonFinite(Error, ValueError):
    """A NaN or an infinity where a record must be finite."""

class OutOfRange(Error, ValueError):
    """Rows that no record can hold (levels official and scaled)."""

class OutOfMemory(Error, MemoryError):
    """The system or the limit of a cache refuses memory."""

class Corrupt(Error, ValueError):
    """Bytes that no encoder wrote."""

class OutOfOrder(Error, RuntimeError):
    """A call that the state of the cache does not allow now."""

class Full(Error, RuntimeError):
    """More than the cache was made for."""

class NotFound(Error, FileNotFoundError):
    """There is no such session file."""

class ReadFailed(Error, OSError):
    """The system does not let the file be read."""

class WriteFailed(Error, OSError):
    """The system does not let the file be written."""

class NoSpace(Error, OSError):
    """The file system is full."""

class Busy(Error, OSError):
    """Somebody else is saving to this file."""

class NotASession(Error, ValueError):
    """It does not begin as a session does."""

class UnknownVersion(Error, ValueError):
    """A session of a format version that this library does not know."""

class OtherShape(Error, ValueError):
    """The cache has other layers, widths, tiles or sink than the session."""

class TooLarge(Error, ValueError):
    """More bytes than the receiver takes."""

class Damaged(Error, ValueError):
    """A session that is not as it was written; the message says which piece of it."""

class Codec:
    """Tiles of keys or values to records and back (docs/format/tile_record.md). Holds no data between calls.

    bits: 8, 6, 5, 4, 3 or 2. dim, tile_tokens: multiples of 16, 16 to 1024. threads: 1 to 1024; they change no result.
    Several Python threads may use one codec; they take turns.
    """

    def __init__(
        self,
        side: Side,
        bits: int,
        dim: int,
        heads: int = 1,
        *,
        tile_tokens: int = 128,
        level: Level = "default",
        fields: Fields = "half",
        threads: int = 1,
    ) -> None: ...
    def encode(
        self, rows: ArrayLike, out: NDArray[np.uint8] | None = None, dtype: Literal["bfloat16"] | None = None
    ) -> NDArray[np.uint8]:
        """Rows [tiles * tile_tokens, heads, dim], float16 or float32, to records [tiles, heads, record_bytes], written to `out` or
        to a new array.

        dtype="bfloat16": rows are the bits of bfloat16, as uint16. Rows are read in place if the channels of a head lie side by
        side and no stride is negative, else copied. float32 and bfloat16 are rounded to half precision. Raises NonFinite, and at
        levels official and scaled OutOfRange.
        """

    def decode(
        self, records: ArrayLike, out: NDArray[Any] | None = None, dtype: Literal["bfloat16"] | None = None
    ) -> NDArray[Any]:
        """Records to rows [tiles * tile_tokens, heads, dim], written to `out` or to a new array of float16.
        dtype="bfloat16": rows are the bits of bfloat16, as uint16."""

    def validate(self, records: ArrayLike) -> None:
        """Raises Corrupt if these bytes, which came from elsewhere, are not records of this codec."""

    @property
    def side(self) -> Side: ...
    @property
    def bits(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def tile_tokens(self) -> int: ...
    @property
    def level(self) -> Level: ...
    @property
    def fields(self) -> Fields: ...
    @property
    def threads(self) -> int: ...
    @property
    def record_bytes(self) -> int:
        """Of one head of one tile."""

    @property
    def bits_per_value(self) -> float:
        """All of a record counted."""

class Layer:
    """One layer's attention: query head h reads KV head h // (heads // kv_heads). dim_v: as dim_k if it is None."""

    def __init__(self, heads: int, kv_heads: int, dim_k: int, dim_v: int | None = None) -> None: ...
    @property
    def heads(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def dim_k(self) -> int: ...
    @property
    def dim_v(self) -> int: ...

class Config:
    """How a cache compresses: a preset ("f16", "k4v4", "k8v4" ..., "near-lossless", "balanced", "small", "smallest") and what
    differs from it. k_bits, v_bits: 8, 6, 5, 4, 3 or 2, or 16 on both sides."""

    k_bits: int
    v_bits: int
    level: Level
    sink_tokens: int
    tail_tokens: int
    tile_tokens: int
    fields: Fields
    def __init__(
        self,
        preset: str = "k4v4",
        *,
        k_bits: int = ...,
        v_bits: int = ...,
        level: Level = ...,
        sink_tokens: int = ...,
        tail_tokens: int = ...,
        tile_tokens: int = ...,
        fields: Fields = ...,
    ) -> None: ...

class Query:
    """How attention is computed. scale 0: 1 / sqrt(dim_k). soft_cap 0: none. window_tokens 0: all tokens. sink_logits: one for
    each query head, or none."""

    def __init__(
        self, *, scale: float = 0.0, soft_cap: float = 0.0, window_tokens: int = 0, sink_logits: Sequence[float] = ()
    ) -> None: ...

class CacheAccount:
    """Where the bytes of a cache are. What sequences share counts once."""

    @property
    def tokens(self) -> int:
        """Of all sequences."""

    @property
    def stored_tokens(self) -> int:
        """Tokens whose rows are in memory: shared ones once."""

    @property
    def record_bytes(self) -> int:
        """Sealed."""

    @property
    def row_bytes(self) -> int:
        """Exact."""

    @property
    def slack_bytes(self) -> int:
        """Taken for rows and records, not in use."""

    @property
    def query_bytes(self) -> int:
        """What the encoder remembers of queries."""

    @property
    def list_bytes(self) -> int:
        """Which tile is where."""

    @property
    def scratch_bytes(self) -> int:
        """Working memory that is kept between calls."""

    @property
    def f16_bytes(self) -> int:
        """What all sequences would take as half-precision rows with nothing shared."""

    @property
    def mapped_bytes(self) -> int:
        """Records of mapped sessions: of their files, in memory only while they are read."""

class SequenceAccount:
    """Where the bytes of one sequence are. What sequences share counts for each of them."""

    @property
    def tokens(self) -> int: ...
    @property
    def sealed_tokens(self) -> int:
        """In tiles that every layer has sealed."""

    @property
    def held_bytes(self) -> int:
        """Of records and rows, and what is remembered of queries."""

    @property
    def own_bytes(self) -> int:
        """Of these, what dropping the sequence gives back."""

    @property
    def f16_bytes(self) -> int: ...

class Step:
    """Tokens that are being added: append and attend every layer, then commit. As a context manager it commits at the end, and
    cancels when an exception passes; a step that goes away is cancelled."""

    @property
    def tokens(self) -> int: ...
    def append(self, layer: int, k: ArrayLike, v: ArrayLike) -> None:
        """Rows of all tokens of the step: k [tokens, kv_heads, dim_k], v [tokens, kv_heads, dim_v], both float16 or float32."""

    def attend(
        self, layer: int, q: ArrayLike, query: Query | None = None, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Attention of all tokens of the step, causal: q [tokens, heads, dim_k] to [tokens, heads, dim_v]."""

    def commit(self) -> None:
        """The tokens belong to their sequences now. Raises OutOfOrder if a layer has no rows."""

    def cancel(self) -> None: ...
    def __enter__(self) -> Step: ...
    def __exit__(self, type: Any, value: Any, traceback: Any) -> None: ...

class Cache:
    """The keys and values of many sequences, numbered from 0, in all layers of a model.

    sequences, tokens: how many sequences, and how long one may get; memory is taken as it is needed. bytes: cap on rows and
    records, 0: none. threads: 1 to 1024; they change no result. Several Python threads may use one cache; they take turns.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        config: Config | str = "k4v4",
        *,
        sequences: int = 1,
        tokens: int = 4096,
        bytes: int = 0,
        threads: int = 1,
    ) -> None: ...
    @property
    def layers(self) -> list[Layer]: ...
    @overload
    def begin(self, parts: Sequence[tuple[int, int]]) -> Step:
        """Adds tokens to several sequences: (sequence, tokens) each. Raises Full, OutOfOrder, OutOfMemory."""

    @overload
    def begin(self, sequence: int, tokens: int) -> Step: ...
    def length(self, sequence: int) -> int: ...
    def truncate(self, sequence: int, tokens: int) -> None:
        """Leaves the first `tokens` tokens."""

    def fork(self, source: int, target: int) -> None:
        """Makes the empty sequence `target` begin with all tokens of `source`; all bytes are shared."""

    def drop(self, sequence: int) -> None: ...
    def clear(self) -> None: ...
    def shrink(self, sequences: Sequence[int], bytes: int, lowest_bits: int = 2) -> None:
        """Makes old tiles of these sequences smaller, to 8, 4, 2 bits, until rows and records take no more than `bytes`; the
        first named give way first. Raises Full if that was not enough."""

    def read(
        self, sequence: int, layer: int, side: Side, tokens: range | None = None, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Copies rows [tokens, kv_heads, dim], written to `out` or to a new array of float16."""

    @overload
    def account(self) -> CacheAccount: ...
    @overload
    def account(self, sequence: int) -> SequenceAccount: ...

class SaveReport:
    """What a save did."""

    @property
    def commit(self) -> int:
        """Number of this save in the file, from 1."""

    @property
    def written_bytes(self) -> int:
        """By this save."""

    @property
    def file_bytes(self) -> int: ...
    @property
    def live_bytes(self) -> int:
        """What a file with nothing but this save would take."""

    @property
    def new_tiles(self) -> int: ...
    @property
    def whole(self) -> bool:
        """A new file took the place of the old one; False: appended."""

class Session:
    """An open session file: the newest whole save in it. Sequences that were loaded keep what they need of it.

    Raises NotFound, ReadFailed, NotASession, UnknownVersion, Damaged.
    """

    def __init__(self, path: str | bytes | PathLike[str]) -> None: ...
    @staticmethod
    def receive(read: Callable[[int], bytes], max_bytes: int) -> Session:
        """Takes one session from read(size), which returns at most that many bytes and b"" at the end, and no byte beyond.
        Raises TooLarge, Damaged."""

    @property
    def version(self) -> int:
        """Of the format."""

    @property
    def parts(self) -> int:
        """Sequences in it."""

    @property
    def commit(self) -> int:
        """Number of the save in its file, from 1."""

    @property
    def file_bytes(self) -> int: ...
    @property
    def live_bytes(self) -> int: ...
    @property
    def model(self) -> bytes: ...
    @property
    def metadata(self) -> bytes: ...
    def length(self, part: int = 0) -> int:
        """Tokens of a sequence."""

    def tokens(self, part: int = 0) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
        """Ids and positions."""

    def layers(self, part: int = 0) -> list[Layer]:
        """Of a cache that the sequence fits. Raises OtherShape if there is none."""

    def config(self, part: int = 0) -> Config:
        """Likewise."""

    def load(self, cache: Cache, sequence: int = 0, part: int = 0, mapped: bool = True) -> None:
        """Makes an empty sequence of a cache the one that was saved. mapped: records stay in the file and are read and checked
        when attention asks for them. Raises OtherShape, Full, OutOfMemory, Damaged; the sequence is empty then."""

    def verify(self) -> None:
        """Checks every byte that loading and attention would ever use. Raises Damaged."""

def save_session(
    path: str | bytes | PathLike[str],
    cache: Cache,
    sequence: int = 0,
    *,
    tokens: ArrayLike | None = None,
    positions: ArrayLike | None = None,
    model: bytes = b"",
    metadata: bytes = b"",
    sync: bool = True,
    compact: bool = False,
) -> SaveReport:
    """Saves a sequence to a file: what is new since the file's last save, or a whole new one (always if `compact`). Whatever
    happens, the file holds the previous save or this one. tokens: ids below 2**32; positions: 0, 1, 2 ... if not given. With
    sync=False a save survives the end of the process, but perhaps no power failure. Raises WriteFailed, NoSpace, Busy, and what
    Session raises for a file that is there."""

def send_session(
    write: Callable[[bytes], object],
    cache: Cache,
    sequence: int = 0,
    *,
    tokens: ArrayLike | None = None,
    positions: ArrayLike | None = None,
    model: bytes = b"",
    metadata: bytes = b"",
) -> int:
    """Gives the bytes of a new session file to write(), which must take all of each piece and not use the cache; returns how many
    there were. An exception of write() ends it."""

def load_session(
    path: str | bytes | PathLike[str], cache: Cache, sequence: int = 0, *, mapped: bool = True
) -> Session:
    """Session(path).load(cache, sequence), and returns the session."""

def verify_session(path: str | bytes | PathLike[str]) -> None:
    """Session(path).verify()"""
