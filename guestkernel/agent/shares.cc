#include "guestkernel/agent/shares.h"

#include <sys/mount.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/byte_io.h"
#include "guestkernel/agent/kernel_words.h"
#include "guestkernel/agent/log.h"

namespace cube::agent {
namespace {

constexpr std::string_view kWord = "cube.share=";
constexpr std::string_view kReadOnly = ":ro";
constexpr char kFolder[] = "/mnt/";

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
  for (std::string_view tag : KernelWords(command_line, kWord)) {
    const bool read_only = CutSuffix(&tag, kReadOnly);
    if (IsTag(tag)) shares.push_back({std::string(tag), read_only});
  }
  return shares;
}

void MountShares() {
  auto command_line = ReadSmallFile("/proc/cmdline");
  if (!command_line.ok()) {
    Log(command_line.error().message());
    return;
  }
  for (const Share& share : SharesOf(*command_line)) {
    Status status = MountShare(share);
    if (!status.ok()) Log(status.error().message());
  }
}

}  // namespace cube::agent
