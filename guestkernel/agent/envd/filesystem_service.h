#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_FILESYSTEM_SERVICE_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_FILESYSTEM_SERVICE_H_

#include <memory>
#include <string>
#include <string_view>

#include "guestkernel/agent/connect/call.h"
#include "guestkernel/agent/envd/context.h"
#include "guestkernel/agent/envd/watcher_table.h"
#include "guestkernel/agent/http/exchange.h"

namespace cube::agent::envd {

// The service filesystem.Filesystem: looks at files, moves, removes and watches them.
class FilesystemService {
 public:
  // Both outlive the service.
  FilesystemService(Context* context, WatcherTable* watchers)
      : context_(context), watchers_(watchers) {}

  // The handler of a call of `method`; null if the service has no such method.
  std::unique_ptr<http::Handler> Call(std::string_view method, const http::Request& request,
                                      http::Response* response);

 private:
  using Json = connect::Outcome<std::string>;

  Json Stat(const connect::Message& message, const User& user);
  Json MakeDir(const connect::Message& message, const User& user);
  Json Move(const connect::Message& message, const User& user);
  Json ListDir(const connect::Message& message, const User& user);
  Json Remove(const connect::Message& message, const User& user);
  Json CreateWatcher(const connect::Message& message, const User& user);
  Json GetWatcherEvents(const connect::Message& message, const User& user);
  Json RemoveWatcher(const connect::Message& message, const User& user);

  // A path of the message, as the user means it.
  Json Path(const connect::Message& message, std::string_view name, const User& user);

  Context* context_;
  WatcherTable* watchers_;
};

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_FILESYSTEM_SERVICE_H_
