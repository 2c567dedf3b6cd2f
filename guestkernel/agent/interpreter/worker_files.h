#ifndef CUBE_GUESTKERNEL_AGENT_INTERPRETER_WORKER_FILES_H_
#define CUBE_GUESTKERNEL_AGENT_INTERPRETER_WORKER_FILES_H_

#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace cube::agent::interpreter {

// A file of guestkernel/interpreter. They are a part of the agent, so that a disk image never has
// those of another version.
struct WorkerFile {
  std::string_view path;  // below guestkernel/interpreter
  std::string_view content;
};

std::span<const WorkerFile> WorkerFiles();

// Writes them below `folder`, readable to all.
Status InstallWorkerFiles(const std::string& folder);

}  // namespace cube::agent::interpreter

#endif  // CUBE_GUESTKERNEL_AGENT_INTERPRETER_WORKER_FILES_H_
