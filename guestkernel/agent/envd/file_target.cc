#include "guestkernel/agent/envd/file_target.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "guestkernel/agent/envd/files.h"

namespace cube::agent::envd {

using connect::Code;
using connect::FromErrno;
using connect::Outcome;
using connect::RpcError;

namespace {

constexpr std::string_view kField = "x-metadata-";
constexpr size_t kMaxKey = 246;  // with its prefix, XATTR_NAME_MAX
constexpr size_t kMaxMetadata = 4096;
constexpr size_t kMaxNames = 65536;

bool IsPrintable(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

// Gives the file these attributes of ours and no others.
Outcome<bool> SetMetadata(int fd, const Metadata& metadata) {
  // Most files have none to be removed, and this is the only call then.
  if (flistxattr(fd, nullptr, 0) > 0) {
    std::string names(kMaxNames, '\0');
    const ssize_t size = flistxattr(fd, names.data(), names.size());
    for (ssize_t at = 0; at < size;) {
      const std::string name = names.c_str() + at;
      at += static_cast<ssize_t>(name.size()) + 1;
      if (name.starts_with(kMetadataPrefix)) fremovexattr(fd, name.c_str());
    }
  }
  for (const auto& [key, value] : metadata) {
    const std::string name = std::string(kMetadataPrefix) + key;
    if (fsetxattr(fd, name.c_str(), value.data(), value.size(), 0) < 0) {
      return FromErrno(errno, "cannot keep the metadata '" + key + "'");
    }
  }
  return true;
}

}  // namespace

int FileErrorStatus(const RpcError& error) {
  if (error.code == Code::kResourceExhausted) return 507;
  return connect::HttpStatus(error.code);
}

Outcome<Metadata> MetadataOf(const http::Request& request) {
  Metadata metadata;
  size_t size = 0;
  for (const auto& [field, value] : request.fields) {
    if (!field.starts_with(kField)) continue;
    std::string key = field.substr(kField.size());
    if (key.empty() || key.size() > kMaxKey) {
      return RpcError{
          Code::kInvalidArgument,
          Format("a metadata key of %zu bytes, 1 to %zu are possible", key.size(), kMaxKey)};
    }
    if (!IsPrintable(key) || !IsPrintable(value)) {
      return RpcError{Code::kInvalidArgument, "metadata '" + key + "' is not printable ASCII"};
    }
    size += key.size() + value.size();
    if (size > kMaxMetadata) {
      return RpcError{Code::kInvalidArgument,
                      Format("metadata of more than %zu bytes, which is the limit", kMaxMetadata)};
    }
    metadata.emplace_back(std::move(key), value);
  }
  return metadata;
}

Outcome<FileTarget> FileTarget::Open(WatcherTable* watchers, const std::string& path,
                                     const User& user, const Metadata& metadata) {
  // Not blocking: a pipe that nobody reads would never open.
  constexpr int kFlags = O_WRONLY | O_CREAT | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  UniqueFd fd(open(path.c_str(), kFlags, 0666));
  if (!fd.valid() && errno == ENOENT) {
    Outcome<bool> made = MakeFolders(FolderOf(path), user);
    if (!made.ok()) return made.error();
    if (*made) watchers->LookForFolders();
    fd = UniqueFd(open(path.c_str(), kFlags, 0666));
  }
  const std::string failed = "cannot write to '" + path + "'";
  if (!fd.valid()) {
    if (errno == EISDIR) {
      return RpcError{Code::kInvalidArgument, "path '" + path + "' is a directory"};
    }
    return FromErrno(errno, failed);
  }
  struct stat info;
  if (fstat(fd.get(), &info) < 0) return FromErrno(errno, failed);
  if (!S_ISREG(info.st_mode)) {
    return RpcError{Code::kInvalidArgument, "path '" + path + "' is not a file"};
  }
  if (info.st_size > 0 && ftruncate(fd.get(), 0) < 0) return FromErrno(errno, failed);
  const Credentials& owner = user.credentials;
  if ((info.st_uid != owner.uid || info.st_gid != owner.gid) &&
      fchown(fd.get(), owner.uid, owner.gid) < 0) {
    return FromErrno(errno, "cannot give '" + path + "' to its user");
  }
  Outcome<bool> kept = SetMetadata(fd.get(), metadata);
  if (!kept.ok()) return kept.error();
  return FileTarget(path, std::move(fd), metadata);
}

Outcome<bool> FileTarget::Write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd_.get(), bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FromErrno(errno, "cannot write to '" + path_ + "'");
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

void FileTarget::WriteInfo(JsonWriter* writer) const {
  writer->BeginObject();
  writer->Key("name").String(BaseName(path_));
  writer->Key("path").String(path_);
  writer->Key("type").String("file");
  if (!metadata_.empty()) WriteMetadata(&writer->Key("metadata"), metadata_);
  writer->EndObject();
}

}  // namespace cube::agent::envd
