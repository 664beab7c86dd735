#include "cache_buffer.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "ggml-impl.h"
#include "session_transfer.hpp"

namespace ggml_kvarn {

std::unique_ptr<CacheBuffer> CacheBuffer::create(size_t size, const Settings & settings) {
    void * base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
        GGML_LOG_ERROR("KVarN: the system refuses to reserve %zu MiB of addresses: choose a smaller context (-c)\n", size >> 20);
        return nullptr;
    }
    return std::unique_ptr<CacheBuffer>(new CacheBuffer(base, size, settings));
}

CacheBuffer::CacheBuffer(void * base, size_t size, const Settings & settings) : base_(base), size_(size), settings_(settings) {}

CacheBuffer::~CacheBuffer() {
    say_account();
    forget_outline(number_);
    munmap(base_, size_);
}

void CacheBuffer::add_tensor(const ggml_tensor * tensor) {
    if (const auto name = parse_cache_name(tensor->name)) {
        add_cache_tensor(tensor, *name);
    } else {
        plain_bytes_ += ggml_nbytes(tensor);
    }
}

void CacheBuffer::add_cache_tensor(const ggml_tensor * tensor, const CacheName & name) {
    auto cached = std::make_unique<CacheTensor>();
    cached->shape = *tensor;
    cached->name = name;
    const auto n_cells = static_cast<uint64_t>(tensor->ne[1]);
    const auto n_streams = static_cast<uint64_t>(tensor->ne[2]);
    const bool fits = n_cells > 0 && n_cells < (1u << 31) && n_streams < (1u << 16) && tensor->ne[3] == 1 && tensor->ne[0] % 16 == 0 &&
                      ggml_is_contiguous(tensor);
    if (tensor->type != GGML_TYPE_F16) {
        say_plain_once((std::string("the cache type is ") + ggml_type_name(tensor->type) + ", only f16 caches are compressed").c_str());
    } else if (!fits) {
        say_plain_once("the shape of the cache tensor is not one KVarN compresses");
    } else if (cache_ == nullptr) {
        cache_ = std::make_unique<kvarn::KvCache>(settings_.cache, static_cast<uint32_t>(n_streams), static_cast<uint32_t>(n_cells),
                                                  &memory_limit());
    }
    if (tensor->type == GGML_TYPE_F16 && fits && cache_->cells() == n_cells && cache_->stream_count() == n_streams) {
        cached->store = cache_->add_store(name.side, name.layer, cached->row_values());
        cached->served = true;
        outline_.cells = static_cast<uint32_t>(n_cells);
        outline_.streams = static_cast<uint32_t>(n_streams);
        outline_.layers.insert(name.layer);
        note_outline(number_, outline_);
    } else {
        plain_bytes_ += ggml_nbytes(tensor);
    }
    for (auto & [root, known] : tensors_) {
        if (known->name.layer == name.layer && known->name.tag == name.tag && known->name.side != name.side) {
            known->other = cached.get();
            cached->other = known.get();
        }
    }
    tensors_.emplace(static_cast<const char *>(tensor->data), std::move(cached));
}

kvarn::KvCache & CacheBuffer::cache_for_batch() {
    const uint64_t version = outlines_version();
    if (outlines_version_ != version && is_window_cache(number_)) {
        cache_->expect_window();
    }
    outlines_version_ = version;
    return *cache_;
}

CacheTensor * CacheBuffer::at_address(const void * address) {
    const auto * byte = static_cast<const char *>(address);
    auto after = tensors_.upper_bound(byte);
    if (after == tensors_.begin()) {
        return nullptr;
    }
    const auto & [start, cached] = *--after;
    return byte < start + ggml_nbytes(cached->root) ? cached.get() : nullptr;
}

CacheTensor * CacheBuffer::served(const ggml_tensor * tensor) {
    CacheTensor * found = at_address(root_of(tensor)->data);
    return found != nullptr && found->served ? found : nullptr;
}

