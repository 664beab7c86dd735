// kvarn.Cache and what goes with it.
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "array_rows.hpp"
#include "cache_state.hpp"
#include "python_parts.hpp"

namespace kvarn::python {
namespace {

namespace py = pybind11;
using namespace py::literals;

// What kvarn_query says, with memory of its own.
struct Query {
  kvarn_query query = KVARN_QUERY_INIT;
  std::vector<float> sink_logits;
};

class Step {
 public:
  Step(std::shared_ptr<CacheState> state, std::size_t tokens) : state_(std::move(state)), tokens_(tokens) {}
  Step(Step&&) = default;
  ~Step() { cancel(); }

  std::size_t tokens() const { return tokens_; }

  void append(std::uint32_t layer, const py::object& k, const py::object& v) {
    CacheState& state = open();
    const kvarn_layer& shape = state.layer(layer);
    const auto tokens = static_cast<std::int64_t>(tokens_);
    const ReadRows keys = rows_of(k, {tokens, shape.kv_heads, shape.dim_k}, "k");
    const ReadRows values = rows_of(v, {tokens, shape.kv_heads, shape.dim_v}, "v");
    if (keys.rows.type != values.rows.type) throw py::type_error("k and v must be of one type");
    state.call([&] {
      state.team.start();
      return kvarn_step_append(state.cache.get(), layer, &keys.rows, &values.rows, state.team.runner());
    });
  }

  py::array attend(std::uint32_t layer, const py::object& q, const std::optional<Query>& given, const py::object& out) {
    CacheState& state = open();
    const kvarn_layer& shape = state.layer(layer);
    const auto tokens = static_cast<std::int64_t>(tokens_);
    const ReadRows queries = rows_of(q, {tokens, shape.heads, shape.dim_k}, "q");
    const WriteRows to = rows_for(out, {tokens, shape.heads, shape.dim_v}, KVARN_TYPE_F32);
    if (queries.rows.type != KVARN_TYPE_F32 || to.rows.type != KVARN_TYPE_F32) {
      throw py::type_error("q and out must be float32");
    }
    refuse_overlap(to.array, queries.array);
    kvarn_query query = KVARN_QUERY_INIT;
    if (given) {
      query = given->query;
      if (!given->sink_logits.empty() && given->sink_logits.size() != shape.heads) {
        throw py::value_error("sink_logits must have one value for each query head");
      }
      query.sink_logits = given->sink_logits.empty() ? nullptr : given->sink_logits.data();
    }
    state.call([&] {
      state.team.start();
      return kvarn_step_attend(state.cache.get(), layer, &query, &queries.rows, &to.rows, state.team.runner());
    });
    return to.array;
  }

  void commit() {
    CacheState& state = open();
    state.call([&] { return kvarn_step_commit(state.cache.get()); });
    state_.reset();
  }

  void cancel() {
    if (!state_) return;
    {
      const py::gil_scoped_release others_run;
      const std::lock_guard alone(state_->mutex);
      (void)kvarn_step_cancel(state_->cache.get());
    }
    state_.reset();
  }

 private:
  CacheState& open() const {
    if (!state_) throw StatusError(KVARN_STATUS_OUT_OF_ORDER);
    return *state_;
  }

  std::shared_ptr<CacheState> state_;  // none once the step is over
  std::size_t tokens_;
};

// The tokens to read: all of a sequence, or those of a range.
kvarn_row_range range_of(const py::object& tokens, std::uint32_t length) {
  if (tokens.is_none()) return {0, 0, 0, length};
  if (!PyRange_Check(tokens.ptr()) || tokens.attr("step").cast<int>() != 1) {
    throw py::type_error("tokens must be a range without gaps");
  }
  return {0, 0, tokens.attr("start").cast<std::uint32_t>(), static_cast<std::uint32_t>(py::len(tokens))};
}

class PythonCache {
 public:
  PythonCache(std::vector<kvarn_layer> layers, const kvarn_cache_config& config, const kvarn_cache_limits& limits,
              std::uint32_t threads)
      : state_(std::make_shared<CacheState>(std::move(layers), threads)) {
    kvarn_cache* made = nullptr;
    check(kvarn_cache_create(&config, state_->layers.data(), static_cast<std::uint32_t>(state_->layers.size()), &limits,
                             nullptr, &made));
    state_->cache.reset(made);
  }

  Step begin(const std::vector<std::pair<std::uint32_t, std::uint32_t>>& given) {
    std::vector<kvarn_step_part> parts;
    std::size_t tokens = 0;
    for (const auto& [sequence, count] : given) {
      parts.push_back({sequence, count});
      tokens += count;
    }
    state_->call([&] { return kvarn_step_begin(get(), parts.data(), parts.size()); });
    return Step(state_, tokens);
  }

