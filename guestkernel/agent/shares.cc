#include "guestkernel/agent/shares.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/unique_fd.h"
#include "guestkernel/agent/log.h"

namespace cube::agent {
namespace {

constexpr std::string_view kWord = "cube.share=";
constexpr std::string_view kReadOnly = ":ro";
constexpr char kFolder[] = "/mnt/";
// COMMAND_LINE_SIZE of x86.
constexpr size_t kMaxCommandLine = 2048;

bool IsTag(std::string_view tag) {
  if (tag.empty() || tag == "." || tag == "..") return false;
  for (char c : tag) {
    bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                c == '.' || c == '_' || c == '-';
    if (!good) return false;
  }
  return true;
}

Status MakeFolder(const char* path) {
  if (mkdir(path, 0755) < 0 && errno != EEXIST) return ErrnoError("cannot make %s", path);
  return OkStatus();
}

Status MountShare(const Share& share) {
  std::string target = kFolder + share.tag;
  CUBE_TRY(MakeFolder("/mnt"));
  CUBE_TRY(MakeFolder(target.c_str()));
  // What the host's files say of privileges and devices is about the host.
  unsigned long flags = MS_NOSUID | MS_NODEV;
  if (share.read_only) flags |= MS_RDONLY;
  if (mount(share.tag.c_str(), target.c_str(), "virtiofs", flags, nullptr) < 0) {
    return ErrnoError("cannot mount share %s on %s", share.tag.c_str(), target.c_str());
  }
  return OkStatus();
}

}  // namespace

std::vector<Share> SharesOf(std::string_view command_line) {
  std::vector<Share> shares;
  while (!command_line.empty()) {
    size_t end = command_line.find_first_of(" \n");
    std::string_view word = command_line.substr(0, end);
    command_line.remove_prefix(end == command_line.npos ? command_line.size() : end + 1);
    if (!word.starts_with(kWord)) continue;
    word.remove_prefix(kWord.size());
    bool read_only = word.ends_with(kReadOnly);
    if (read_only) word.remove_suffix(kReadOnly.size());
    if (IsTag(word)) shares.push_back({std::string(word), read_only});
  }
  return shares;
}

void MountShares() {
  UniqueFd file(open("/proc/cmdline", O_RDONLY | O_CLOEXEC));
  char line[kMaxCommandLine];
  ssize_t size = file.valid() ? read(file.get(), line, sizeof line) : -1;
  if (size < 0) {
    Log(ErrnoError("/proc/cmdline").message());
    return;
  }
  for (const Share& share : SharesOf({line, static_cast<size_t>(size)})) {
    Status status = MountShare(share);
    if (!status.ok()) Log(status.error().message());
  }
}

}  // namespace cube::agent
