#include "pool/client_copy.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <filesystem>
#include <map>

#include "api/url.h"
#include "base/byte_io.h"
#include "pool/client_exec.h"

namespace cube::pool {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

constexpr mode_t kFileMode = 0644;
constexpr int kMaxDepth = 100;
constexpr size_t kPiece = 256 * 1024;
constexpr size_t kMaxName = 255;
// Of paths that one command is given.
constexpr size_t kBatch = 200;

std::string Joined(const std::string& folder, const std::string& name) {
  return folder.ends_with('/') ? folder + name : folder + "/" + name;
}

std::string TargetOf(const std::string& path) { return "/files?path=" + api::PercentEncode(path); }

// The last part of a path; "" if it has none, as "/", "." and ".." have not.
std::string LastName(std::string path) {
  while (path.ends_with('/')) path.pop_back();
  std::string name = path.substr(path.rfind('/') + 1);
  return name == "." || name == ".." ? "" : name;
}

std::string TextOf(const json::object& object, const char* name) {
  const json::value* value = object.if_contains(name);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : "";
}

void LeaveOut(const std::string& path, const char* why, Copied* copied) {
  std::string shown = path;
  std::replace_if(
      shown.begin(), shown.end(), [](unsigned char c) { return c < ' ' || c == 0x7f; }, '?');
  fprintf(stderr, "cube: %s is left out: %s\n", shown.c_str(), why);
  ++copied->left_out;
}

// What the guest says there is at a path; nothing if there is not.
std::optional<json::object> StatOf(GuestConnection* guest, const std::string& path) {
  auto answer = guest->Call("filesystem.Filesystem/Stat", {{"path", path}});
  if (!answer.ok()) return std::nullopt;
  const json::value* entry = answer->if_contains("entry");
  if (entry == nullptr || !entry->is_object()) return std::nullopt;
  return entry->get_object();
}

bool IsFolder(const json::object& entry) { return TextOf(entry, "type") == "FILE_TYPE_DIRECTORY"; }

mode_t ModeOf(const json::object& entry) {
  const json::value* mode = entry.if_contains("mode");
  if (mode == nullptr || !mode->is_int64()) return kFileMode;
  return static_cast<mode_t>(mode->get_int64() & 0777);
}

// Copies of this host's files to a guest.
class Sender {
 public:
  explicit Sender(GuestAccess access, GuestConnection guest)
      : access_(std::move(access)), guest_(std::move(guest)) {}

  Result<Copied> Send(const std::string& from, std::string to) {
    std::error_code failed;
    bool is_folder = fs::is_directory(from, failed);
    if (to.empty()) to = ".";
    auto there = StatOf(&guest_, to);
    if (to.ends_with('/') || (there && IsFolder(*there))) to = Joined(to, LastName(from));
    CUBE_TRY(is_folder ? Folder(from, to) : File(from, to));
    CUBE_TRY(SetModes());
    return copied_;
  }

 private:
  Status Folder(const std::string& from, const std::string& to) {
    CUBE_TRY(MakeFolder(to));
    std::error_code failed;
    fs::recursive_directory_iterator entries(from, failed), end;
    for (; !failed && entries != end; entries.increment(failed)) {
      const std::string path = entries->path();
      const std::string target = Joined(to, path.substr(Joined(from, "").size()));
      struct stat info;
      if (lstat(path.c_str(), &info) < 0) return ErrnoError("%s", path.c_str());
      if (S_ISDIR(info.st_mode)) {
        CUBE_TRY(MakeFolder(target));
        if ((info.st_mode & 0777) != 0755) modes_[info.st_mode & 0777].push_back(target);
      } else if (S_ISREG(info.st_mode)) {
        CUBE_TRY(File(path, target));
      } else if (S_ISLNK(info.st_mode)) {
        CUBE_TRY(Link(fs::read_symlink(path, failed), target));
      } else {
        LeaveOut(path, "neither a file nor a folder", &copied_);
      }
    }
    if (failed) return Errorf("%s: %s", from.c_str(), failed.message().c_str());
    return OkStatus();
  }