  std::uint32_t length(std::uint32_t sequence) {
    std::uint32_t tokens = 0;
    state_->call([&] { return kvarn_sequence_length(get(), sequence, &tokens); });
    return tokens;
  }
  void truncate(std::uint32_t sequence, std::uint32_t tokens) {
    state_->call([&] { return kvarn_sequence_truncate(get(), sequence, tokens); });
  }
  void fork(std::uint32_t from, std::uint32_t to) {
    state_->call([&] { return kvarn_sequence_fork(get(), from, to); });
  }
  void drop(std::uint32_t sequence) {
    state_->call([&] { return kvarn_sequence_drop(get(), sequence); });
  }
  void clear() {
    state_->call([&] { return kvarn_cache_clear(get()); });
  }
  void shrink(const std::vector<std::uint32_t>& sequences, std::uint64_t bytes, std::uint32_t lowest_bits) {
    const kvarn_shrink goal{sizeof(kvarn_shrink), sequences.data(), sequences.size(), bytes, lowest_bits};
    state_->call([&] {
      state_->team.start();
      return kvarn_cache_shrink(get(), &goal, state_->team.runner());
    });
  }

  py::array read(std::uint32_t sequence, std::uint32_t layer, const std::string& side, const py::object& tokens,
                 const py::object& out) {
    const kvarn_layer& shape = state_->layer(layer);
    kvarn_row_range range = range_of(tokens, length(sequence));
    range.layer = layer;
    range.side = side_of(side);
    const std::uint32_t dim = range.side == KVARN_SIDE_K ? shape.dim_k : shape.dim_v;
    const WriteRows rows = rows_for(out, {range.count, shape.kv_heads, dim}, KVARN_TYPE_F16);
    if (range.count > 0) {
      state_->call([&] { return kvarn_sequence_read(get(), sequence, &range, &rows.rows); });
    }
    return rows.array;
  }

  kvarn_cache_account account() {
    kvarn_cache_account account = KVARN_CACHE_ACCOUNT_INIT;
    state_->call([&] { return kvarn_cache_get_account(get(), &account); });
    return account;
  }
  kvarn_sequence_account account_of(std::uint32_t sequence) {
    kvarn_sequence_account account = KVARN_SEQUENCE_ACCOUNT_INIT;
    state_->call([&] { return kvarn_sequence_get_account(get(), sequence, &account); });
    return account;
  }
  const std::vector<kvarn_layer>& layers() const { return state_->layers; }
  const std::shared_ptr<CacheState>& state() const { return state_; }

