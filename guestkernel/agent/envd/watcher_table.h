#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_WATCHER_TABLE_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_WATCHER_TABLE_H_

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "guestkernel/agent/connect/message.h"
#include "guestkernel/agent/connect/rpc_error.h"
#include "guestkernel/agent/envd/context.h"
#include "guestkernel/agent/envd/directory_watch.h"

namespace cube::agent::envd {

// What WatchDir and CreateWatcher are given.
struct WatchRequest {
  // An error also if the path is no directory, or one of the network's that it may not be.
  static connect::Outcome<WatchRequest> Parse(const Context& context,
                                              const connect::Message& message, const User& user);

  std::string path;
  bool recursive = false;
  bool include_entry = false;
};

// The message filesystem.FilesystemEvent.
std::string WatchEventJson(Users* users, const DirectoryWatch& watch, DirectoryWatch::Event event,
                           const std::string& name, bool include_entry);

// All watches there are: those of streams, and those whose events a client asks for.
class WatcherTable {
 public:
  static constexpr size_t kMaxPolled = 64;
  static constexpr size_t kMaxEvents = 4096;  // that are kept for a client

  // `context` outlives the table.
  explicit WatcherTable(Context* context) : context_(context) {}

  // A watch that its owner has; it outlives what it was added for.
  void Add(DirectoryWatch* watch) { watches_.insert(watch); }
  void Remove(DirectoryWatch* watch) { watches_.erase(watch); }

  // Has all of them take their events: to be called after directories have been made for a client.
  void LookForFolders();

  // Makes a watch that keeps its events until they are asked for; gives its id.
  connect::Outcome<std::string> CreatePolled(const WatchRequest& request);
  // The message filesystem.GetWatcherEventsResponse with what came since the last time.
  connect::Outcome<std::string> TakePolled(const std::string& id);
  // False if there is none of that id.
  bool RemovePolled(const std::string& id);

 private:
  struct Polled {
    std::unique_ptr<DirectoryWatch> watch;
    std::vector<std::string> events;  // messages
  };

  Context* context_;
  std::set<DirectoryWatch*> watches_;
  std::map<std::string, std::unique_ptr<Polled>> polled_;
};

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_WATCHER_TABLE_H_
