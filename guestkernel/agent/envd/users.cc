#include "guestkernel/agent/envd/users.h"

#include <sys/stat.h>

#include <utility>

#include "base/monotonic.h"
#include "guestkernel/agent/account_files.h"
#include "guestkernel/agent/tools/account.h"

namespace cube::agent::envd {
namespace {

constexpr uint64_t kTrusted = 500'000'000;  // nanoseconds

}  // namespace

Users::Users(std::string passwd, std::string group)
    : passwd_(std::move(passwd)), group_(std::move(group)) {}

Users::Version Users::Look(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) < 0) return Version();
  return {info.st_ino, info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec};
}

void Users::Refresh(bool now) {
  const uint64_t time = MonotonicNow();
  if (!now && looked_ != 0 && time - looked_ < kTrusted) return;
  Version passwd = Look(passwd_);
  Version group = Look(group_);
  if (looked_ == 0 || passwd != passwd_version_) ReadPasswd();
  if (looked_ == 0 || group != group_version_) ReadGroup();
  passwd_version_ = passwd;
  group_version_ = group;
  looked_ = time;
}

void Users::ReadPasswd() {
  accounts_.clear();
  user_names_.clear();
  // The first of two entries counts.
  ForEachUser(passwd_, [this](const passwd& entry) {
    user_names_.emplace(entry.pw_uid, entry.pw_name);
    accounts_.emplace(entry.pw_name,
                      Account{entry.pw_uid, entry.pw_gid, entry.pw_dir, entry.pw_shell});
    return true;
  });
  if (!accounts_.empty()) return;
  accounts_["root"] = {0, 0, "/", ""};
  user_names_[0] = "root";
}

void Users::ReadGroup() {
  groups_.clear();
  group_names_.clear();
  ForEachGroup(group_, [this](const group& entry) {
    Group group{entry.gr_gid, {}};
    for (char** member = entry.gr_mem; *member != nullptr; ++member) {
      group.members.emplace_back(*member);
    }
    group_names_.emplace(entry.gr_gid, entry.gr_name);
    groups_.emplace(entry.gr_name, std::move(group));
    return true;
  });
}

std::optional<User> Users::Find(const std::string& name) {
  Refresh(false);
  auto account = accounts_.find(name);
  if (account == accounts_.end()) {
    Refresh(true);  // it may have been added a moment ago
    account = accounts_.find(name);
  }
  if (account == accounts_.end()) return std::nullopt;
  User user;
  user.name = name;
  user.home = account->second.home.empty() ? "/" : account->second.home;
  user.shell = account->second.shell;
  user.credentials.uid = account->second.uid;
  user.credentials.gid = account->second.gid;
  for (const auto& [group_name, group] : groups_) {
    for (const std::string& member : group.members) {
      if (member == name) {
        user.credentials.groups.push_back(group.gid);
        break;
      }
    }
  }
  return user;
}

std::optional<User> Users::FindConfigured(const std::string& text) {
  if (std::optional<User> user = Find(text)) return user;
  Result<agent::Account> account = agent::Account::Find(text, passwd_, group_);
  if (!account.ok()) return std::nullopt;
  return User{.name = UserName(account->uid),
              .home = account->home,
              .credentials = {account->uid, account->gid, account->groups}};
}

std::string Users::UserName(uid_t uid) {
  Refresh(false);
  auto found = user_names_.find(uid);
  return found == user_names_.end() ? std::to_string(uid) : found->second;
}

std::string Users::GroupName(gid_t gid) {
  Refresh(false);
  auto found = group_names_.find(gid);
  return found == group_names_.end() ? std::to_string(gid) : found->second;
}

}  // namespace cube::agent::envd
