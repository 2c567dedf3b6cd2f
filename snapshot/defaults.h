#ifndef CUBE_SNAPSHOT_DEFAULTS_H_
#define CUBE_SNAPSHOT_DEFAULTS_H_

#include <string>
#include <vector>

#include "base/json_writer.h"
#include "base/result.h"
#include "snapshot/json_fields.h"

namespace cube::snapshot {

// What a template says about programs that are run in its clones, where whoever runs one says
// nothing else: as the configuration of a container image has it.
struct Defaults {
  static constexpr size_t kMaxStrings = 1024;  // of a list
  // Of all variables together, each with a byte more, of user and directory: they go into each
  // clone's identity (base/control_abi.h), which needs room for others.
  static constexpr size_t kMaxEnvironment = 6000;

  std::vector<std::string> environment;  // NAME=value
  std::string directory;                 // empty: "/"
  std::string user;                      // NAME or NUMBER, perhaps with :GROUP; empty: root
  std::vector<std::string> entrypoint;   // the program that is run, and its first arguments
  std::vector<std::string> command;      // the arguments after those, unless others are given

  bool empty() const { return *this == Defaults{}; }
  // An error names what is too much.
  Status Check() const;
  void Write(JsonWriter* json) const;
  // The fields may be anything.
  static Result<Defaults> Read(const JsonFields& fields);
  bool operator==(const Defaults&) const = default;
};

// Adds those of `others` (NAME=value) whose names `environment` does not have.
void AddMissingVariables(const std::vector<std::string>& others,
                         std::vector<std::string>* environment);

}  // namespace cube::snapshot

#endif  // CUBE_SNAPSHOT_DEFAULTS_H_
