// The compiled part of the plugin: steps and layers for Python. Tensors come as addresses, so that it is built without
// torch.
#include <omp.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <stdexcept>
#include <string>

#include "cache/cache_config.hpp"
#include "kernels/kernel_table.hpp"
#include "paged_layer.hpp"

namespace py = pybind11;

namespace kvarn_vllm {
namespace {

using Ints = py::array_t<std::int32_t, py::array::c_style | py::array::forcecast>;
using Bytes = py::array_t<std::uint8_t, py::array::c_style | py::array::forcecast>;

template <class Array>
auto span_of(const Array& array) {
  return std::span(array.data(), static_cast<std::size_t>(array.size()));
}

// The engine's own OpenMP threads: the module takes the runtime that torch has loaded.
void run_items(void*, std::size_t items, void (*task)(void* arg, std::size_t item, unsigned worker), void* arg) {
#pragma omp parallel for schedule(dynamic, 1)
  for (std::size_t item = 0; item < items; ++item) task(arg, item, static_cast<unsigned>(omp_get_thread_num()));
}

kvarn::Runner engine_threads() { return {static_cast<unsigned>(omp_get_max_threads()), nullptr, run_items}; }

PageFormat page_format(std::uint32_t kv_heads, std::uint32_t dim_k, std::uint32_t dim_v, std::uint32_t k_bits,
                       std::uint32_t v_bits, const std::string& fields) {
  const std::optional<kvarn::RecordVersion> version = kvarn::record_version(fields);
  if (!version) throw std::invalid_argument("fields are half or byte, not '" + fields + "'");
  const PageFormat format{kv_heads, dim_k, dim_v, k_bits, v_bits, *version};
  const auto fits = [](std::uint32_t dim) { return dim % 16 == 0 && dim >= 16 && dim <= kvarn::kMaxRows; };
  const bool bits_fit = format.exact() ? v_bits == 0 : kvarn::valid_code_bits(k_bits) && kvarn::valid_code_bits(v_bits);
  if (kv_heads == 0 || !fits(dim_k) || !fits(dim_v) || !bits_fit) throw std::invalid_argument("no such page format");
  return format;
}

std::shared_ptr<BatchStep> make_step(const py::dict& arrays, std::size_t units, std::size_t blocks,
                                     bool deterministic) {
  const auto ints = [&](const char* name) { return arrays[name].cast<Ints>(); };
  const Ints early_blocks = ints("early_blocks"), early_units = ints("early_units"), seal_blocks = ints("seal_blocks"),
             seal_units = ints("seal_units"), token_unit = ints("token_unit"), token_row = ints("token_row"),
             block_units = ints("block_units"), query_start = ints("query_start"), seq_lens = ints("seq_lens"),
             block_table = ints("block_table");
  const Bytes is_exact = arrays["is_exact"].cast<Bytes>();
  StepArrays spans;
  spans.early_blocks = span_of(early_blocks);
  spans.early_units = span_of(early_units);
  spans.seal_blocks = span_of(seal_blocks);
  spans.seal_units = span_of(seal_units);
  spans.token_unit = span_of(token_unit);
  spans.token_row = span_of(token_row);
  spans.block_units = span_of(block_units);
  spans.is_exact = span_of(is_exact);
  spans.query_start = span_of(query_start);
  spans.seq_lens = span_of(seq_lens);
  spans.block_table = span_of(block_table);
  spans.table_width = block_table.ndim() == 2 ? static_cast<std::size_t>(block_table.shape(1)) : 0;
  return std::make_shared<BatchStep>(spans, units, blocks, deterministic);
}

kvarn::EncoderLevel level_of(const std::string& name, std::uint32_t bits, kvarn::RecordVersion version) {
  kvarn::EncoderLevel level = kvarn::default_level(bits);
  if (name != "default" && kvarn::level_from_name(name, level) != kvarn::Status::kOk) {
    throw std::invalid_argument("no encoder level '" + name + "'");
  }
  if (!kvarn::writes_version(level, version)) {
    throw std::invalid_argument("level '" + name + "' writes no fields of one byte: take fast or best");
  }
  return level;
}

// (k_bits, v_bits) of a preset; (0, 0) for f16.
py::tuple preset_bits(const std::string& name) {
  kvarn::CacheConfig config;
  if (kvarn::apply_preset(name, config) != kvarn::Status::kOk) throw std::invalid_argument("no preset '" + name + "'");
  return config.exact ? py::make_tuple(0, 0) : py::make_tuple(config.k_bits, config.v_bits);
}

struct Shared {
  Shared(std::size_t staging_units, const PageFormat& format)
      : format(format),
        staging(std::make_shared<UnitArea>(staging_units, format)),
        scratch(std::make_shared<LayerScratch>()) {}
  PageFormat format;
  std::shared_ptr<UnitArea> staging;
  std::shared_ptr<LayerScratch> scratch;
};

// Address, token stride and head stride in values, type.
using Rows = std::tuple<std::uintptr_t, std::size_t, std::size_t, RowType>;

EngineRows engine_rows(const Rows& rows) {
  return {reinterpret_cast<std::byte*>(std::get<0>(rows)), std::get<1>(rows), std::get<2>(rows), std::get<3>(rows)};
}

std::size_t run_layer(PagedLayer& layer, BatchStep& step, const Rows& k, const Rows& v, const Rows& q, const Rows& out,
                      std::uintptr_t pages, std::size_t page_stride) {
  const py::gil_scoped_release others_may_run;
  const LayerStep rows{
      engine_rows(k), engine_rows(v), engine_rows(q), engine_rows(out), reinterpret_cast<std::uint8_t*>(pages),
      page_stride};
  return layer.run(step, rows, engine_threads());
}

}  // namespace
}  // namespace kvarn_vllm

