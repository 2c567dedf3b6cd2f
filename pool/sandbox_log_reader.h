#ifndef CUBE_POOL_SANDBOX_LOG_READER_H_
#define CUBE_POOL_SANDBOX_LOG_READER_H_

#include <string>

#include "pool/outcome.h"

namespace cube::pool {

// A piece of a sandbox's log, which is PATH and, once that was full, PATH.1 before it
// (vmm/cli/sandbox_log.h).
struct LogPiece {
  std::string text;
  std::string cursor;    // to go on from
  bool skipped = false;  // what `cursor` stood at is no longer there: this is the oldest there is
};

// From behind `cursor`, "" for the oldest, at most `limit` bytes. An empty text: there is no more
// yet.
Outcome<LogPiece> ReadSandboxLog(const std::string& path, const std::string& cursor, size_t limit);

}  // namespace cube::pool

#endif  // CUBE_POOL_SANDBOX_LOG_READER_H_