  Status MakeFolder(const std::string& path) {
    auto made = guest_.Call("filesystem.Filesystem/MakeDir", {{"path", path}});
    if (!made.ok()) {
      auto there = StatOf(&guest_, path);
      if (!there || !IsFolder(*there)) return made.error();
    }
    ++copied_.folders;
    return OkStatus();
  }

  Status Link(const std::string& target, const std::string& path) {
    CUBE_ASSIGN(ExecOutput done, RunInGuest(access_, {"ln", "-sfn", "--", target, path}));
    if (done.status != 0) return Errorf("%s: %.300s", path.c_str(), done.err.c_str());
    ++copied_.files;
    return OkStatus();
  }

  Status File(const std::string& from, const std::string& to) {
    CUBE_ASSIGN(UniqueFd file, OpenFile(from, O_RDONLY));
    CUBE_ASSIGN(uint64_t size, RegularFileSize(file.get(), from.c_str()));
    struct stat info;
    if (fstat(file.get(), &info) < 0) return ErrnoError("%s", from.c_str());
    CUBE_TRY(guest_.SendHead("POST", TargetOf(to), size,
                             {{"Content-Type", "application/octet-stream"}}));
    std::string piece(kPiece, '\0');
    for (uint64_t left = size; left > 0;) {
      ssize_t n = read(file.get(), piece.data(), std::min<uint64_t>(left, piece.size()));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return ErrnoError("%s", from.c_str());
      if (n == 0) return Errorf("%s has become shorter while it was copied", from.c_str());
      CUBE_TRY(guest_.Send({piece.data(), static_cast<size_t>(n)}));
      left -= static_cast<uint64_t>(n);
    }
    CUBE_ASSIGN(int status, guest_.ReadHead());
    CUBE_ASSIGN(std::string answer, guest_.ReadAll());
    if (status != 200) return GuestConnection::Refusal(status, answer);
    ++copied_.files;
    copied_.bytes += size;
    if ((info.st_mode & 0777) != kFileMode) modes_[info.st_mode & 0777].push_back(to);
    return OkStatus();
  }

  // At the end, or what is to be written into a folder might not be allowed there.
  Status SetModes() {
    for (const auto& [mode, paths] : modes_) {
      for (size_t first = 0; first < paths.size(); first += kBatch) {
        std::vector<std::string> command = {"chmod", Format("%04o", mode), "--"};
        size_t last = std::min(paths.size(), first + kBatch);
        command.insert(command.end(), paths.begin() + static_cast<ptrdiff_t>(first),
                       paths.begin() + static_cast<ptrdiff_t>(last));
        CUBE_ASSIGN(ExecOutput done, RunInGuest(access_, command));
        if (done.status != 0) return Errorf("chmod: %.300s", done.err.c_str());
      }
    }
    return OkStatus();
  }

  GuestAccess access_;
  GuestConnection guest_;
  Copied copied_;
  std::map<mode_t, std::vector<std::string>> modes_;
};

// Copies of a guest's files to this host.
class Fetcher {
 public:
  explicit Fetcher(GuestConnection guest) : guest_(std::move(guest)) {}

  Result<Copied> Fetch(const std::string& from, const std::string& to) {
    auto entry = StatOf(&guest_, from.empty() ? "." : from);
    if (!entry) return Errorf("the sandbox has no \"%.500s\"", from.c_str());
    fs::path place = to;
    std::error_code failed;
    std::string name = LastName(from);
    if (fs::is_directory(place, failed) && !name.empty()) place /= name;
    if (place.has_relative_path() && !place.has_filename()) place = place.parent_path();
    if (!IsFolder(*entry)) {
      CUBE_ASSIGN(UniqueFd folder,
                  OpenFolder(AT_FDCWD,
                             place.parent_path().empty() ? "." : place.parent_path().string(), 0));
      CUBE_TRY(File(from, folder.get(), place.filename(), ModeOf(*entry)));
      return copied_;
    }
    if (mkdir(place.c_str(), 0755) < 0 && errno != EEXIST) return ErrnoError("%s", place.c_str());
    CUBE_ASSIGN(UniqueFd folder, OpenFolder(AT_FDCWD, place, 0));
    CUBE_TRY(Folder(from.empty() ? "." : from, folder.get(), 0));
    return copied_;
  }

