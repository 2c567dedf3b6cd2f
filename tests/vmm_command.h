#ifndef CUBE_TESTS_VMM_COMMAND_H_
#define CUBE_TESTS_VMM_COMMAND_H_

#include <string>
#include <vector>

namespace cube::testing {

// A variable of the environment that the test's BUILD rule sets; the test ends without it.
std::string Env(const char* name);

// The arguments of `cube-vmm run --boot` with the kernel $CUBE_KERNEL and the initramfs $CUBE_INITRD of
// this checkout; `options` come before the command.
std::vector<std::string> Vmm(const std::vector<std::string>& options,
                             const std::vector<std::string>& command);

// The same for a clone of a template, which is made if there is none.
std::vector<std::string> CloneVmm(const std::vector<std::string>& options,
                                  const std::vector<std::string>& command);

}  // namespace cube::testing

#endif  // CUBE_TESTS_VMM_COMMAND_H_
