/* Encodes random keys of one layer with the codec and says what it costs: size and error. C99, no model needed.
 *
 *   cc encode_rows.c $(pkg-config --cflags --libs kvarn) -lm && ./a.out */
#include <kvarn/kvarn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { kTokens = 512, kHeads = 4, kDim = 64 };

static float normal(void) {
  const double u = (rand() + 1.0) / (RAND_MAX + 2.0);
  const double v = (rand() + 1.0) / (RAND_MAX + 2.0);
  return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
}

static double squared_error(const float* left, const float* right, size_t count) {
  double sum = 0.0, size = 0.0;
  for (size_t i = 0; i < count; ++i) {
    sum += ((double)left[i] - right[i]) * ((double)left[i] - right[i]);
    size += (double)left[i] * left[i];
  }
  return sum / size;
}

static kvarn_status encode_and_report(const float* keys, float* decoded, uint32_t bits) {
  kvarn_codec codec = KVARN_CODEC_INIT;
  codec.bits = bits;
  codec.dim = kDim;
  codec.heads = kHeads;
  codec.tiles = kTokens / codec.tokens;
  kvarn_codec_sizes sizes = KVARN_CODEC_SIZES_INIT;
  kvarn_status status = kvarn_codec_measure(&codec, &sizes);
  if (status != KVARN_STATUS_OK) return status;

  const size_t values = (size_t)kTokens * kHeads * kDim;
  const kvarn_buffer records = {malloc(sizes.records_bytes), sizes.records_bytes};
  const kvarn_const_buffer stored = {records.data, records.bytes};
  const kvarn_buffer scratch = {malloc(sizes.encode_scratch_bytes), sizes.encode_scratch_bytes};
  const kvarn_const_rows from = {keys, KVARN_TYPE_F32, kHeads * kDim, kDim};
  const kvarn_rows to = {decoded, KVARN_TYPE_F32, kHeads * kDim, kDim};
  if (records.data == NULL || scratch.data == NULL) status = KVARN_STATUS_OUT_OF_MEMORY;
  if (status == KVARN_STATUS_OK) status = kvarn_codec_encode(&codec, &from, records, scratch, NULL);
  if (status == KVARN_STATUS_OK) status = kvarn_codec_decode(&codec, stored, &to, scratch, NULL);
  if (status == KVARN_STATUS_OK) {
    printf("%u bits: %7zu bytes, %.4f bits a value, relative squared error %.2g\n", (unsigned)bits, sizes.records_bytes,
           8.0 * (double)sizes.records_bytes / (double)values, squared_error(keys, decoded, values));
  }
  free(records.data);
  free(scratch.data);
  return status;
}

int main(void) {
  static const uint32_t widths[] = {8, 6, 5, 4, 3, 2};
  const size_t values = (size_t)kTokens * kHeads * kDim;
  float* keys = malloc(values * sizeof(float));
  float* decoded = malloc(values * sizeof(float));
  kvarn_status status = keys != NULL && decoded != NULL ? KVARN_STATUS_OK : KVARN_STATUS_OUT_OF_MEMORY;
  for (size_t i = 0; status == KVARN_STATUS_OK && i < values; ++i) keys[i] = normal();
  printf("KVarN %s, kernels %s: %d tokens of %d heads of %d channels, %zu bytes in half precision\n",
         kvarn_version_text(), kvarn_kernels_name(), kTokens, kHeads, kDim, values * 2);
  for (size_t i = 0; status == KVARN_STATUS_OK && i < sizeof widths / sizeof *widths; ++i) {
    status = encode_and_report(keys, decoded, widths[i]);
  }
  if (status != KVARN_STATUS_OK) fprintf(stderr, "%s\n", kvarn_status_text(status));
  free(keys);
  free(decoded);
  return status == KVARN_STATUS_OK ? 0 : 1;
}