bool CacheBuffer::learn_tensor(const ggml_tensor * root) {
    if (at_address(root->data) != nullptr || !parse_cache_name(root->name)) {
        return false;
    }
    add_tensor(root);
    if (const CacheTensor * cached = served(root); cached != nullptr) {
        take_plain_rows(*cached);
    }
    return true;
}

// Only of tensors with a cache's name: what a host sets in every graph (tokens, masks) must not be kept account of.
void CacheBuffer::note_plain_write(const ggml_tensor * tensor, size_t offset, size_t size) {
    if (size > 0 && at_address(tensor->data) == nullptr && is_cache_or_view_name(tensor->name)) {
        const size_t first = static_cast<size_t>(static_cast<const char *>(tensor->data) - static_cast<const char *>(base_)) + offset;
        plain_writes_.emplace_back(first, first + size);
    }
}

void CacheBuffer::take_plain_rows(const CacheTensor & cached) {
    auto * start = static_cast<char *>(cached.root->data);
    const size_t begin = static_cast<size_t>(start - static_cast<const char *>(base_));
    const size_t end = begin + ggml_nbytes(cached.root);
    for (const auto & [first, last] : plain_writes_) {
        if (first >= end || last <= begin) {
            continue;
        }
        const size_t first_row = (std::max(first, begin) - begin) / cached.row_bytes();
        const size_t last_row = (std::min(last, end) - begin + cached.row_bytes() - 1) / cached.row_bytes();
        const size_t offset = first_row * cached.row_bytes();
        set(cached.root, start + offset, offset, last_row * cached.row_bytes() - offset);
    }
    std::erase_if(plain_writes_, [&](const auto & write) { return write.first >= begin && write.second <= end; });
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t first_page = (begin + page - 1) / page * page;
    if (const size_t last_page = end / page * page; first_page < last_page) {
        madvise(static_cast<char *>(base_) + first_page, last_page - first_page, MADV_DONTNEED);
    }
}

// One line when a cache ends: what it really took. The host's own lines count nominal bytes.
void CacheBuffer::say_account() const {
    if (cache_ == nullptr) {
        return;
    }
    const kvarn::CacheAccount account = cache_->account();
    const double mib = 1024.0 * 1024.0;
    const auto taken = static_cast<double>(account.held_bytes());
    GGML_LOG_INFO(
        "KVarN: cache of %zu tensors, %llu tokens: %.2f MiB (records %.2f, exact rows %.2f, slack %.2f, queries %.2f), f16 would take %.2f "
        "MiB\n",
        tensors_.size(), static_cast<unsigned long long>(account.cells_in_use), taken / mib,
        static_cast<double>(account.record_bytes) / mib, static_cast<double>(account.open_row_bytes) / mib,
        static_cast<double>(account.slack_bytes) / mib, static_cast<double>(account.moment_bytes) / mib,
        static_cast<double>(account.f16_bytes) / mib);
}

void CacheBuffer::say_plain_once(const char * reason) {
    static std::mutex mutex;
    static std::set<std::string> said;  // a model may have several caches: one line a reason is enough
    std::lock_guard<std::mutex> lock(mutex);
    const bool first_here = !std::exchange(said_plain_, true);
    if (first_here && said.insert(reason).second) {
        GGML_LOG_WARN("KVarN is inactive for this cache, which stays plain: %s\n", reason);
    }
}

void CacheBuffer::demote(CacheTensor & tensor, const char * reason) {
    say_plain_once(reason);
    for (CacheTensor * side : {&tensor, tensor.other}) {
        if (side == nullptr || !side->served) {
            continue;
        }
        auto * rows = static_cast<std::byte *>(side->root->data);
        for (uint32_t stream = 0; stream < cache_->stream_count(); ++stream) {
            for (uint32_t cell = 0; cell < cache_->cells(); ++cell) {
                if (cache_->written(stream, cell)) {
                    const size_t row = size_t{stream} * cache_->cells() + cell;
                    cache_->read_row(side->store, stream, cell, reinterpret_cast<kvarn::HalfBits *>(rows + row * side->row_bytes()));
                }
            }
        }
        cache_->retire_store(side->store);
        side->served = false;
        plain_bytes_ += ggml_nbytes(side->root);
    }
}

