// Fails unless the kernel tables that this processor can run are exactly the named ones, best first.
#include <cstdio>
#include <string>

#include "kernels/kernel_table.hpp"

int main(int argc, char** argv) {
  std::string expected, found;
  for (int i = 1; i < argc; ++i) expected += std::string(argv[i]) + " ";
  for (const kvarn::KernelTable* table : kvarn::available_kernels()) found += std::string(table->name) + " ";
  if (found == expected) return 0;
  std::fprintf(stderr, "expected %s, found %s\n", expected.c_str(), found.c_str());
  return 1;
}
