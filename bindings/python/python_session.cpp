// kvarn.Session and what saves, sends and receives sessions.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cache_state.hpp"
#include "python_parts.hpp"

namespace kvarn::python {
namespace {

namespace py = pybind11;
using namespace py::literals;

std::string path_of(const py::object& path) {
  return py::module_::import("os").attr("fsencode")(path).cast<std::string>();
}

kvarn_const_buffer buffer_of(const py::bytes& bytes) {
  const auto view = static_cast<std::string_view>(bytes);
  return {view.data(), view.size()};
}
py::bytes bytes_of(const kvarn_const_buffer& buffer) {
  return py::bytes(static_cast<const char*>(buffer.data), buffer.bytes);
}

// Whole numbers between two bounds, from anything that numpy makes an array of.
std::vector<std::int64_t> numbers_of(const py::object& from, std::int64_t low, std::int64_t high, const char* name) {
  const py::array given = py::array::ensure(from);
  if (!given || given.ndim() != 1) throw py::value_error(std::string(name) + " must be one row of numbers");
  const char kind = given.dtype().kind();
  if (given.size() > 0 && kind != 'i' && kind != 'u') throw py::type_error(std::string(name) + " must be integers");
  const auto numbers = py::array_t<std::int64_t, py::array::c_style | py::array::forcecast>::ensure(given);
  const std::vector<std::int64_t> values(numbers.data(), numbers.data() + numbers.size());
  for (const std::int64_t value : values) {
    if (value < low || value > high) throw py::value_error(std::string(name) + " do not fit 32 bits");
  }
  return values;
}

// The tokens of a sequence of `length` tokens; none if none were given.
std::vector<kvarn_token> tokens_of(const py::object& ids, const py::object& positions, std::uint32_t length) {
  if (ids.is_none() && positions.is_none()) return {};
  std::vector<kvarn_token> tokens(length);
  for (std::uint32_t at = 0; at < length; ++at) tokens[at] = {0, static_cast<std::int32_t>(at)};
  const auto of = [&](const py::object& from, std::int64_t low, std::int64_t high, const char* name) {
    std::vector<std::int64_t> values = numbers_of(from, low, high, name);
    if (values.size() != length)
      throw py::value_error(std::string(name) + " must be as many as the sequence has tokens");
    return values;
  };
  if (!ids.is_none()) {
    const auto values = of(ids, 0, UINT32_MAX, "tokens");
    for (std::uint32_t at = 0; at < length; ++at) tokens[at].id = static_cast<std::uint32_t>(values[at]);
  }
  if (!positions.is_none()) {
    const auto values = of(positions, INT32_MIN, INT32_MAX, "positions");
    for (std::uint32_t at = 0; at < length; ++at) tokens[at].position = static_cast<std::int32_t>(values[at]);
  }
  return tokens;
}

// One sequence of a cache with all that goes with it, for the length of a call.
struct Saved {
  Saved(const py::object& cache, std::uint32_t sequence, const py::object& ids, const py::object& positions,
        const py::bytes& model, const py::bytes& metadata)
      : state(state_of(cache)) {
    std::uint32_t length = 0;
    state->call([&] { return kvarn_sequence_length(state->cache.get(), sequence, &length); });
    tokens = tokens_of(ids, positions, length);
    part = {state->cache.get(), sequence, tokens.empty() ? nullptr : tokens.data(), tokens.size()};
    content.parts = &part;
    content.part_count = 1;
    content.model = buffer_of(model);
    content.metadata = buffer_of(metadata);
  }
  Saved(const Saved&) = delete;
  Saved& operator=(const Saved&) = delete;

  std::shared_ptr<CacheState> state;
  std::vector<kvarn_token> tokens;
  kvarn_session_part part;
  kvarn_session_content content = KVARN_SESSION_CONTENT_INIT;
};

kvarn_save_report save(const py::object& path, const py::object& cache, std::uint32_t sequence,
                       const py::object& tokens, const py::object& positions, const py::bytes& model,
                       const py::bytes& metadata, bool sync, bool compact) {
  const Saved saved(cache, sequence, tokens, positions, model, metadata);
  const std::string name = path_of(path);
  const kvarn_save_flags flags = (sync ? 0u : KVARN_SAVE_UNSYNCED) | (compact ? KVARN_SAVE_COMPACT : 0u);
  kvarn_save_report report = KVARN_SAVE_REPORT_INIT;
  saved.state->call([&] { return kvarn_session_save(name.c_str(), &saved.content, flags, &report); });
  return report;
}

// A Python function that takes or gives bytes while the library works, and what it threw.
struct Callback {
  py::object function;
  std::exception_ptr thrown;