 private:
  static Result<UniqueFd> OpenFolder(int parent, const std::string& name, int flags) {
    UniqueFd folder(openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | flags));
    if (!folder.valid()) return ErrnoError("%s", name.c_str());
    return folder;
  }

  static bool IsName(const std::string& name) {
    return !name.empty() && name.size() <= kMaxName && name != "." && name != ".." &&
           name.find('/') == std::string::npos && name.find('\0') == std::string::npos;
  }

  Status Folder(const std::string& from, int folder, int depth) {
    if (depth > kMaxDepth) return Errorf("folders are nested more than %d deep", kMaxDepth);
    ++copied_.folders;
    CUBE_ASSIGN(json::object answer,
                guest_.Call("filesystem.Filesystem/ListDir", {{"path", from}, {"depth", 1}}));
    const json::value* entries = answer.if_contains("entries");
    if (entries == nullptr || !entries->is_array()) return OkStatus();
    for (const json::value& value : entries->get_array()) {
      if (!value.is_object()) continue;
      const json::object& entry = value.get_object();
      std::string name = TextOf(entry, "name");
      if (!IsName(name)) return Errorf("the sandbox names a file \"%.100s\"", name.c_str());
      const std::string path = Joined(from, name);
      bool is_link = !TextOf(entry, "symlinkTarget").empty();
      if (IsFolder(entry) && !is_link) {
        if (mkdirat(folder, name.c_str(), 0755) < 0 && errno != EEXIST) {
          return ErrnoError("%s", name.c_str());
        }
        CUBE_ASSIGN(UniqueFd inner, OpenFolder(folder, name, O_NOFOLLOW));
        CUBE_TRY(Folder(path, inner.get(), depth + 1));
        fchmod(inner.get(), ModeOf(entry));
      } else if (TextOf(entry, "type") == "FILE_TYPE_FILE") {
        CUBE_TRY(File(path, folder, name, ModeOf(entry)));
      } else {
        LeaveOut(path, is_link ? "a link to a folder" : "neither a file nor a folder", &copied_);
      }
    }
    return OkStatus();
  }

  // A link of the guest to a file is copied as that file.
  Status File(const std::string& from, int folder, const std::string& name, mode_t mode) {
    CUBE_TRY(guest_.SendHead("GET", TargetOf(from), 0, {}));
    CUBE_ASSIGN(int status, guest_.ReadHead());
    if (status != 200) {
      CUBE_ASSIGN(std::string answer, guest_.ReadAll());
      return GuestConnection::Refusal(status, answer);
    }
    constexpr int kFlags = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC;
    UniqueFd file(openat(folder, name.c_str(), kFlags, 0600));
    if (!file.valid()) return ErrnoError("%s", name.c_str());
    for (;;) {
      CUBE_ASSIGN(std::string piece, guest_.Read());
      if (piece.empty()) break;
      CUBE_TRY(WriteAll(file.get(), {reinterpret_cast<const uint8_t*>(piece.data()), piece.size()},
                        name.c_str()));
      copied_.bytes += piece.size();
    }
    fchmod(file.get(), mode);
    ++copied_.files;
    return OkStatus();
  }

  GuestConnection guest_;
  Copied copied_;
};

}  // namespace

CopyEnd CopyEnd::Parse(const std::string& text) {
  size_t colon = text.find(':');
  bool is_path = text.starts_with('/') || text.starts_with('.') || colon == std::string::npos;
  if (is_path || text.find('/') < colon) return {"", text};
  return {text.substr(0, colon), text.substr(colon + 1)};
}

Result<Copied> CopyToGuest(const GuestAccess& access, const std::string& from,
                           const std::string& to) {
  CUBE_ASSIGN(GuestConnection guest, GuestConnection::Open(access));
  return Sender(access, std::move(guest)).Send(from, to);
}

Result<Copied> CopyFromGuest(const GuestAccess& access, const std::string& from,
                             const std::string& to) {
  CUBE_ASSIGN(GuestConnection guest, GuestConnection::Open(access));
  return Fetcher(std::move(guest)).Fetch(from, to);
}

}  // namespace cube::pool
