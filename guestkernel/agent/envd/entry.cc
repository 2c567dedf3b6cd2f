#include "guestkernel/agent/envd/entry.h"

#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <optional>

#include "guestkernel/agent/envd/clock_setting.h"

namespace cube::agent::envd {

using connect::FromErrno;
using connect::Outcome;

namespace {

constexpr size_t kMaxNames = 65536;  // XATTR_LIST_MAX
constexpr size_t kMaxValue = 65536;  // XATTR_SIZE_MAX

const char* TypeName(mode_t mode) {
  if (S_ISREG(mode)) return "FILE_TYPE_FILE";
  if (S_ISDIR(mode)) return "FILE_TYPE_DIRECTORY";
  if (S_ISLNK(mode)) return "FILE_TYPE_SYMLINK";
  return "FILE_TYPE_UNSPECIFIED";
}

// Where a symbolic link leads in the end; where it points to if that is nowhere.
std::string LinkTarget(const std::string& path) {
  char buffer[PATH_MAX];
  if (realpath(path.c_str(), buffer) != nullptr) return buffer;
  const ssize_t size = readlink(path.c_str(), buffer, sizeof buffer);
  return size < 0 ? path : std::string(buffer, static_cast<size_t>(size));
}

}  // namespace

std::string BaseName(const std::string& path) {
  return path == "/" ? path : path.substr(path.rfind('/') + 1);
}

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == 0 || slash == std::string::npos ? "/" : path.substr(0, slash);
}

Metadata ReadMetadata(const std::string& path) {
  Metadata metadata;
  // Most files have none, and this is the only call then.
  const ssize_t needed = llistxattr(path.c_str(), nullptr, 0);
  if (needed <= 0) return metadata;
  std::string names(kMaxNames, '\0');
  const ssize_t size = llistxattr(path.c_str(), names.data(), names.size());
  if (size <= 0) return metadata;
  names.resize(static_cast<size_t>(size));
  std::string value(kMaxValue, '\0');
  for (size_t at = 0; at < names.size();) {
    const std::string name = names.c_str() + at;
    at += name.size() + 1;
    if (!name.starts_with(kMetadataPrefix)) continue;
    const ssize_t length = lgetxattr(path.c_str(), name.c_str(), value.data(), value.size());
    if (length < 0) continue;
    metadata.emplace_back(name.substr(kMetadataPrefix.size()),
                          value.substr(0, static_cast<size_t>(length)));
  }
  return metadata;
}

void WriteMetadata(JsonWriter* writer, const Metadata& metadata) {
  writer->BeginObject();
  for (const auto& [name, value] : metadata) writer->Key(name).String(value);
  writer->EndObject();
}

std::string PermissionText(mode_t mode) {
  // The letters and their order are those of Go's io/fs.FileMode.
  std::string text;
  if (S_ISDIR(mode)) text += 'd';
  if (S_ISLNK(mode)) text += 'L';
  if (S_ISBLK(mode) || S_ISCHR(mode)) text += 'D';
  if (S_ISFIFO(mode)) text += 'p';
  if (S_ISSOCK(mode)) text += 'S';
  if (mode & S_ISUID) text += 'u';
  if (mode & S_ISGID) text += 'g';
  if (S_ISCHR(mode)) text += 'c';
  if (mode & S_ISVTX) text += 't';
  if (text.empty()) text = "-";
  for (int bit = 8; bit >= 0; --bit) text += (mode >> bit & 1) ? "xwr"[bit % 3] : '-';
  return text;
}

void WriteEntry(JsonWriter* writer, Users* users, const std::string& path,
                const struct stat& info) {
  const bool is_link = S_ISLNK(info.st_mode);
  const char* type = TypeName(info.st_mode);
  mode_t mode = info.st_mode;
  if (is_link) {
    struct stat target;
    const bool leads_somewhere = stat(path.c_str(), &target) == 0;
    type = leads_somewhere ? TypeName(target.st_mode) : "FILE_TYPE_UNSPECIFIED";
    mode = leads_somewhere ? target.st_mode : 0;
  }
  writer->BeginObject();
  writer->Key("name").String(BaseName(path));
  writer->Key("type").String(type);
  writer->Key("path").String(path);
  writer->Key("size").String(std::to_string(info.st_size));
  writer->Key("mode").Uint(mode & 0777);
  writer->Key("permissions").String(PermissionText(info.st_mode));
  writer->Key("owner").String(users->UserName(info.st_uid));
  writer->Key("group").String(users->GroupName(info.st_gid));
  writer->Key("modifiedTime").String(FormatTimestamp(info.st_mtim.tv_sec, info.st_mtim.tv_nsec));
  if (is_link) writer->Key("symlinkTarget").String(LinkTarget(path));
  if (S_ISREG(info.st_mode) || S_ISDIR(info.st_mode)) {
    const Metadata metadata = ReadMetadata(path);
    if (!metadata.empty()) WriteMetadata(&writer->Key("metadata"), metadata);
  }
  writer->EndObject();
}

Outcome<std::string> EntryJson(Users* users, const std::string& path) {
  struct stat info;
  if (lstat(path.c_str(), &info) < 0) {
    if (errno == ENOENT || errno == ENOTDIR) {
      return connect::RpcError{connect::Code::kNotFound, "path '" + path + "' does not exist"};
    }
    return FromErrno(errno, "cannot look at '" + path + "'");
  }
  JsonWriter writer;
  writer.BeginObject().Key("entry");
  WriteEntry(&writer, users, path, info);
  return writer.EndObject().text();
}

}  // namespace cube::agent::envd
