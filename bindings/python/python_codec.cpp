// kvarn.Codec.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "array_rows.hpp"
#include "python_parts.hpp"
#include "worker_team.hpp"

namespace kvarn::python {
namespace {

namespace py = pybind11;
using namespace py::literals;

// One side of a KV cache, tile by tile. Safe to share between Python threads: calls wait for each other.
class PythonCodec {
 public:
  PythonCodec(const kvarn_codec& codec, std::uint32_t threads) : codec_(codec), team_(threads) {
    check(kvarn_codec_measure(&codec_, &sizes_));
  }

  const kvarn_codec& shape() const { return codec_; }
  std::size_t record_bytes() const { return sizes_.record_bytes; }
  std::uint32_t threads() const { return team_.workers(); }
  double bits_per_value() const { return 8.0 * static_cast<double>(sizes_.record_bytes) / codec_.tokens / codec_.dim; }

  py::array encode(const py::object& from, const py::object& out, const py::object& dtype) {
    const ReadRows rows = rows_of(from, {-1, codec_.heads, codec_.dim, is_bfloat16(dtype)}, "rows");
    if (rows.tokens % codec_.tokens != 0 || rows.tokens / codec_.tokens > UINT32_MAX) {
      throw py::value_error("the number of tokens must be a multiple of tile_tokens");
    }
    const kvarn_codec batch = batch_of(rows.tokens / codec_.tokens);
    py::array records = records_for(out, batch.tiles);
    refuse_overlap(records, rows.array);
    const kvarn_buffer to{records.mutable_data(), static_cast<std::size_t>(records.size())};
    call_alone(mutex_, [&] {
      const kvarn_buffer scratch = scratch_for(sizes_.encode_scratch_bytes);
      return kvarn_codec_encode(&batch, &rows.rows, to, scratch, team_.runner());
    });
    return records;
  }

  py::array decode(const py::object& from, const py::object& out, const py::object& dtype) {
    const py::array records = records_of(from);
    const kvarn_codec batch = batch_of(static_cast<std::size_t>(records.shape(0)));
    const bool bfloat16 = is_bfloat16(dtype);
    const WriteRows rows = rows_for(out, {std::int64_t{batch.tiles} * batch.tokens, batch.heads, batch.dim, bfloat16},
                                    bfloat16 ? KVARN_TYPE_BF16 : KVARN_TYPE_F16);
    refuse_overlap(rows.array, records);
    const kvarn_const_buffer bytes{records.data(), static_cast<std::size_t>(records.size())};
    call_alone(mutex_, [&] {
      const kvarn_buffer scratch = scratch_for(sizes_.decode_scratch_bytes);
      return kvarn_codec_decode(&batch, bytes, &rows.rows, scratch, team_.runner());
    });
    return rows.array;
  }

  void validate(const py::object& from) {
    const py::array records = records_of(from);
    const kvarn_codec batch = batch_of(static_cast<std::size_t>(records.shape(0)));
    const kvarn_const_buffer bytes{records.data(), static_cast<std::size_t>(records.size())};
    call_alone(mutex_, [&] { return kvarn_codec_validate(&batch, bytes); });
  }

 private:
  kvarn_codec batch_of(std::size_t tiles) const {
    kvarn_codec batch = codec_;
    batch.tiles = static_cast<std::uint32_t>(tiles);
    return batch;
  }

  static bool is_bfloat16(const py::object& dtype) {
    if (dtype.is_none()) return false;
    if (py::isinstance<py::str>(dtype) && dtype.cast<std::string>() == "bfloat16") return true;
    throw py::value_error("dtype must be 'bfloat16' or left out");
  }

  // `out`, or new records if it is None.
  py::array records_for(const py::object& out, std::uint32_t tiles) const {
    const auto record = static_cast<py::ssize_t>(sizes_.record_bytes);
    if (out.is_none()) return new_array(py::make_tuple(tiles, codec_.heads, record), "B");
    if (!py::isinstance<py::array>(out)) throw py::type_error("out must be a numpy array");
    const py::array records = records_of(out);
    if (records.is(out) && records.writeable() && records.shape(0) == py::ssize_t{tiles}) return records;
    throw py::value_error("out must be writable, in C order, and have one record for each head of each tile");
  }

