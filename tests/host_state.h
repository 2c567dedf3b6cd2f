#ifndef CUBE_TESTS_HOST_STATE_H_
#define CUBE_TESTS_HOST_STATE_H_

#include <cstddef>
#include <ostream>
#include <string>

namespace cube::testing {

// What a VM could leave behind on its host, counted; to be equal before and after a test.
struct HostState {
  size_t descriptors = 0;  // of the test itself
  size_t processes = 0;    // that run the program
  size_t temporary = 0;    // entries of /tmp that bear the project's name
  size_t shared = 0;       // the same of /dev/shm

  // `program` is the path of cube-vmm; VMs of another build are none of the test's business.
  static HostState Count(const std::string& program);
  // Waits until no more processes than `most` run the program.
  static void AwaitProcesses(const std::string& program, size_t most);
  bool operator==(const HostState&) const = default;
};

std::ostream& operator<<(std::ostream& out, const HostState& state);

}  // namespace cube::testing

#endif  // CUBE_TESTS_HOST_STATE_H_
