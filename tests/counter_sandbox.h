#ifndef CUBE_TESTS_COUNTER_SANDBOX_H_
#define CUBE_TESTS_COUNTER_SANDBOX_H_

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/process.h"

namespace cube::testing {

// A guest that answers each line of its stdin with a number, one more each time, and the checksum
// of memory that it has filled before.
inline constexpr char kCounter[] =
    "head -c 3000000 /dev/urandom > /tmp/data; i=0; "
    "while read line; do i=$((i+1)); echo $i $(md5sum < /tmp/data); done";

// The counter's next answer.
std::string NextAnswer(Process* process);

// With a CUBE_HOME of its own, a template in it, and an empty folder for what the test makes.
class SandboxTest : public ::testing::Test {
 protected:
  void SetUp() override;

  static std::vector<std::string> Command(std::vector<std::string> words);
  // Runs a cube-vmm command.
  static Finished Ask(std::vector<std::string> words);
  // The control socket of the only sandbox.
  std::string Socket() const;
  std::vector<std::string> Counter() const;

  std::string home_, template_, work_;
};

}  // namespace cube::testing

#endif  // CUBE_TESTS_COUNTER_SANDBOX_H_
