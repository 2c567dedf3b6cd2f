#include "guestkernel/agent/envd/folder_listing.h"

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <utility>

#include "base/json_writer.h"
#include "guestkernel/agent/envd/entry.h"

namespace cube::agent::envd {

using connect::Code;
using connect::FromErrno;
using connect::Outcome;
using connect::RpcError;

namespace {

// It is kept in memory as a whole.
constexpr size_t kMaxListing = 64 << 20;
// Deeper than any path of this length can lead.
constexpr uint32_t kMaxDepth = 2048;

}  // namespace

Outcome<std::vector<std::string>> ReadFolder(const std::string& path) {
  std::unique_ptr<DIR, int (*)(DIR*)> folder(opendir(path.c_str()), closedir);
  if (folder == nullptr) return FromErrno(errno, "cannot read the directory '" + path + "'");
  std::vector<std::string> names;
  while (const dirent* entry = readdir(folder.get())) {
    std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(std::move(name));
  }
  std::sort(names.begin(), names.end());
  return names;
}

Outcome<std::string> ListFolder(Users* users, const std::string& path, uint32_t depth) {
  struct stat info;
  if (stat(path.c_str(), &info) < 0) {
    if (errno == ENOENT || errno == ENOTDIR) {
      return RpcError{Code::kNotFound, "path '" + path + "' does not exist"};
    }
    return FromErrno(errno, "cannot look at '" + path + "'");
  }
  if (!S_ISDIR(info.st_mode)) {
    return RpcError{Code::kInvalidArgument, "path '" + path + "' is not a directory"};
  }
  Outcome<std::vector<std::string>> top = ReadFolder(path);
  if (!top.ok()) return top.error();
  depth = std::min(depth, kMaxDepth);

  // The directories between the top and the place that has been reached.
  struct Level {
    std::string path;
    std::vector<std::string> names;
    size_t next = 0;
  };
  std::vector<Level> levels;
  levels.push_back({path, std::move(top).value()});
  JsonWriter writer;
  writer.BeginObject().Key("entries").BeginArray();
  while (!levels.empty()) {
    Level& level = levels.back();
    if (level.next == level.names.size()) {
      levels.pop_back();
      continue;
    }
    const std::string& name = level.names[level.next++];
    const std::string entry = level.path == "/" ? "/" + name : level.path + "/" + name;
    // What has gone meanwhile is not there.
    if (lstat(entry.c_str(), &info) < 0) continue;
    WriteEntry(&writer, users, entry, info);
    if (writer.text().size() > kMaxListing) {
      return RpcError{Code::kResourceExhausted,
                      "the listing of '" + path + "' is larger than 64 MiB"};
    }
    if (!S_ISDIR(info.st_mode) || levels.size() >= depth) continue;
    Outcome<std::vector<std::string>> names = ReadFolder(entry);
    if (names.ok()) levels.push_back({entry, std::move(names).value()});
  }
  return writer.EndArray().EndObject().text();
}

}  // namespace cube::agent::envd
