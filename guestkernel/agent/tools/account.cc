#include "guestkernel/agent/tools/account.h"

#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <memory>
#include <optional>

namespace cube::agent {
namespace {

using File = std::unique_ptr<FILE, int (*)(FILE*)>;

File Open(const std::string& path) { return File(fopen(path.c_str(), "re"), fclose); }

std::optional<uint32_t> NumberOf(const std::string& text) {
  uint32_t number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  // -1 is what system calls take for "as it is".
  if (error != std::errc() || end != text.data() + text.size() || number == UINT32_MAX) {
    return std::nullopt;
  }
  return number;
}

constexpr size_t kMaxLine = 65536;

// The user's name as the file has it; empty if it does not.
Result<std::string> FindUser(const std::string& user, const std::string& path, Account* account) {
  std::optional<uint32_t> number = NumberOf(user);
  if (File file = Open(path)) {
    std::vector<char> line(kMaxLine);
    passwd entry;
    passwd* found = nullptr;
    while (fgetpwent_r(file.get(), &entry, line.data(), line.size(), &found) == 0) {
      if (user != entry.pw_name && (!number || *number != entry.pw_uid)) continue;
      account->uid = entry.pw_uid;
      account->gid = entry.pw_gid;
      if (entry.pw_dir[0] != '\0') account->home = entry.pw_dir;
      return std::string(entry.pw_name);
    }
  }
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
  if (File file = Open(group_file)) {
    std::vector<char> line(kMaxLine);
    ::group entry;
    ::group* next = nullptr;
    while (fgetgrent_r(file.get(), &entry, line.data(), line.size(), &next) == 0) {
      if (!group.empty()) {
        if (group != entry.gr_name) continue;
        account.gid = entry.gr_gid;
        found = true;
        break;
      }
      for (char** member = entry.gr_mem; *member != nullptr; ++member) {
        if (name == *member) account.groups.push_back(entry.gr_gid);
      }
    }
  }
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
