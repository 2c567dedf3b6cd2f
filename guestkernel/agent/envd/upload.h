#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_UPLOAD_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_UPLOAD_H_

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "guestkernel/agent/envd/context.h"
#include "guestkernel/agent/envd/file_target.h"
#include "guestkernel/agent/envd/gunzip.h"
#include "guestkernel/agent/envd/multipart.h"
#include "guestkernel/agent/envd/watcher_table.h"
#include "guestkernel/agent/http/exchange.h"

namespace cube::agent::envd {

// POST /files: writes the body to a file, or its parts to several, as it comes and whatever its
// size.
class Upload final : public http::Handler {
 public:
  // Whoever makes it has seen to it that the client may. What it cannot do it answers itself.
  Upload(const http::Request& request, http::Response* response, Context* context,
         WatcherTable* watchers);

  void OnBody(std::string_view bytes) override;
  void OnBodyEnd() override;

 private:
  // Looks at the request's head. An error ends it.
  connect::Outcome<bool> Begin(const http::Request& request);
  // What the body is once it is no longer compressed.
  Status TakePlain(std::string_view bytes);
  Status BeginPart(const PartHead& head);
  Status WriteToFile(std::string_view bytes);
  Status EndFile();
  Status OpenFile(const std::string& path);
  void Fail(const connect::RpcError& error);

  Context* context_;
  WatcherTable* watchers_;
  http::Response* response_;
  User user_;
  Metadata metadata_;
  std::optional<std::string> path_;  // of the query, as the client has it
  std::unique_ptr<Gunzip> gunzip_;
  std::optional<MultipartReader> parts_;
  std::optional<FileTarget> file_;  // that is being written; nothing in a part that is not wanted
  std::set<std::string> written_;   // paths
  JsonWriter answer_;
  connect::RpcError error_;  // behind a Status that says that there is one
  bool failed_ = false;
};

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_UPLOAD_H_
