#include "guestkernel/agent/tools/account.h"

#include <grp.h>
#include <unistd.h>

#include <charconv>
#include <optional>

#include "guestkernel/agent/account_files.h"

namespace cube::agent {
namespace {

std::optional<uint32_t> NumberOf(const std::string& text) {
  uint32_t number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  // -1 is what system calls take for "as it is".
  if (error != std::errc() || end != text.data() + text.size() || number == UINT32_MAX) {
    return std::nullopt;
  }
  return number;
}

// The user's name as the file has it; empty if it does not.
Result<std::string> FindUser(const std::string& user, const std::string& path, Account* account) {
  std::optional<uint32_t> number = NumberOf(user);
  std::optional<std::string> name;
  ForEachUser(path, [&](const passwd& entry) {
    if (user != entry.pw_name && (!number || *number != entry.pw_uid)) return true;
    account->uid = entry.pw_uid;
    account->gid = entry.pw_gid;
    if (entry.pw_dir[0] != '\0') account->home = entry.pw_dir;
    name = entry.pw_name;
    return false;
  });
  if (name) return *name;
  if (number) {
    account->uid = *number;
    return std::string();
  }
  // A machine without the file has root.
  if (user == "root") {
    account->home = "/root";
    return user;
  }
  return Errorf("there is no user \"%s\" in %s", user.c_str(), path.c_str());
}

}  // namespace

Result<Account> Account::Find(const std::string& text, const std::string& passwd,
                              const std::string& group_file) {
  size_t colon = text.find(':');
  const std::string user = text.substr(0, colon);
  const std::string group = colon == std::string::npos ? "" : text.substr(colon + 1);
  Account account;
  if (user.empty()) return Errorf("\"%s\" names no user", text.c_str());
  CUBE_ASSIGN(std::string name, FindUser(user, passwd, &account));
  std::optional<uint32_t> number = NumberOf(group);
  if (number) account.gid = *number;
  bool found = group.empty() || number.has_value() || group == "root";
  if (group == "root") account.gid = 0;
  ForEachGroup(group_file, [&](const ::group& entry) {
    if (!group.empty()) {
      if (group != entry.gr_name) return true;
      account.gid = entry.gr_gid;
      found = true;
      return false;
    }
    for (char** member = entry.gr_mem; *member != nullptr; ++member) {
      if (name == *member) account.groups.push_back(entry.gr_gid);
    }
    return true;
  });
  if (!found) return Errorf("there is no group \"%s\" in %s", group.c_str(), group_file.c_str());
  return account;
}

Result<Account> Account::Find(const std::string& text) {
  return Find(text, "/etc/passwd", "/etc/group");
}

Status Account::Become() const {
  if (setgroups(groups.size(), groups.data()) < 0) return ErrnoError("cannot set the groups");
  if (setgid(gid) < 0) return ErrnoError("cannot become group %u", gid);
  if (setuid(uid) < 0) return ErrnoError("cannot become user %u", uid);
  return OkStatus();
}

}  // namespace cube::agent