template <class Visit>
void CacheBuffer::for_rows(const CacheTensor & cached, const ggml_tensor * view, size_t offset, size_t size, Visit && visit) {
    const size_t start = offset_in(cached.root, view) + offset;
    const size_t row_bytes = cached.row_bytes();
    for (size_t position = 0; position < size;) {
        const size_t row = (start + position) / row_bytes;
        const size_t first = (start + position) % row_bytes;
        const size_t count = std::min(row_bytes - first, size - position);
        visit(static_cast<uint32_t>(row / cache_->cells()), static_cast<uint32_t>(row % cache_->cells()), first, count, position);
        position += count;
    }
}

void CacheBuffer::get(const ggml_tensor * tensor, void * data, size_t offset, size_t size) {
    const CacheTensor * cached = served(tensor);
    if (cached == nullptr) {
        std::memcpy(data, static_cast<const char *>(tensor->data) + offset, size);
        return;
    }
    if (note_transfer(*cached, tensor, offset, size)) {
        return;
    }
    if (get_state_rows(*cached, tensor, data, offset, size)) {
        return;
    }
    std::vector<kvarn::HalfBits> row(cached->row_values());
    for_rows(*cached, tensor, offset, size, [&](uint32_t stream, uint32_t cell, size_t first, size_t count, size_t position) {
        cache_->read_row(cached->store, stream, cell, row.data());
        std::memcpy(static_cast<char *>(data) + position, reinterpret_cast<const char *>(row.data()) + first, count);
    });
}

bool CacheBuffer::note_transfer(const CacheTensor & cached, const ggml_tensor * view, size_t offset, size_t size) {
    SessionTransfer * transfer = SessionTransfer::current();
    if (transfer == nullptr) {
        return false;
    }
    for_rows(cached, view, offset, size, [&](uint32_t stream, uint32_t cell, size_t, size_t, size_t) {
        transfer->note(*this, cached.store, stream, cell);
    });
    return true;
}

// Whole rows are what the host's state save reads: sealed tiles travel as their records. Its buffer lies wherever the
// blob has got to, at odd addresses too.
bool CacheBuffer::get_state_rows(const CacheTensor & cached, const ggml_tensor * view, void * data, size_t offset, size_t size) {
    constexpr size_t kRowsAtOnce = 256;
    const size_t start = offset_in(cached.root, view) + offset;
    const size_t row_bytes = cached.row_bytes();
    if (start % row_bytes != 0 || size % row_bytes != 0) {
        return false;
    }
    size_t row = start / row_bytes;
    const size_t end = (start + size) / row_bytes;
    auto * out = static_cast<std::byte *>(data);
    std::vector<kvarn::HalfBits> rows;
    while (row < end) {
        const size_t stream = row / cache_->cells();
        const size_t count = std::min({end, (stream + 1) * cache_->cells(), row + kRowsAtOnce}) - row;
        rows.resize(count * cached.row_values());
        cache_->read_state_rows(cached.store, static_cast<uint32_t>(stream), static_cast<uint32_t>(row % cache_->cells()),
                                static_cast<uint32_t>(count), rows.data());
        std::memcpy(out, rows.data(), count * row_bytes);
        row += count;
        out += count * row_bytes;
    }
    return true;
}

