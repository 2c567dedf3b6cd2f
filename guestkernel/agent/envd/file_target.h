#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_FILE_TARGET_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_FILE_TARGET_H_

#include <string>
#include <string_view>

#include "base/json_writer.h"
#include "base/unique_fd.h"
#include "guestkernel/agent/connect/rpc_error.h"
#include "guestkernel/agent/envd/context.h"
#include "guestkernel/agent/envd/entry.h"
#include "guestkernel/agent/envd/watcher_table.h"
#include "guestkernel/agent/http/request.h"

namespace cube::agent::envd {

// The metadata that a request gives a file: its fields X-Metadata-NAME. An error if it is more than
// an attribute can hold, or not printable ASCII.
connect::Outcome<Metadata> MetadataOf(const http::Request& request);

// A file that a client writes: its directories are made, what was in it is gone, it is the user's.
class FileTarget {
 public:
  // The file is empty when this returns, and has the metadata and no other. `path` is absolute.
  static connect::Outcome<FileTarget> Open(WatcherTable* watchers, const std::string& path,
                                           const User& user, const Metadata& metadata);

  // True, or why not all of it could be written.
  connect::Outcome<bool> Write(std::string_view bytes);

  const std::string& path() const { return path_; }
  int fd() const { return fd_.get(); }
  // As the answer to an upload has it: name, path and type, and the metadata if there is any.
  void WriteInfo(JsonWriter* writer) const;

 private:
  FileTarget(std::string path, UniqueFd fd, Metadata metadata)
      : path_(std::move(path)), fd_(std::move(fd)), metadata_(std::move(metadata)) {}

  std::string path_;
  UniqueFd fd_;
  Metadata metadata_;
};

// The HTTP status for an error of these: as others, but 507 if there is no space.
int FileErrorStatus(const connect::RpcError& error);

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_FILE_TARGET_H_
