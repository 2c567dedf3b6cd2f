#include "vmm/cli/run_files.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <vector>

#include "vmm/cli/cube_home.h"

namespace cube::vmm {
namespace {

Result<UniqueFd> OpenClaims() { return OpenFile(CubeHome() + "/claims", O_RDWR | O_CREAT, 0600); }

// The byte of that id. Two with one byte hold it both.
struct flock ByteOf(const std::string& id, short type) {
  struct flock byte = {};
  byte.l_type = type;
  byte.l_whence = SEEK_SET;
  byte.l_start = static_cast<off_t>(XXH3_64bits(id.data(), id.size()) >> 2);
  byte.l_len = 1;
  return byte;
}

// True unless it is certain that nobody has claimed it.
bool IsClaimed(int claims, const std::string& id) {
  struct flock byte = ByteOf(id, F_WRLCK);
  return fcntl(claims, F_OFD_GETLK, &byte) < 0 || byte.l_type != F_UNLCK;
}

// As Run::MakeId() makes it, or a zygote for its rehearsal.
bool IsId(const std::string& name) {
  constexpr std::string_view kRehearsal = "rehearsal-";
  if (name.starts_with(kRehearsal)) {
    return name.find_first_not_of("0123456789", kRehearsal.size()) == std::string::npos;
  }
  return name.size() == 20 && name.find_first_not_of("0123456789abcdef") == std::string::npos;
}

// True unless it is certain that nobody listens at that socket, whose name is short.
bool IsListening(int folder, const std::string& name) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::string path = Format("/proc/self/fd/%d/%s", folder, name.c_str());
  if (path.size() >= sizeof address.sun_path) return true;
  memcpy(address.sun_path, path.data(), path.size());
  UniqueFd peer(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  return connect(peer.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 ||
         (errno != ECONNREFUSED && errno != ENOENT);
}

bool IsEmptyFile(int folder, const std::string& name) {
  struct stat info;
  return fstatat(folder, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(info.st_mode) &&
         info.st_size == 0;
}

}  // namespace

Result<UniqueFd> ClaimId(const std::string& id) {
  CUBE_ASSIGN(UniqueFd claims, OpenClaims());
  struct flock byte = ByteOf(id, F_RDLCK);
  // Where a file system has no such locks, nobody finds anything unclaimed either.
  (void)fcntl(claims.get(), F_OFD_SETLK, &byte);
  return claims;
}

void RemoveFilesOfDead() {
  auto claims = OpenClaims();
  auto folder = OpenFile(RunFolder(), O_RDONLY | O_DIRECTORY);
  if (!claims.ok() || !folder.ok()) return;
  std::map<std::string, std::vector<std::string>> files;  // by id
  std::error_code failed;
  for (std::filesystem::directory_iterator at(RunFolder(), failed), end; !failed && at != end;
       at.increment(failed)) {
    std::string name = at->path().filename();
    std::string id = name.substr(0, name.find('.'));
    if (IsId(id)) files[id].push_back(name);
  }
  for (const auto& [id, names] : files) {
    // One that does not know of claims still answers.
    if (IsClaimed(claims->get(), id) || IsListening(folder->get(), id + ".sock")) continue;
    for (const std::string& name : names) {
      bool gone = name == id + ".sock" || name == id + ".sock.new" || name == id + ".vsock" ||
                  (name == id + ".log" && IsEmptyFile(folder->get(), name));
      if (gone) unlinkat(folder->get(), name.c_str(), 0);
    }
  }
}

}  // namespace cube::vmm
