#include "guestkernel/agent/envd/watcher_table.h"

#include <linux/magic.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <cerrno>
#include <cstdint>
#include <utility>

#include "base/json_writer.h"
#include "guestkernel/agent/envd/entry.h"

namespace cube::agent::envd {

using connect::Code;
using connect::FromErrno;
using connect::Message;
using connect::Outcome;
using connect::RpcError;

namespace {

// File systems that change without this kernel's doing, so that it cannot tell of it.
constexpr uint32_t kRemote[] = {NFS_SUPER_MAGIC,  SMB_SUPER_MAGIC,  SMB2_SUPER_MAGIC,
                                CIFS_SUPER_MAGIC, FUSE_SUPER_MAGIC, V9FS_MAGIC,
                                CEPH_SUPER_MAGIC, AFS_SUPER_MAGIC};

const char* EventName(DirectoryWatch::Event event) {
  switch (event) {
    case DirectoryWatch::Event::kCreate:
      return "EVENT_TYPE_CREATE";
    case DirectoryWatch::Event::kWrite:
      return "EVENT_TYPE_WRITE";
    case DirectoryWatch::Event::kRemove:
      return "EVENT_TYPE_REMOVE";
    case DirectoryWatch::Event::kRename:
      return "EVENT_TYPE_RENAME";
    case DirectoryWatch::Event::kChmod:
      return "EVENT_TYPE_CHMOD";
  }
  __builtin_trap();
}

// Nobody's to guess: whoever has it can read the events.
Outcome<std::string> NewId() {
  uint8_t bytes[16];
  if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes) {
    return FromErrno(errno, "cannot make an id");
  }
  std::string id = "w";
  for (uint8_t byte : bytes) id += Format("%02x", byte);
  return id;
}

}  // namespace

Outcome<WatchRequest> WatchRequest::Parse(const Context& context, const Message& message,
                                          const User& user) {
  WatchRequest request;
  const std::string path = message.String("path");
  request.recursive = message.Bool("recursive");
  request.include_entry = message.Bool("includeEntry");
  const bool allow_remote = message.Bool("allowNetworkMounts");
  if (!message.error().empty()) return RpcError{Code::kInvalidArgument, message.error()};
  Outcome<std::string> resolved = context.ResolveFile(path, user);
  if (!resolved.ok()) return resolved.error();
  request.path = *resolved;
  struct stat info;
  if (stat(request.path.c_str(), &info) < 0) {
    if (errno == ENOENT || errno == ENOTDIR) {
      return RpcError{Code::kNotFound, "path '" + request.path + "' does not exist"};
    }
    return FromErrno(errno, "cannot look at '" + request.path + "'");
  }
  if (!S_ISDIR(info.st_mode)) {
    return RpcError{Code::kInvalidArgument, "path '" + request.path + "' is not a directory"};
  }
  struct statfs system;
  if (allow_remote || statfs(request.path.c_str(), &system) < 0) return request;
  for (uint32_t remote : kRemote) {
    if (static_cast<uint32_t>(system.f_type) != remote) continue;
    return RpcError{Code::kInvalidArgument, "path '" + request.path +
                                                "' is on a network file system, of whose changes " +
                                                "only those made here would be seen"};
  }
  return request;
}

std::string WatchEventJson(Users* users, const DirectoryWatch& watch, DirectoryWatch::Event event,
                           const std::string& name, bool include_entry) {
  JsonWriter writer;
  writer.BeginObject().Key("name").String(name).Key("type").String(EventName(event));
  const bool is_there = event == DirectoryWatch::Event::kCreate ||
                        event == DirectoryWatch::Event::kWrite ||
                        event == DirectoryWatch::Event::kChmod;
  if (include_entry && is_there) {
    const std::string path = watch.path() == "/" ? "/" + name : watch.path() + "/" + name;
    struct stat info;
    if (lstat(path.c_str(), &info) == 0) {
      WriteEntry(&writer.Key("entry"), users, path, info);
    }
  }
  return writer.EndObject().text();
}

void WatcherTable::LookForFolders() {
  for (DirectoryWatch* watch : watches_) watch->Take();
}

Outcome<std::string> WatcherTable::CreatePolled(const WatchRequest& request) {
  if (polled_.size() >= kMaxPolled) {
    return RpcError{Code::kResourceExhausted, Format("%zu watchers are the limit", kMaxPolled)};
  }
  Outcome<std::string> id = NewId();
  if (!id.ok()) return id;
  auto polled = std::make_unique<Polled>();
  Polled* raw = polled.get();
  Outcome<std::unique_ptr<DirectoryWatch>> watch =
      DirectoryWatch::Create(context_->loop, request.path, request.recursive,
                             [this, raw, with_entry = request.include_entry](
                                 DirectoryWatch::Event event, const std::string& name) {
                               // What comes beyond that, within one look, is lost, as it is when
                               // the kernel has too many.
                               if (raw->events.size() >= 2 * kMaxEvents) return;
                               raw->events.push_back(WatchEventJson(&context_->users, *raw->watch,
                                                                    event, name, with_entry));
                               if (raw->events.size() >= kMaxEvents) raw->watch->Pause(true);
                             });
  if (!watch.ok()) return watch.error();
  polled->watch = std::move(watch).value();
  Add(polled->watch.get());
  polled_[*id] = std::move(polled);
  return id;
}

Outcome<std::string> WatcherTable::TakePolled(const std::string& id) {
  auto found = polled_.find(id);
  if (found == polled_.end()) {
    return RpcError{Code::kNotFound, "watcher '" + id + "' not found"};
  }
  Polled& polled = *found->second;
  polled.watch->Take();  // the client has seen happen what it asks about
  std::string json = "{\"events\":[";
  for (size_t i = 0; i < polled.events.size(); ++i) {
    if (i > 0) json += ',';
    json += polled.events[i];
  }
  json += "]}";
  polled.events.clear();
  polled.watch->Pause(false);
  return json;
}

bool WatcherTable::RemovePolled(const std::string& id) {
  auto found = polled_.find(id);
  if (found == polled_.end()) return false;
  Remove(found->second->watch.get());
  polled_.erase(found);
  return true;
}

}  // namespace cube::agent::envd
