// FNV-1a, 64 bits: names what a stored measurement depends on. Not against anybody who wants a collision.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace kvarn::bench {

class ContentHash {
 public:
  ContentHash& add(std::string_view bytes) {
    for (const char byte : bytes) value_ = (value_ ^ static_cast<unsigned char>(byte)) * 0x100000001b3ULL;
    return *this;
  }

  // The whole file; a file that cannot be read adds nothing.
  ContentHash& add_file(const std::string& path) {
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
    std::vector<char> buffer(std::size_t{1} << 20);
    for (std::size_t count = 1; file != nullptr && count > 0;) {
      count = std::fread(buffer.data(), 1, buffer.size(), file.get());
      add({buffer.data(), count});
    }
    return *this;
  }

  // 16 hexadecimal digits.
  std::string text() const {
    char digits[17];
    std::snprintf(digits, sizeof(digits), "%016llx", static_cast<unsigned long long>(value_));
    return digits;
  }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325ULL;
};

}  // namespace kvarn::bench
