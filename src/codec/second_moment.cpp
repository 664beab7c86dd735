#include "codec/second_moment.hpp"

#include <algorithm>
#include <cmath>

#include "format/tile_record.hpp"
#include "kernels/kernel_table.hpp"

namespace kvarn {
namespace {

constexpr float kDamping = 0.02f;

}  // namespace

bool rotated_second_moment(const QueryMoments& moments, std::size_t dim, float* work, float* out) {
  if (!(moments.weight > 0.0f)) return false;
  const KernelTable& kernel = kernels();
  for (std::size_t row = 0; row < dim; ++row) {
    float* to = work + row * dim;
    for (std::uint32_t head = 0; head < moments.heads; ++head) {
      const float* sums = moments.sums + head * dim;
      const float weight = sums[row] / moments.weight;
      kernel.add_rows(head == 0 ? nullptr : to, {sums, &weight, 1, dim}, to);
    }
    to[row] = std::max(to[row], moments.squares[row]);  // no channel varies less than not at all
  }
  kernel.rotate(work, dim, dim);
  kernel.transpose(work, dim, dim, dim, out, dim);
  kernel.rotate(out, dim, dim);
  float trace = 0.0f;
  for (std::size_t row = 0; row < dim; ++row) trace += out[row * dim + row];
  const float factor = static_cast<float>(dim) / trace;
  if (!(trace > 0.0f) || !std::isfinite(trace) || !std::isfinite(factor)) return false;
  kernel.scale_values(out, dim * dim, factor);
  for (std::size_t row = 0; row < dim; ++row) out[row * dim + row] += kDamping;
  return true;
}

}  // namespace kvarn
