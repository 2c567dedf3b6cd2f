#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_WATCH_CALL_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_WATCH_CALL_H_

#include <memory>
#include <string>

#include "guestkernel/agent/connect/call.h"
#include "guestkernel/agent/envd/context.h"
#include "guestkernel/agent/envd/directory_watch.h"
#include "guestkernel/agent/envd/watcher_table.h"

namespace cube::agent::envd {

// A stream of what happens in a directory.
class WatchDirCall final : public connect::ServerStreamCall {
 public:
  WatchDirCall(const http::Request& request, http::Response* response, Context* context,
               WatcherTable* watchers)
      : ServerStreamCall(request, response, context->loop),
        context_(context),
        watchers_(watchers) {}
  ~WatchDirCall() override;

  void OnDrained() override;

 private:
  void Begin(const connect::Message& message) override;
  void OnEvent(DirectoryWatch::Event event, const std::string& name);

  Context* context_;
  WatcherTable* watchers_;
  bool include_entry_ = false;
  std::unique_ptr<DirectoryWatch> watch_;
};

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_WATCH_CALL_H_