  // Runs body() with the interpreter held; false if it threw.
  template <class Body>
  bool run(Body&& body) {
    const py::gil_scoped_acquire own;
    try {
      body();
      return true;
    } catch (...) {
      thrown = std::current_exception();
      return false;
    }
  }
};

std::uint64_t send(const py::object& write, const py::object& cache, std::uint32_t sequence, const py::object& tokens,
                   const py::object& positions, const py::bytes& model, const py::bytes& metadata) {
  const Saved saved(cache, sequence, tokens, positions, model, metadata);
  Callback callback{write, nullptr};
  const kvarn_sink sink{&callback, [](void* context, const void* bytes, std::size_t size) {
                          auto& own = *static_cast<Callback*>(context);
                          const bool goes_on =
                              own.run([&] { own.function(py::bytes(static_cast<const char*>(bytes), size)); });
                          return goes_on ? KVARN_STATUS_OK : KVARN_STATUS_WRITE_FAILED;
                        }};
  std::uint64_t sent = 0;
  try {
    saved.state->call([&] { return kvarn_session_send(&saved.content, &sink, &sent); });
  } catch (const StatusError&) {
    if (callback.thrown) std::rethrow_exception(callback.thrown);
    throw;
  }
  return sent;
}

struct Close {
  void operator()(kvarn_session* session) const { kvarn_session_close(session); }
};

class PythonSession {
 public:
  explicit PythonSession(kvarn_session* opened) : session_(opened) {}

  static std::unique_ptr<PythonSession> open(const py::object& path) {
    const std::string name = path_of(path);
    kvarn_session* opened = nullptr;
    {
      const py::gil_scoped_release others_run;
      check(kvarn_session_open(name.c_str(), &opened));
    }
    return std::make_unique<PythonSession>(opened);
  }

  static std::unique_ptr<PythonSession> receive(const py::object& read, std::uint64_t max_bytes) {
    Callback callback{read, nullptr};
    const kvarn_source source{&callback, [](void* context, void* bytes, std::size_t size) {
                                auto& own = *static_cast<Callback*>(context);
                                std::size_t got = 0;
                                (void)own.run([&] {
                                  const py::bytes given = own.function(size);
                                  const auto view = static_cast<std::string_view>(given);
                                  if (view.size() > size)
                                    throw py::value_error("read() gave more bytes than were asked for");
                                  std::memcpy(bytes, view.data(), view.size());
                                  got = view.size();
                                });
                                return got;
                              }};
    kvarn_session* opened = nullptr;
    kvarn_status status;
    {
      const py::gil_scoped_release others_run;
      status = kvarn_session_receive(&source, max_bytes, &opened);
    }
    if (callback.thrown) {
      kvarn_session_close(opened);
      std::rethrow_exception(callback.thrown);
    }
    check(status);
    return std::make_unique<PythonSession>(opened);
  }

  kvarn_session_info info() const {
    kvarn_session_info info = KVARN_SESSION_INFO_INIT;
    check(kvarn_session_get_info(session_.get(), &info));
    return info;
  }
  std::uint64_t length(std::uint32_t part) const { return part_info(part).tokens; }

  py::tuple tokens(std::uint32_t part) const {
    std::vector<kvarn_token> tokens(part_info(part).tokens);
    check(kvarn_session_get_tokens(session_.get(), part, tokens.data(), tokens.size()));
    py::array_t<std::uint32_t> ids(static_cast<py::ssize_t>(tokens.size()));
    py::array_t<std::int32_t> positions(static_cast<py::ssize_t>(tokens.size()));
    std::transform(tokens.begin(), tokens.end(), ids.mutable_data(), [](const kvarn_token& token) { return token.id; });
    std::transform(tokens.begin(), tokens.end(), positions.mutable_data(),
                   [](const kvarn_token& token) { return token.position; });
    return py::make_tuple(ids, positions);
  }

  kvarn_cache_config config(std::uint32_t part) const { return shape(part).first; }
  std::vector<kvarn_layer> layers(std::uint32_t part) const { return shape(part).second; }

  void load(const py::object& cache, std::uint32_t sequence, std::uint32_t part, bool mapped) const {
    const std::shared_ptr<CacheState> state = state_of(cache);
    const kvarn_records records = mapped ? KVARN_RECORDS_MAPPED : KVARN_RECORDS_COPIED;
    state->call([&] { return kvarn_session_load(session_.get(), part, state->cache.get(), sequence, records); });
  }

