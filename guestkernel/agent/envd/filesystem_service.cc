#include "guestkernel/agent/envd/filesystem_service.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <functional>
#include <utility>

#include "base/json_writer.h"
#include "guestkernel/agent/envd/entry.h"
#include "guestkernel/agent/envd/files.h"
#include "guestkernel/agent/envd/folder_listing.h"
#include "guestkernel/agent/envd/watch_call.h"

namespace cube::agent::envd {

using connect::Code;
using connect::FromErrno;
using connect::Message;
using connect::Outcome;
using connect::RpcError;
using connect::UnaryCall;

namespace {

constexpr char kNothing[] = "{}";

}  // namespace

std::unique_ptr<http::Handler> FilesystemService::Call(std::string_view method,
                                                       const http::Request& request,
                                                       http::Response* response) {
  using Method = Json (FilesystemService::*)(const Message&, const User&);
  struct Row {
    std::string_view name;
    Method method;
  };
  static constexpr Row kMethods[] = {
      {"Stat", &FilesystemService::Stat},
      {"MakeDir", &FilesystemService::MakeDir},
      {"Move", &FilesystemService::Move},
      {"ListDir", &FilesystemService::ListDir},
      {"Remove", &FilesystemService::Remove},
      {"CreateWatcher", &FilesystemService::CreateWatcher},
      {"GetWatcherEvents", &FilesystemService::GetWatcherEvents},
      {"RemoveWatcher", &FilesystemService::RemoveWatcher},
  };
  if (method == "WatchDir") {
    if (auto refusal = connect::RefuseCall(request, response, true)) return refusal;
    return std::make_unique<WatchDirCall>(request, response, context_, watchers_);
  }
  for (const Row& row : kMethods) {
    if (row.name != method) continue;
    if (auto refusal = connect::RefuseCall(request, response, false)) return refusal;
    return std::make_unique<UnaryCall>(
        request, response, [this, run = row.method](UnaryCall* call, const Message& message) {
          Outcome<User> user = context_->UserOf(call->request());
          if (!user.ok()) return call->Fail(user.error());
          Json json = (this->*run)(message, *user);
          if (!json.ok()) return call->Fail(json.error());
          call->Reply(*json);
        });
  }
  return nullptr;
}

FilesystemService::Json FilesystemService::Path(const Message& message, std::string_view name,
                                                const User& user) {
  const std::string path = message.String(name);
  if (!message.error().empty()) return RpcError{Code::kInvalidArgument, message.error()};
  return context_->ResolveFile(path, user);
}

FilesystemService::Json FilesystemService::Stat(const Message& message, const User& user) {
  Json path = Path(message, "path", user);
  if (!path.ok()) return path;
  return EntryJson(&context_->users, *path);
}

FilesystemService::Json FilesystemService::MakeDir(const Message& message, const User& user) {
  Json path = Path(message, "path", user);
  if (!path.ok()) return path;
  Outcome<bool> made = MakeFolders(*path, user);
  if (!made.ok()) return made.error();
  if (!*made) return RpcError{Code::kAlreadyExists, "directory '" + *path + "' exists already"};
  // Whoever is told that it is there may write to it at once, and those who watch are to see that.
  watchers_->LookForFolders();
  return EntryJson(&context_->users, *path);
}

FilesystemService::Json FilesystemService::Move(const Message& message, const User& user) {
  Json source = Path(message, "source", user);
  if (!source.ok()) return source;
  Json destination = Path(message, "destination", user);
  if (!destination.ok()) return destination;
  struct stat info;
  if (lstat(source->c_str(), &info) < 0) {
    if (errno == ENOENT || errno == ENOTDIR) {
      return RpcError{Code::kNotFound, "path '" + *source + "' does not exist"};
    }
    return FromErrno(errno, "cannot look at '" + *source + "'");
  }
  Outcome<bool> made = MakeFolders(FolderOf(*destination), user);
  if (!made.ok()) return made.error();
  if (*made) watchers_->LookForFolders();
  if (rename(source->c_str(), destination->c_str()) < 0) {
    return FromErrno(errno, "cannot move '" + *source + "' to '" + *destination + "'");
  }
  if (S_ISDIR(info.st_mode)) watchers_->LookForFolders();
  return EntryJson(&context_->users, *destination);
}

FilesystemService::Json FilesystemService::ListDir(const Message& message, const User& user) {
  Json path = Path(message, "path", user);
  if (!path.ok()) return path;
  const uint32_t depth = message.Uint32("depth");
  if (!message.error().empty()) return RpcError{Code::kInvalidArgument, message.error()};
  return ListFolder(&context_->users, *path, depth == 0 ? 1 : depth);
}

FilesystemService::Json FilesystemService::Remove(const Message& message, const User& user) {
  Json path = Path(message, "path", user);
  if (!path.ok()) return path;
  Outcome<bool> removed = RemoveTree(*path);
  if (!removed.ok()) return removed.error();
  return std::string(kNothing);
}

FilesystemService::Json FilesystemService::CreateWatcher(const Message& message, const User& user) {
  Outcome<WatchRequest> request = WatchRequest::Parse(*context_, message, user);
  if (!request.ok()) return request.error();
  Json id = watchers_->CreatePolled(*request);
  if (!id.ok()) return id;
  JsonWriter writer;
  return writer.BeginObject().Key("watcherId").String(*id).EndObject().text();
}

FilesystemService::Json FilesystemService::GetWatcherEvents(const Message& message, const User&) {
  const std::string id = message.String("watcherId");
  if (!message.error().empty()) return RpcError{Code::kInvalidArgument, message.error()};
  return watchers_->TakePolled(id);
}

FilesystemService::Json FilesystemService::RemoveWatcher(const Message& message, const User&) {
  const std::string id = message.String("watcherId");
  if (!message.error().empty()) return RpcError{Code::kInvalidArgument, message.error()};
  if (!watchers_->RemovePolled(id)) {
    return RpcError{Code::kNotFound, "watcher '" + id + "' not found"};
  }
  return std::string(kNothing);
}

}  // namespace cube::agent::envd
