#include "guestkernel/agent/envd/directory_watch.h"

#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "guestkernel/agent/envd/folder_listing.h"

namespace cube::agent::envd {

using connect::Code;
using connect::FromErrno;
using connect::Outcome;
using connect::RpcError;

namespace {

constexpr uint32_t kEvents = IN_CREATE | IN_MODIFY | IN_ATTRIB | IN_DELETE | IN_MOVED_FROM |
                             IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR |
                             IN_EXCL_UNLINK;
constexpr size_t kBuffer = 16384;

std::string Join(const std::string& folder, std::string_view name) {
  return folder.empty() ? std::string(name) : folder + "/" + std::string(name);
}

}  // namespace

Outcome<std::unique_ptr<DirectoryWatch>> DirectoryWatch::Create(EventLoop* loop,
                                                                const std::string& path,
                                                                bool recursive, OnEvent on_event) {
  std::unique_ptr<DirectoryWatch> watch(
      new DirectoryWatch(loop, path, recursive, std::move(on_event)));
  watch->inotify_ = UniqueFd(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (!watch->inotify_.valid()) return FromErrno(errno, "cannot watch any more");
  Outcome<bool> added = watch->AddTree("", false);
  if (!added.ok()) return added.error();
  DirectoryWatch* raw = watch.get();
  Status waits = loop->Add(raw->inotify_.get(), EPOLLIN, [raw](uint32_t) { raw->Take(); });
  if (!waits.ok()) return RpcError{Code::kResourceExhausted, waits.error().message()};
  return watch;
}

DirectoryWatch::~DirectoryWatch() {
  if (inotify_.valid()) loop_->Remove(inotify_.get());
}

std::string DirectoryWatch::PathOf(const std::string& name) const {
  if (name.empty()) return path_;
  return path_ == "/" ? "/" + name : path_ + "/" + name;
}

Outcome<int> DirectoryWatch::AddFolder(const std::string& name) {
  if (folders_.size() >= kMaxFolders) {
    return RpcError{Code::kResourceExhausted,
                    Format("more than %zu directories to watch", kMaxFolders)};
  }
  // Of the directory itself links are followed, of those in it they are not.
  const uint32_t events = name.empty() ? kEvents : kEvents | IN_DONT_FOLLOW;
  const int wd = inotify_add_watch(inotify_.get(), PathOf(name).c_str(), events);
  if (wd < 0) return FromErrno(errno, "cannot watch '" + PathOf(name) + "'");
  // It may have been known by the name it had before it was moved.
  auto known = names_.find(wd);
  if (known != names_.end()) folders_.erase(known->second);
  names_[wd] = name;
  folders_[name] = wd;
  return wd;
}

Outcome<bool> DirectoryWatch::AddTree(const std::string& top, bool report) {
  std::vector<std::string> left = {top};
  while (!left.empty()) {
    const std::string folder = std::move(left.back());
    left.pop_back();
    Outcome<int> added = AddFolder(folder);
    if (!added.ok()) {
      if (folder == top) return added.error();
      continue;  // it has gone, or is not to be watched
    }
    if (!recursive_) continue;
    Outcome<std::vector<std::string>> names = ReadFolder(PathOf(folder));
    if (!names.ok()) continue;
    for (const std::string& each : *names) {
      const std::string name = Join(folder, each);
      struct stat info;
      if (lstat(PathOf(name).c_str(), &info) < 0) continue;
      if (S_ISDIR(info.st_mode)) left.push_back(name);
      if (!report) continue;
      found_.insert(name);
      on_event_(Event::kCreate, name);
      if (S_ISREG(info.st_mode) && info.st_size > 0) on_event_(Event::kWrite, name);
    }
  }
  return true;
}

void DirectoryWatch::DropTree(const std::string& name) {
  const std::string below = name + "/";
  auto each = folders_.lower_bound(name);
  while (each != folders_.end() && each->first.starts_with(name)) {
    if (each->first != name && !each->first.starts_with(below)) {
      ++each;
      continue;
    }
    inotify_rm_watch(inotify_.get(), each->second);
    names_.erase(each->second);
    each = folders_.erase(each);
  }
}

void DirectoryWatch::Pause(bool pause) {
  if (pause == paused_) return;
  // Reported at once if there are some.
  if (loop_->Modify(inotify_.get(), pause ? 0u : uint32_t{EPOLLIN}).ok()) paused_ = pause;
}

void DirectoryWatch::Take() {
  if (paused_) return;
  alignas(inotify_event) char buffer[kBuffer];
  while (true) {
    const ssize_t n = read(inotify_.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    for (ssize_t at = 0; at < n;) {
      inotify_event event;
      memcpy(&event, buffer + at, sizeof event);
      const char* name = buffer + at + sizeof event;  // padded with zeros
      Handle(event, std::string_view(name, strnlen(name, event.len)));
      at += static_cast<ssize_t>(sizeof event + event.len);
    }
    // What is left of the buffer would have held any further event.
    if (static_cast<size_t>(n) + sizeof(inotify_event) + NAME_MAX + 1 <= sizeof buffer || paused_) {
      break;
    }
  }
  // Whatever the kernel had to say about what was found before has been said.
  found_.clear();
}

void DirectoryWatch::Handle(const inotify_event& event, std::string_view last) {
  if (event.mask & IN_Q_OVERFLOW) {
    // Directories may have been made unseen.
    if (recursive_) (void)AddTree("", false).ok();
    return;
  }
  auto found = names_.find(event.wd);
  if (found == names_.end()) return;  // of a directory that has been dropped
  const std::string folder = found->second;
  if (event.mask & IN_IGNORED) {
    names_.erase(found);
    folders_.erase(folder);
    return;
  }
  if (last.empty()) {
    // Of a directory itself: the one above tells of it too, unless it is the top.
    if (!folder.empty()) return;
    if (event.mask & IN_DELETE_SELF) on_event_(Event::kRemove, ".");
    if (event.mask & IN_MOVE_SELF) on_event_(Event::kRename, ".");
    return;
  }
  const std::string name = Join(folder, last);
  const bool is_folder = (event.mask & IN_ISDIR) != 0;
  if (event.mask & (IN_CREATE | IN_MOVED_TO)) {
    if (found_.erase(name) == 0) on_event_(Event::kCreate, name);
    if (recursive_ && is_folder && !folders_.contains(name)) (void)AddTree(name, true).ok();
  }
  if (event.mask & IN_MODIFY) on_event_(Event::kWrite, name);
  if (event.mask & IN_ATTRIB) on_event_(Event::kChmod, name);
  if (event.mask & (IN_DELETE | IN_MOVED_FROM)) {
    if (recursive_ && is_folder) DropTree(name);
    on_event_(event.mask & IN_DELETE ? Event::kRemove : Event::kRename, name);
  }
}

}  // namespace cube::agent::envd
