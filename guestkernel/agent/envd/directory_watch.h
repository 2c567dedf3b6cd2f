#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_DIRECTORY_WATCH_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_DIRECTORY_WATCH_H_

#include <sys/inotify.h>

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "base/unique_fd.h"
#include "guestkernel/agent/connect/rpc_error.h"
#include "guestkernel/agent/loop/event_loop.h"

namespace cube::agent::envd {

// What happens in a directory, and with `recursive` in those in it, those too that are made later.
// Of the loop's thread.
class DirectoryWatch {
 public:
  enum class Event { kCreate, kWrite, kRemove, kRename, kChmod };
  // `name` is relative to the directory; it is "." for the directory itself.
  using OnEvent = std::function<void(Event event, const std::string& name)>;

  // How many directories are watched at most.
  static constexpr size_t kMaxFolders = 65536;

  // Armed when this returns. `loop` outlives the watch; `on_event` may not destroy it.
  static connect::Outcome<std::unique_ptr<DirectoryWatch>> Create(EventLoop* loop,
                                                                  const std::string& path,
                                                                  bool recursive, OnEvent on_event);
  ~DirectoryWatch();

  DirectoryWatch(const DirectoryWatch&) = delete;
  DirectoryWatch& operator=(const DirectoryWatch&) = delete;

  // Leaves events with the kernel, which keeps some thousands, or takes them again.
  void Pause(bool pause);
  // Takes what the kernel has now, so that directories made just before are watched from here on.
  // Nothing if paused.
  void Take();

  const std::string& path() const { return path_; }

 private:
  DirectoryWatch(EventLoop* loop, std::string path, bool recursive, OnEvent on_event)
      : loop_(loop),
        path_(std::move(path)),
        recursive_(recursive),
        on_event_(std::move(on_event)) {}

  // Watches a directory and all in it, by its name relative to the top. With `report` what is found
  // there already is new, and reported as such. An error only of the directory itself.
  connect::Outcome<bool> AddTree(const std::string& name, bool report);
  connect::Outcome<int> AddFolder(const std::string& name);
  // Watches a directory that has gone, and all that was in it, no more.
  void DropTree(const std::string& name);
  void Handle(const inotify_event& event, std::string_view name);
  std::string PathOf(const std::string& name) const;

  EventLoop* loop_;
  std::string path_;
  bool recursive_;
  OnEvent on_event_;
  UniqueFd inotify_;
  bool paused_ = false;
  std::map<int, std::string> names_;    // by watch descriptor; "" is the top
  std::map<std::string, int> folders_;  // the other way round
  // What has been reported as new because it was found, and may be reported by the kernel as well.
  std::set<std::string> found_;
};

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_DIRECTORY_WATCH_H_
