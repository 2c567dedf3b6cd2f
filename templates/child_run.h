#ifndef CUBE_TEMPLATES_CHILD_RUN_H_
#define CUBE_TEMPLATES_CHILD_RUN_H_

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace cube::templates {

// A program that is run to its end. It dies with this process.
struct ChildRun {
  std::vector<std::string> arguments;  // the first is looked for in PATH
  // What it writes to stdout; what to stderr, too, unless `errors` is set.
  std::function<void(std::string_view)> output;
  std::function<void(std::string_view)> errors;
  // Puts the next bytes for its stdin into the buffer and returns how many: 0 at the end. Without
  // it the stdin is empty. An error ends the program.
  std::function<Result<size_t>(std::span<uint8_t>)> input;

  // Its exit status, or 128+n for signal n.
  Result<int> Run() const;
};

// The last lines of a text that comes in pieces.
class LastLines {
 public:
  static constexpr size_t kBytes = 2000;
  static constexpr size_t kLines = 20;

  void Add(std::string_view text);
  std::string text() const;

 private:
  std::string kept_;
};

}  // namespace cube::templates

#endif  // CUBE_TEMPLATES_CHILD_RUN_H_
