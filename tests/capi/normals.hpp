// Normally distributed numbers for rows, the same for the same seed.
#pragma once

#include <cstddef>
#include <random>
#include <vector>

inline std::vector<float> normals(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}
