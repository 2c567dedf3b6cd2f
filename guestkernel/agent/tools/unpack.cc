#include "guestkernel/agent/tools/unpack.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "base/byte_io.h"
#include "base/file_stream.h"
#include "base/unique_fd.h"
#include "guestkernel/agent/tools/account.h"

namespace cube::agent {
namespace {

using file_stream::Header;
using file_stream::Kind;

struct Entry {
  Header header;
  std::string path, name, owner;
};

class Unpacker {
 public:
  explicit Unpacker(int fd) : fd_(fd), buffer_(64 * 1024) {}

  Status Run() {
    while (true) {
      Entry entry;
      CUBE_TRY(Read(&entry.header, sizeof entry.header));
      CUBE_TRY(Check(entry.header));
      if (entry.header.kind == static_cast<uint32_t>(Kind::kEnd)) return OkStatus();
      CUBE_TRY(ReadString(entry.header.path_bytes, &entry.path));
      CUBE_TRY(ReadString(entry.header.name_bytes, &entry.name));
      CUBE_TRY(ReadString(entry.header.owner_bytes, &entry.owner));
      if (entry.path.empty() || entry.path[0] != '/') {
        return Errorf("\"%s\" in the stream of files is no path from the root", entry.path.c_str());
      }
      CUBE_TRY(Make(&entry));
    }
  }

 private:
  Status Read(void* out, size_t size) {
    auto* to = static_cast<uint8_t*>(out);
    while (size > 0) {
      ssize_t n = read(fd_, to, size);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return ErrnoError("the stream of files");
      if (n == 0) return Errorf("the stream of files ends %zu bytes early", size);
      to += n;
      size -= static_cast<size_t>(n);
    }
    return OkStatus();
  }

  Status ReadString(uint32_t size, std::string* out) {
    out->resize(size);
    CUBE_TRY(Read(out->data(), size));
    if (out->find('\0') != std::string::npos) return Errorf("a zero byte in the stream's strings");
    return OkStatus();
  }

  static Status Check(const Header& header) {
    if (header.magic != file_stream::kMagic || header.kind > static_cast<uint32_t>(Kind::kLink)) {
      return Errorf("the stream of files is damaged: kind %u, magic %#x", header.kind,
                    header.magic);
    }
    if (header.path_bytes > file_stream::kMaxPath || header.name_bytes > file_stream::kMaxPath ||
        header.owner_bytes > file_stream::kMaxOwner) {
      return Errorf("the stream of files is damaged: a string of more than %u bytes",
                    file_stream::kMaxPath);
    }
    return OkStatus();
  }

  // The folders above `path`, if they are not there.
  static Status MakeParents(const std::string& path) {
    for (size_t slash = path.find('/', 1); slash != std::string::npos;
         slash = path.find('/', slash + 1)) {
      std::string folder = path.substr(0, slash);
      if (mkdir(folder.c_str(), 0755) < 0 && errno != EEXIST) {
        return ErrnoError("cannot make %s", folder.c_str());
      }
    }
    return OkStatus();
  }

  static bool IsFolder(const std::string& path) {
    struct stat info;
    return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
  }

  Status Make(Entry* entry) {
    Account account;
    if (!entry->owner.empty()) {
      CUBE_ASSIGN(account, Account::Find(entry->owner));
    }
    if (!entry->name.empty() && IsFolder(entry->path)) entry->path += "/" + entry->name;
    CUBE_TRY(MakeParents(entry->path));
    switch (static_cast<Kind>(entry->header.kind)) {
      case Kind::kFolder:
        return MakeFolder(*entry, account);
      case Kind::kFile:
        return MakeFile(*entry, account);
      case Kind::kLink:
        return MakeLink(*entry, account);
      case Kind::kEnd:
        break;
    }
    return OkStatus();
  }

  static Status MakeFolder(const Entry& entry, const Account& account) {
    const char* path = entry.path.c_str();
    bool made = mkdir(path, 0755) == 0;
    if (!made && !(errno == EEXIST && IsFolder(entry.path)))
      return ErrnoError("cannot make %s", path);
    if (made && chown(path, account.uid, account.gid) < 0) return ErrnoError("chown %s", path);
    if (entry.header.mode == file_stream::kKeepMode) return OkStatus();
    if (chmod(path, entry.header.mode & 07777) < 0) return ErrnoError("chmod %s", path);
    return OkStatus();
  }

  static Status MakeRoom(const std::string& path) {
    if (unlink(path.c_str()) < 0 && errno != ENOENT) {
      return ErrnoError("cannot replace %s", path.c_str());
    }
    return OkStatus();
  }

  Status MakeFile(const Entry& entry, const Account& account) {
    const char* path = entry.path.c_str();
    CUBE_TRY(MakeRoom(entry.path));
    CUBE_ASSIGN(UniqueFd file, OpenFile(entry.path, O_WRONLY | O_CREAT | O_EXCL, 0600));
    for (uint64_t left = entry.header.size; left > 0;) {
      size_t size = static_cast<size_t>(std::min<uint64_t>(left, buffer_.size()));
      CUBE_TRY(Read(buffer_.data(), size));
      CUBE_TRY(WriteAll(file.get(), {buffer_.data(), size}, path));
      left -= size;
    }
    if (fchown(file.get(), account.uid, account.gid) < 0) return ErrnoError("chown %s", path);
    if (fchmod(file.get(), entry.header.mode & 07777) < 0) return ErrnoError("chmod %s", path);
    return OkStatus();
  }

  Status MakeLink(const Entry& entry, const Account& account) {
    std::string target;
    if (entry.header.size == 0 || entry.header.size > file_stream::kMaxPath) {
      return Errorf("%s: a link's target of %llu bytes", entry.path.c_str(),
                    static_cast<unsigned long long>(entry.header.size));
    }
    CUBE_TRY(ReadString(static_cast<uint32_t>(entry.header.size), &target));
    CUBE_TRY(MakeRoom(entry.path));
    if (symlink(target.c_str(), entry.path.c_str()) < 0 ||
        lchown(entry.path.c_str(), account.uid, account.gid) < 0) {
      return ErrnoError("cannot make the link %s", entry.path.c_str());
    }
    return OkStatus();
  }

  int fd_;
  std::vector<uint8_t> buffer_;
};

}  // namespace

Status Unpack(int fd) { return Unpacker(fd).Run(); }

}  // namespace cube::agent
