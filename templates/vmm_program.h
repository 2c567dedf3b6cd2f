#ifndef CUBE_TEMPLATES_VMM_PROGRAM_H_
#define CUBE_TEMPLATES_VMM_PROGRAM_H_

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "snapshot/defaults.h"
#include "templates/base_disk.h"
#include "templates/progress.h"

namespace cube::templates {

// A program that is run in a machine to its end.
struct GuestProgram {
  std::vector<std::string> arguments;
  std::vector<std::string> environment;  // NAME=value
  std::string directory;                 // "": "/"
  // As ChildRun::input.
  std::function<Result<size_t>(std::span<uint8_t>)> input;
};

// The machine that a template is made of, and `cube-vmm`, which runs it.
struct VmmProgram {
  std::string path;
  // Options of every machine, and of the template's alone.
  std::vector<std::string> machine;
  std::vector<std::string> template_only;
  std::string append;  // to the kernel's command line

  static constexpr int kStepSeconds = 3600;  // at most, that a program runs

  // Boots a machine whose root disk is `disk` with what it writes in the new file `overlay`, and
  // runs the program. Returns its exit status; `output` takes what it writes.
  Result<int> Run(const BaseDisk& disk, const std::string& overlay, const GuestProgram& program,
                  const std::function<void(std::string_view)>& output) const;

  // Boots the machine with `disk` and freezes it as template `name`. Returns what cube-vmm says
  // about it, a line of JSON. With `warm_up` the agent first starts what the disk says.
  Result<std::string> Freeze(const std::string& name, const BaseDisk& disk, bool warm_up,
                             const std::string& console) const;
};

}  // namespace cube::templates

#endif  // CUBE_TEMPLATES_VMM_PROGRAM_H_