 private:
  kvarn_cache* get() const { return state_->cache.get(); }
  std::shared_ptr<CacheState> state_;
};

kvarn_cache_config config_of(const std::string& preset) {
  kvarn_cache_config config = KVARN_CACHE_CONFIG_INIT;
  check(kvarn_cache_config_preset(&config, preset.c_str()));
  return config;
}

void bind_shapes(py::module_& module) {
  const auto make_layer = [](std::uint32_t heads, std::uint32_t kv_heads, std::uint32_t dim_k,
                             std::optional<std::uint32_t> dim_v) {
    return kvarn_layer{heads, kv_heads, dim_k, dim_v.value_or(dim_k)};
  };
  py::class_<kvarn_layer>(module, "Layer",
                          "One layer's attention: query head h reads KV head h // (heads // kv_heads).")
      .def(py::init(make_layer), "heads"_a, "kv_heads"_a, "dim_k"_a, "dim_v"_a = py::none())
      .def_readonly("heads", &kvarn_layer::heads)
      .def_readonly("kv_heads", &kvarn_layer::kv_heads)
      .def_readonly("dim_k", &kvarn_layer::dim_k)
      .def_readonly("dim_v", &kvarn_layer::dim_v);

  const auto make_config = [](const std::string& preset, const py::kwargs& given) {
    const py::object config = py::cast(config_of(preset));
    for (const auto& [key, value] : given) {
      if (!py::hasattr(config, key)) throw py::type_error("Config has no argument '" + key.cast<std::string>() + "'");
      py::setattr(config, key, value);
    }
    return config.cast<kvarn_cache_config>();
  };
  py::class_<kvarn_cache_config>(module, "Config", "How a cache compresses.")
      .def(py::init(make_config), "preset"_a = "k4v4")
      .def_readwrite("k_bits", &kvarn_cache_config::k_bits)
      .def_readwrite("v_bits", &kvarn_cache_config::v_bits)
      .def_readwrite("sink_tokens", &kvarn_cache_config::sink_tokens)
      .def_readwrite("tail_tokens", &kvarn_cache_config::tail_tokens)
      .def_readwrite("tile_tokens", &kvarn_cache_config::tile_tokens)
      .def_property(
          "level", [](const kvarn_cache_config& config) { return name_of_level(config.level); },
          [](kvarn_cache_config& config, const std::string& name) { config.level = level_of(name); })
      .def_property(
          "fields", [](const kvarn_cache_config& config) { return name_of_fields(config.fields); },
          [](kvarn_cache_config& config, const std::string& name) { config.fields = fields_of(name); });

  const auto make_query = [](float scale, float soft_cap, std::uint32_t window_tokens, std::vector<float> sink_logits) {
    Query made{KVARN_QUERY_INIT, std::move(sink_logits)};
    made.query.scale = scale;
    made.query.soft_cap = soft_cap;
    made.query.window_tokens = window_tokens;
    return made;
  };
  py::class_<Query>(module, "Query", "How attention is computed.")
      .def(py::init(make_query), py::kw_only(), "scale"_a = 0.0f, "soft_cap"_a = 0.0f, "window_tokens"_a = 0,
           "sink_logits"_a = std::vector<float>());
}

void bind_accounts(py::module_& module) {
  py::class_<kvarn_cache_account>(module, "CacheAccount", "Where the bytes of a cache are.")
      .def_readonly("tokens", &kvarn_cache_account::tokens)
      .def_readonly("stored_tokens", &kvarn_cache_account::stored_tokens)
      .def_readonly("record_bytes", &kvarn_cache_account::record_bytes)
      .def_readonly("row_bytes", &kvarn_cache_account::row_bytes)
      .def_readonly("slack_bytes", &kvarn_cache_account::slack_bytes)
      .def_readonly("query_bytes", &kvarn_cache_account::query_bytes)
      .def_readonly("list_bytes", &kvarn_cache_account::list_bytes)
      .def_readonly("scratch_bytes", &kvarn_cache_account::scratch_bytes)
      .def_readonly("f16_bytes", &kvarn_cache_account::f16_bytes)
      .def_readonly("mapped_bytes", &kvarn_cache_account::mapped_bytes);
  py::class_<kvarn_sequence_account>(module, "SequenceAccount", "Where the bytes of one sequence are.")
      .def_readonly("tokens", &kvarn_sequence_account::tokens)
      .def_readonly("sealed_tokens", &kvarn_sequence_account::sealed_tokens)
      .def_readonly("held_bytes", &kvarn_sequence_account::held_bytes)
      .def_readonly("own_bytes", &kvarn_sequence_account::own_bytes)
      .def_readonly("f16_bytes", &kvarn_sequence_account::f16_bytes);
}

void bind_step(py::module_& module) {
  py::class_<Step>(module, "Step", "Tokens that are being added; append and attend every layer, then commit.")
      .def_property_readonly("tokens", &Step::tokens)
      .def("append", &Step::append, "layer"_a, "k"_a, "v"_a)
      .def("attend", &Step::attend, "layer"_a, "q"_a, "query"_a = py::none(), "out"_a = py::none())
      .def("commit", &Step::commit)
      .def("cancel", &Step::cancel)
      .def("__enter__", [](py::object self) { return self; })
      .def("__exit__", [](Step& step, const py::object& type, const py::object&, const py::object&) {
        if (type.is_none()) {
          step.commit();
        } else {
          step.cancel();
        }
      });
}

}  // namespace

std::shared_ptr<CacheState> state_of(const py::object& cache) { return cache.cast<PythonCache&>().state(); }

void bind_cache(py::module_& module) {
  bind_shapes(module);
  bind_accounts(module);
  bind_step(module);
  const auto make = [](std::vector<kvarn_layer> layers, const py::object& config, std::uint32_t sequences,
                       std::uint32_t tokens, std::uint64_t bytes, std::uint32_t threads) {
    const kvarn_cache_limits limits{sizeof(kvarn_cache_limits), sequences, tokens, bytes};
    const auto chosen =
        py::isinstance<py::str>(config) ? config_of(config.cast<std::string>()) : config.cast<kvarn_cache_config>();
    return std::make_unique<PythonCache>(std::move(layers), chosen, limits, threads);
  };
  py::class_<PythonCache>(module, "Cache", "The keys and values of many sequences in all layers of a model.")
      .def(py::init(make), "layers"_a, "config"_a = "k4v4", py::kw_only(), "sequences"_a = 1, "tokens"_a = 4096,
           "bytes"_a = 0, "threads"_a = 1)
      .def_property_readonly("layers", &PythonCache::layers)
      .def("begin", &PythonCache::begin, "parts"_a)
      .def(
          "begin",
          [](PythonCache& cache, std::uint32_t sequence, std::uint32_t tokens) {
            return cache.begin({{sequence, tokens}});
          },
          "sequence"_a, "tokens"_a)
      .def("length", &PythonCache::length, "sequence"_a)
      .def("truncate", &PythonCache::truncate, "sequence"_a, "tokens"_a)
      .def("fork", &PythonCache::fork, "source"_a, "target"_a)
      .def("drop", &PythonCache::drop, "sequence"_a)
      .def("clear", &PythonCache::clear)
      .def("shrink", &PythonCache::shrink, "sequences"_a, "bytes"_a, "lowest_bits"_a = 2)
      .def("read", &PythonCache::read, "sequence"_a, "layer"_a, "side"_a, "tokens"_a = py::none(), "out"_a = py::none())
      .def("account", &PythonCache::account)
      .def("account", &PythonCache::account_of, "sequence"_a);
}

}  // namespace kvarn::python
