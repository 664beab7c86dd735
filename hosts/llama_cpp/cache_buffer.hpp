// One buffer of the device: a reservation of addresses. Cache tensors that are served live compressed in a KvCache and never
// touch their addresses; every other tensor (compute values, recurrent state, plain mode) is plain memory there.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cache/kv_cache.hpp"
#include "cache_outlines.hpp"
#include "cache_tensor.hpp"
#include "ggml-backend.h"
#include "ggml-kvarn.h"
#include "settings.hpp"

namespace ggml_kvarn {

// One K or V tensor of one layer. The shape is a copy: a remote host's tensors are made anew for every graph.
struct CacheTensor {
    ggml_tensor shape = {};
    const ggml_tensor * root = &shape;
    CacheName name;
    kvarn::StoreId store = 0;
    bool served = false;            // false: plain memory
    CacheTensor * other = nullptr;  // the layer's other side, if it has one

    uint32_t row_values() const { return static_cast<uint32_t>(root->ne[0]); }
    size_t row_bytes() const { return root->nb[1]; }
};

class CacheBuffer {
  public:
    // Reserves `size` bytes of addresses; nullptr if the system refuses.
    static std::unique_ptr<CacheBuffer> create(size_t size, const Settings & settings);
    ~CacheBuffer();
    CacheBuffer(const CacheBuffer &) = delete;
    CacheBuffer & operator=(const CacheBuffer &) = delete;

    void * base() const { return base_; }
    std::mutex & mutex() { return mutex_; }
    kvarn::KvCache & cache() { return *cache_; }
    // The cache, before a micro-batch is shown to it: it has been told whether its layers have a sliding window.
    kvarn::KvCache & cache_for_batch();

    // Takes note of a tensor that lives here from one graph to the next (not a compute value).
    void add_tensor(const ggml_tensor * tensor);
    // Takes note of a cache tensor that a graph writes to; rows that were set before it was known become its own. True if it was
    // not known.
    bool learn_tensor(const ggml_tensor * root);
    // The served cache tensor behind a tensor or view; nullptr if it is plain memory.
    CacheTensor * served(const ggml_tensor * tensor);
    // Moves a layer's K and V to plain memory for good and says why in one line.
    void demote(CacheTensor & tensor, const char * reason);

    void get(const ggml_tensor * tensor, void * data, size_t offset, size_t size);
    void set(const ggml_tensor * tensor, const void * data, size_t offset, size_t size);
    void fill(const ggml_tensor * tensor, uint8_t value, size_t offset, size_t size);
    // Copies between views of tensors of this buffer; false if the host must do it through get and set.
    bool copy(const ggml_tensor * src, const ggml_tensor * dst);
    void clear(uint8_t value);

    void add_account(ggml_kvarn_account & account);

  private:
    CacheBuffer(void * base, size_t size, const Settings & settings);
    void add_cache_tensor(const ggml_tensor * tensor, const CacheName & name);
    CacheTensor * at_address(const void * address);
    void note_plain_write(const ggml_tensor * tensor, size_t offset, size_t size);
    void take_plain_rows(const CacheTensor & cached);
    // While a session goes past the host, its state calls tell cells and move nothing; false: none does.
    bool note_transfer(const CacheTensor & cached, const ggml_tensor * view, size_t offset, size_t size);
    bool get_state_rows(const CacheTensor & cached, const ggml_tensor * view, void * data, size_t offset, size_t size);
    void say_account() const;
    void say_plain_once(const char * reason);
    // Splits bytes [offset, offset+size) of a served view into rows: visit(stream, cell, first byte in row, bytes, position).
    template <class Visit>
    void for_rows(const CacheTensor & cached, const ggml_tensor * view, size_t offset, size_t size, Visit && visit);

    void * base_;
    size_t size_;
    Settings settings_;
    std::mutex mutex_;
    const uint64_t number_ = next_buffer_number();
    CacheOutline outline_;
    uint64_t outlines_version_ = 0;  // that the cache was told of last
    std::unique_ptr<kvarn::KvCache> cache_;
    std::map<const char *, std::unique_ptr<CacheTensor>> tensors_;  // by address, which is all that a remote host keeps
    std::vector<std::pair<size_t, size_t>> plain_writes_;           // [first, last) byte of what was set of caches not yet known
    size_t plain_bytes_ = 0;                                        // of cache tensors in plain mode
    bool said_plain_ = false;
    bool said_full_ = false;
};

// The buffer behind a tensor if it is one of ours with memory; nullptr otherwise.
CacheBuffer * buffer_of(const ggml_tensor * tensor);

ggml_backend_buffer_type_t buffer_type();

// Adds what a cache says of itself.
void add_account(const kvarn::CacheAccount & own, ggml_kvarn_account & account);

// The cap that all caches of the process share.
kvarn::MemoryLimit & memory_limit();

// All live buffers of the process, summed up.
void account_all(ggml_kvarn_account & account);

}  // namespace ggml_kvarn