  void verify() const {
    const py::gil_scoped_release others_run;
    check(kvarn_session_verify(session_.get()));
  }

 private:
  kvarn_session_part_info part_info(std::uint32_t part) const {
    kvarn_session_part_info info = KVARN_SESSION_PART_INFO_INIT;
    check(kvarn_session_get_part(session_.get(), part, &info));
    return info;
  }
  std::pair<kvarn_cache_config, std::vector<kvarn_layer>> shape(std::uint32_t part) const {
    kvarn_cache_config config = KVARN_CACHE_CONFIG_INIT;
    std::vector<kvarn_layer> layers(part_info(part).layer_count);
    if (layers.empty()) throw StatusError(KVARN_STATUS_OTHER_SHAPE);
    check(kvarn_session_get_shape(session_.get(), part, &config, layers.data(), layers.size()));
    return {config, layers};
  }

  std::unique_ptr<kvarn_session, Close> session_;
};

std::unique_ptr<PythonSession> load_session(const py::object& path, const py::object& cache, std::uint32_t sequence,
                                            bool mapped) {
  auto session = PythonSession::open(path);
  session->load(cache, sequence, 0, mapped);
  return session;
}

void bind_functions(py::module_& module) {
  module.def("save_session", &save, "path"_a, "cache"_a, "sequence"_a = 0, py::kw_only(), "tokens"_a = py::none(),
             "positions"_a = py::none(), "model"_a = py::bytes(), "metadata"_a = py::bytes(), "sync"_a = true,
             "compact"_a = false, "Saves a sequence to a file.");
  module.def("send_session", &send, "write"_a, "cache"_a, "sequence"_a = 0, py::kw_only(), "tokens"_a = py::none(),
             "positions"_a = py::none(), "model"_a = py::bytes(), "metadata"_a = py::bytes(),
             "Sends a sequence through write(bytes).");
  module.def("load_session", &load_session, "path"_a, "cache"_a, "sequence"_a = 0, py::kw_only(), "mapped"_a = true,
             "Makes an empty sequence of a cache the one in a file.");
  module.def(
      "verify_session", [](const py::object& path) { PythonSession::open(path)->verify(); }, "path"_a,
      "Checks every byte of a file that loading and attention would ever use.");
}

}  // namespace

void bind_session(py::module_& module) {
  py::class_<kvarn_save_report>(module, "SaveReport", "What a save did.")
      .def_readonly("commit", &kvarn_save_report::commit)
      .def_readonly("written_bytes", &kvarn_save_report::written_bytes)
      .def_readonly("file_bytes", &kvarn_save_report::file_bytes)
      .def_readonly("live_bytes", &kvarn_save_report::live_bytes)
      .def_readonly("new_tiles", &kvarn_save_report::new_tiles)
      .def_property_readonly("whole", [](const kvarn_save_report& report) { return report.is_whole != 0; });
  const auto member = [](auto kvarn_session_info::*at) {
    return [at](const PythonSession& session) { return session.info().*at; };
  };
  const auto bytes = [](kvarn_const_buffer kvarn_session_info::*at) {
    return [at](const PythonSession& session) { return bytes_of(session.info().*at); };
  };
  py::class_<PythonSession>(module, "Session", "An open session: the newest whole save in it.")
      .def(py::init(&PythonSession::open), "path"_a)
      .def_static("receive", &PythonSession::receive, "read"_a, "max_bytes"_a)
      .def_property_readonly("version", member(&kvarn_session_info::version))
      .def_property_readonly("parts", member(&kvarn_session_info::part_count))
      .def_property_readonly("commit", member(&kvarn_session_info::commit))
      .def_property_readonly("file_bytes", member(&kvarn_session_info::file_bytes))
      .def_property_readonly("live_bytes", member(&kvarn_session_info::live_bytes))
      .def_property_readonly("model", bytes(&kvarn_session_info::model))
      .def_property_readonly("metadata", bytes(&kvarn_session_info::metadata))
      .def("length", &PythonSession::length, "part"_a = 0)
      .def("tokens", &PythonSession::tokens, "part"_a = 0)
      .def("layers", &PythonSession::layers, "part"_a = 0)
      .def("config", &PythonSession::config, "part"_a = 0)
      .def("load", &PythonSession::load, "cache"_a, "sequence"_a = 0, "part"_a = 0, "mapped"_a = true)
      .def("verify", &PythonSession::verify);
  bind_functions(module);
}

}  // namespace kvarn::python
