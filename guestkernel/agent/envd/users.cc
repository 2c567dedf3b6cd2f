#include "guestkernel/agent/envd/users.h"

#include <sys/stat.h>

#include <charconv>
#include <string_view>
#include <utility>

#include "base/byte_io.h"
#include "base/monotonic.h"

namespace cube::agent::envd {
namespace {

constexpr size_t kMaxFile = 1 << 20;
constexpr uint64_t kTrusted = 500'000'000;  // nanoseconds

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

bool ParseId(std::string_view text, uint32_t* id) {
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *id);
  return error == std::errc() && end == text.data() + text.size();
}

// The lines of a file of at least `fields` fields separated by colons.
std::vector<std::vector<std::string_view>> Lines(std::string_view text, size_t fields) {
  std::vector<std::vector<std::string_view>> lines;
  for (std::string_view line : Split(text, '\n')) {
    std::vector<std::string_view> parts = Split(line, ':');
    if (parts.size() >= fields && !parts[0].empty()) lines.push_back(std::move(parts));
  }
  return lines;
}

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
  Result<std::string> text = ReadSmallFile(passwd_, kMaxFile);
  if (text.ok()) {
    // name:password:uid:gid:comment:home:shell. The first of two lines counts.
    for (const auto& fields : Lines(*text, 6)) {
      Account account;
      if (!ParseId(fields[2], &account.uid) || !ParseId(fields[3], &account.gid)) continue;
      account.home = fields[5];
      user_names_.emplace(account.uid, fields[0]);
      accounts_.emplace(fields[0], std::move(account));
    }
  }
  if (!accounts_.empty()) return;
  accounts_["root"] = {0, 0, "/"};
  user_names_[0] = "root";
}

void Users::ReadGroup() {
  groups_.clear();
  group_names_.clear();
  Result<std::string> text = ReadSmallFile(group_, kMaxFile);
  if (!text.ok()) return;
  // name:password:gid:members
  for (const auto& fields : Lines(*text, 4)) {
    Group group;
    if (!ParseId(fields[2], &group.gid)) continue;
    for (std::string_view member : Split(fields[3], ',')) {
      if (!member.empty()) group.members.emplace_back(member);
    }
    group_names_.emplace(group.gid, fields[0]);
    groups_.emplace(fields[0], std::move(group));
  }
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
