// A folder for the files of one test.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

namespace kvarn::testing {

// Gone with its owner, who removes the files in it first.
class TemporaryFolder {
 public:
  TemporaryFolder() : path_(::testing::TempDir() + "kvarn_test_XXXXXX") { mkdtemp(path_.data()); }  // a name for the X
  ~TemporaryFolder() { rmdir(path_.c_str()); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace kvarn::testing