void CacheBuffer::set(const ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    const CacheTensor * cached = served(tensor);
    if (cached == nullptr) {
        note_plain_write(tensor, offset, size);
        std::memcpy(static_cast<char *>(tensor->data) + offset, data, size);
        return;
    }
    if (note_transfer(*cached, tensor, offset, size)) {
        return;
    }
    std::vector<kvarn::HalfBits> row(cached->row_values());
    for_rows(*cached, tensor, offset, size, [&](uint32_t stream, uint32_t cell, size_t first, size_t count, size_t position) {
        if (count != cached->row_bytes()) {
            cache_->read_row(cached->store, stream, cell, row.data());
        }
        std::memcpy(reinterpret_cast<char *>(row.data()) + first, static_cast<const char *>(data) + position, count);
        if (cache_->write_state_row(cached->store, stream, cell, row.data()) != kvarn::Status::kOk && !said_full_) {
            GGML_LOG_ERROR("KVarN: out of memory while rows were restored; the cache is incomplete\n");
            said_full_ = true;
        }
    });
}

void CacheBuffer::fill(const ggml_tensor * tensor, uint8_t value, size_t offset, size_t size) {
    const CacheTensor * cached = served(tensor);
    if (cached == nullptr) {
        std::memset(static_cast<char *>(tensor->data) + offset, value, size);
        return;
    }
    std::vector<kvarn::HalfBits> row(cached->row_values());
    for_rows(*cached, tensor, offset, size, [&](uint32_t stream, uint32_t cell, size_t first, size_t count, size_t) {
        if (value == 0 && !cache_->written(stream, cell)) {
            return;  // reads as zeros already
        }
        cache_->read_row(cached->store, stream, cell, row.data());
        std::memset(reinterpret_cast<char *>(row.data()) + first, value, count);
        (void)cache_->write_row(cached->store, stream, cell, row.data());
    });
}

bool CacheBuffer::copy(const ggml_tensor * src, const ggml_tensor * dst) {
    const CacheTensor * from = served(src);
    const CacheTensor * to = served(dst);
    if (from == nullptr && to == nullptr) {
        note_plain_write(dst, 0, ggml_nbytes(src));
        std::memcpy(dst->data, src->data, ggml_nbytes(src));
        return true;
    }
    if (from != to) {
        return false;
    }
    const size_t stream_bytes = from->row_bytes() * cache_->cells();
    const size_t from_bytes = offset_in(from->root, src);
    const size_t to_bytes = offset_in(to->root, dst);
    const bool whole = ggml_nbytes(src) == stream_bytes && ggml_nbytes(dst) == stream_bytes && from_bytes % stream_bytes == 0 &&
                       to_bytes % stream_bytes == 0;
    if (!whole) {
        return false;
    }
    cache_->copy_stream(static_cast<uint32_t>(from_bytes / stream_bytes), static_cast<uint32_t>(to_bytes / stream_bytes));
    return true;
}

void CacheBuffer::clear(uint8_t value) {
    if (cache_ != nullptr) {
        cache_->clear();
    }
    plain_writes_.clear();
    if (value == 0) {
        madvise(base_, size_, MADV_DONTNEED);  // private anonymous pages read as zeros afterwards
        return;
    }
    for (auto & [root, cached] : tensors_) {
        if (cached->served) {
            demote(*cached, "the host filled the cache with a value other than zero");
        }
    }
    std::memset(base_, value, size_);
}

void add_account(const kvarn::CacheAccount & own, ggml_kvarn_account & account) {
    account.record_bytes += own.record_bytes;
    account.open_row_bytes += own.open_row_bytes;
    account.slack_bytes += own.slack_bytes;
    account.map_bytes += own.map_bytes;
    account.scratch_bytes += own.scratch_bytes;
    account.f16_bytes += own.f16_bytes;
    account.cells_in_use += own.cells_in_use;
    account.sealed_tokens += own.sealed_tokens;
    account.moment_bytes += own.moment_bytes;
    account.mapped_bytes += own.foreign_bytes;
}

void CacheBuffer::add_account(ggml_kvarn_account & account) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (tensors_.empty()) {
        return;
    }
    ++account.caches;
    account.plain_bytes += plain_bytes_;
    if (cache_ == nullptr) {
        return;
    }
    ggml_kvarn::add_account(cache_->account(), account);
}

}  // namespace ggml_kvarn