  // [tiles, heads, record_bytes] of bytes, side by side.
  py::array records_of(const py::object& from) const {
    const py::array records = py::array::ensure(from, py::array::c_style);
    if (!records || !records.dtype().equal(py::dtype("B"))) throw py::type_error("records must be an array of uint8");
    const bool right = records.ndim() == 3 && records.shape(0) > 0 && records.shape(0) <= py::ssize_t{UINT32_MAX} &&
                       records.shape(1) == codec_.heads &&
                       records.shape(2) == static_cast<py::ssize_t>(sizes_.record_bytes);
    if (right) return records;
    throw py::value_error("records must be [tiles, " + std::to_string(codec_.heads) + ", " +
                          std::to_string(sizes_.record_bytes) + "], not " +
                          py::str(records.attr("shape")).cast<std::string>());
  }

  kvarn_buffer scratch_for(std::size_t worker_bytes) {
    team_.start();
    scratch_.resize(worker_bytes * team_.workers());
    return {scratch_.data(), scratch_.size()};
  }

  kvarn_codec codec_;
  kvarn_codec_sizes sizes_ = KVARN_CODEC_SIZES_INIT;
  std::mutex mutex_;  // of what follows
  WorkerTeam team_;
  std::vector<std::byte> scratch_;
};

// What the constructor takes by keyword alone.
struct CodecOptions {
  std::uint32_t tile_tokens = 128;
  std::string level = "default";
  std::string fields = "half";
  std::uint32_t threads = 1;
};

CodecOptions options_of(const py::kwargs& given) {
  CodecOptions options;
  for (const auto& [key, value] : given) {
    const auto name = key.cast<std::string>();
    if (name == "tile_tokens") {
      options.tile_tokens = value.cast<std::uint32_t>();
    } else if (name == "level") {
      options.level = value.cast<std::string>();
    } else if (name == "fields") {
      options.fields = value.cast<std::string>();
    } else if (name == "threads") {
      options.threads = value.cast<std::uint32_t>();
    } else {
      throw py::type_error("Codec has no argument '" + name + "'");
    }
  }
  return options;
}

}  // namespace

void bind_codec(py::module_& module) {
  const auto checksum_of = [](const py::buffer& from) {
    const py::buffer_info bytes = from.request();
    if (PyBuffer_IsContiguous(bytes.view(), 'C') == 0) throw py::value_error("bytes must lie side by side");
    const py::gil_scoped_release others_run;
    return kvarn_checksum({bytes.ptr, static_cast<std::size_t>(bytes.size * bytes.itemsize)});
  };
  module.def("checksum", checksum_of, "bytes"_a, "XXH3 of bytes, 64 bits.");
  const auto make = [](const std::string& side, std::uint32_t bits, std::uint32_t dim, std::uint32_t heads,
                       const py::kwargs& given) {
    const CodecOptions options = options_of(given);
    kvarn_codec codec = KVARN_CODEC_INIT;
    codec.side = side_of(side);
    codec.bits = bits;
    codec.tokens = options.tile_tokens;
    codec.dim = dim;
    codec.heads = heads;
    codec.level = level_of(options.level);
    codec.fields = fields_of(options.fields);
    return std::make_unique<PythonCodec>(codec, options.threads);
  };
  py::class_<PythonCodec>(module, "Codec", "Tiles of keys or values to records and back.")
      .def(py::init(make), "side"_a, "bits"_a, "dim"_a, "heads"_a = 1)
      .def("encode", &PythonCodec::encode, "rows"_a, "out"_a = py::none(), "dtype"_a = py::none(),
           "Rows [tiles * tile_tokens, heads, dim] to records [tiles, heads, record_bytes].")
      .def("decode", &PythonCodec::decode, "records"_a, "out"_a = py::none(), "dtype"_a = py::none(),
           "Records to rows, float16 or the type of `out`.")
      .def("validate", &PythonCodec::validate, "records"_a,
           "Raises Corrupt if these bytes are not records of this codec.")
      .def_property_readonly("side", [](const PythonCodec& codec) { return name_of_side(codec.shape().side); })
      .def_property_readonly("bits", [](const PythonCodec& codec) { return codec.shape().bits; })
      .def_property_readonly("dim", [](const PythonCodec& codec) { return codec.shape().dim; })
      .def_property_readonly("heads", [](const PythonCodec& codec) { return codec.shape().heads; })
      .def_property_readonly("tile_tokens", [](const PythonCodec& codec) { return codec.shape().tokens; })
      .def_property_readonly("level", [](const PythonCodec& codec) { return name_of_level(codec.shape().level); })
      .def_property_readonly("fields", [](const PythonCodec& codec) { return name_of_fields(codec.shape().fields); })
      .def_property_readonly("threads", &PythonCodec::threads)
      .def_property_readonly("record_bytes", &PythonCodec::record_bytes)
      .def_property_readonly("bits_per_value", &PythonCodec::bits_per_value);
}

}  // namespace kvarn::python
