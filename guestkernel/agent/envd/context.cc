#include "guestkernel/agent/envd/context.h"

#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "guestkernel/agent/connect/base64.h"

namespace cube::agent::envd {

using connect::Code;
using connect::Outcome;
using connect::RpcError;

namespace {

constexpr std::string_view kBasic = "Basic ";

// Without "", "." and ".." between the slashes. Of symbolic links it knows nothing.
std::string Clean(std::string_view path) {
  std::vector<std::string_view> parts;
  while (!path.empty()) {
    const size_t end = path.find('/');
    std::string_view part = path.substr(0, end);
    path.remove_prefix(end == std::string_view::npos ? path.size() : end + 1);
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      if (!parts.empty()) parts.pop_back();
      continue;
    }
    parts.push_back(part);
  }
  std::string clean;
  for (std::string_view part : parts) {
    clean += '/';
    clean += part;
  }
  return clean.empty() ? "/" : clean;
}

}  // namespace

Outcome<User> Context::UserNamed(const std::string& name) {
  std::optional<User> user;
  if (!name.empty()) {
    user = users.Find(name);
  } else if (!settings.default_user.empty()) {
    user = users.FindConfigured(settings.default_user);
  } else {
    user = users.Find("user");
    if (!user) user = users.Find("root");
  }
  if (user) return std::move(*user);
  return RpcError{Code::kUnauthenticated,
                  "invalid username: '" + (name.empty() ? settings.default_user : name) + "'"};
}

Outcome<User> Context::UserOf(const http::Request& request) {
  const std::string* field = request.Field("authorization");
  if (field == nullptr || !field->starts_with(kBasic)) return UserNamed("");
  std::optional<std::string> text =
      connect::DecodeBase64(std::string_view(*field).substr(kBasic.size()));
  if (!text) return RpcError{Code::kUnauthenticated, "the authorization is not base64"};
  return UserNamed(text->substr(0, text->find(':')));
}

Outcome<std::string> Context::Resolve(const std::string& path, const User& user,
                                      const std::string& folder) {
  if (path.find('\0') != std::string::npos) {
    return RpcError{Code::kInvalidArgument, "a path with a zero byte in it"};
  }
  if (path.starts_with('/')) return Clean(path);
  if (path == "~") return Clean(user.home);
  if (path.starts_with("~/")) return Clean(user.home + path.substr(1));
  if (path.starts_with('~')) {
    return RpcError{Code::kInvalidArgument,
                    "path '" + path + "': homes of others have no short form"};
  }
  return Clean(folder + "/" + path);
}

Outcome<std::string> Context::ResolveFile(const std::string& path, const User& user) const {
  if (settings.default_workdir.empty()) return Resolve(path, user, user.home);
  // It may be given by a path of these kinds itself.
  Outcome<std::string> folder = Resolve(settings.default_workdir, user, user.home);
  if (!folder.ok()) return folder;
  return Resolve(path, user, *folder);
}

}  // namespace cube::agent::envd