PYBIND11_MODULE(_native, module) {
  using namespace kvarn_vllm;
  module.doc() = "The compiled part of kvarn_vllm";
  module.attr("TILE_TOKENS") = kTileTokens;
  module.attr("UNIT_TOKENS") = kUnitTokens;
  module.def("preset_bits", &preset_bits, py::arg("name"));
  module.def("instruction_set", [] { return std::string(kvarn::kernels().name); });
  module.def(
      "bytes_per_token",
      [](std::uint32_t kv_heads, std::uint32_t dim_k, std::uint32_t dim_v, std::uint32_t k_bits, std::uint32_t v_bits,
         const std::string& fields) {
        return page_format(kv_heads, dim_k, dim_v, k_bits, v_bits, fields).bytes_per_token();
      },
      py::arg("kv_heads"), py::arg("dim_k"), py::arg("dim_v"), py::arg("k_bits"), py::arg("v_bits"),
      py::arg("fields") = "half");

  py::enum_<RowType>(module, "RowType", "Types of the engine's rows")
      .value("HALF", RowType::kHalf)
      .value("BFLOAT16", RowType::kBfloat16)
      .value("FLOAT", RowType::kFloat);

  py::class_<Shared, std::shared_ptr<Shared>>(module, "Shared", "What layers of one shape share")
      .def(py::init([](std::size_t staging_units, std::uint32_t kv_heads, std::uint32_t dim_k, std::uint32_t dim_v,
                       std::uint32_t k_bits, std::uint32_t v_bits, const std::string& fields) {
             return std::make_shared<Shared>(staging_units,
                                             page_format(kv_heads, dim_k, dim_v, k_bits, v_bits, fields));
           }),
           py::arg("staging_units"), py::arg("kv_heads"), py::arg("dim_k"), py::arg("dim_v"), py::arg("k_bits"),
           py::arg("v_bits"), py::arg("fields") = "half")
      .def_property_readonly("bytes", [](const Shared& shared) { return shared.staging->bytes(); });

  py::class_<BatchStep, std::shared_ptr<BatchStep>>(module, "Step", "One step of the engine, as all layers see it")
      .def(py::init(&make_step), py::arg("arrays"), py::arg("units"), py::arg("blocks"), py::arg("deterministic"));

  py::class_<PagedLayer>(module, "Layer", "One attention layer over the engine's pages")
      .def(py::init([](const Shared& shared, std::size_t units, std::uint32_t heads, const std::string& level,
                       float scale, float soft_cap, std::uint32_t window, std::vector<float> sinks) {
             if (heads == 0 || heads % shared.format.kv_heads != 0) throw std::invalid_argument("heads");
             if (!sinks.empty() && sinks.size() != heads) throw std::invalid_argument("sinks");
             LayerSettings settings{shared.format,
                                    heads,
                                    level_of(level, shared.format.k_bits, shared.format.version),
                                    level_of(level, shared.format.v_bits, shared.format.version),
                                    scale,
                                    soft_cap,
                                    window,
                                    std::move(sinks)};
             return std::make_unique<PagedLayer>(std::move(settings), units, shared.staging, shared.scratch);
           }),
           py::arg("shared"), py::arg("units"), py::arg("heads"), py::arg("level"), py::arg("scale"),
           py::arg("soft_cap") = 0.0f, py::arg("window") = 0, py::arg("sinks") = std::vector<float>{})
      .def("run", &run_layer, py::arg("step"), py::arg("k"), py::arg("v"), py::arg("q"), py::arg("out"),
           py::arg("pages"), py::arg("page_stride"))
      .def_property_readonly("hot_bytes", &PagedLayer::hot_bytes)
      .def_property_readonly("units", &PagedLayer::units);
}
