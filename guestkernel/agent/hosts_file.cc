#include "guestkernel/agent/hosts_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <string_view>
#include <vector>

namespace cube::agent {
namespace {

constexpr size_t kMaxFile = 64 * 1024;
constexpr size_t kMaxName = 64;  // HOST_NAME_MAX
constexpr std::string_view kOwnAddress = "127.0.1.1";
constexpr std::string_view kLocalAddress = "127.0.0.1";
constexpr std::string_view kBlank = " \t\r";

Status CheckName(const std::string& name) {
  bool valid = !name.empty() && name.size() <= kMaxName;
  for (char c : name) {
    valid &= (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
             c == '-' || c == '.';
  }
  if (valid) return OkStatus();
  return Errorf(
      "a hostname of %zu characters has no place in /etc/hosts: 1 to %zu letters, digits, "
      "'-' and '.' are valid",
      name.size(), kMaxName);
}

std::string LineOf(const std::string& name) {
  return std::string(kOwnAddress) + " " + name + std::string(kMaxName - name.size(), ' ') + "\n";
}

// The words of a line before its comment.
std::vector<std::string_view> Words(std::string_view line) {
  line = line.substr(0, line.find('#'));
  std::vector<std::string_view> words;
  for (size_t at = line.find_first_not_of(kBlank); at != std::string_view::npos;) {
    size_t end = std::min(line.find_first_of(kBlank, at), line.size());
    words.push_back(line.substr(at, end - at));
    at = line.find_first_not_of(kBlank, end);
  }
  return words;
}

// `text` without what it says about the machine's own name, and with a line for localhost.
std::string WithoutName(std::string_view text, std::string_view name) {
  std::string kept;
  bool has_localhost = false;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    std::vector<std::string_view> words = Words(line);
    std::string_view address = words.empty() ? std::string_view() : words[0];
    if (address == kOwnAddress) continue;
    bool names_it = false;
    std::string others(address);
    for (size_t i = 1; i < words.size(); ++i) {
      has_localhost |= address == kLocalAddress && words[i] == "localhost";
      if (words[i] == name) {
        names_it = true;
      } else {
        others += " " + std::string(words[i]);
      }
    }
    if (address != kLocalAddress || !names_it) {
      kept += std::string(line) + "\n";
    } else if (others.size() > address.size()) {
      kept += others + "\n";
    }
  }
  return has_localhost ? kept : std::string(kLocalAddress) + " localhost\n" + kept;
}

Result<std::string> ReadAll(int fd, const std::string& path) {
  std::string text(kMaxFile + 1, '\0');
  ssize_t n = pread(fd, text.data(), text.size(), 0);
  if (n < 0) return ErrnoError("cannot read %s", path.c_str());
  if (static_cast<size_t>(n) > kMaxFile) {
    return Errorf("%s has more than %zu bytes", path.c_str(), kMaxFile);
  }
  text.resize(static_cast<size_t>(n));
  return text;
}

}  // namespace

Result<HostsFile> HostsFile::Prepare(const std::string& path, const std::string& name) {
  CUBE_TRY(CheckName(name));
  CUBE_ASSIGN(UniqueFd file, OpenFile(path, O_RDWR | O_CREAT, 0644));
  CUBE_ASSIGN(std::string before, ReadAll(file.get(), path));
  std::string after = WithoutName(before, name);
  off_t place = static_cast<off_t>(after.size());
  std::string line = LineOf(name);
  after += line;
  if (after != before) {
    ssize_t n = pwrite(file.get(), after.data(), after.size(), 0);
    if (n != static_cast<ssize_t>(after.size())) return ErrnoError("cannot write %s", path.c_str());
    if (ftruncate(file.get(), n) < 0) return ErrnoError("cannot cut %s off", path.c_str());
  }
  return HostsFile(std::move(file), place, std::move(line));
}

Status HostsFile::SetName(const std::string& name) {
  CUBE_TRY(CheckName(name));
  std::string line = LineOf(name);
  if (line == line_) return OkStatus();
  std::string found(line_.size(), '\0');
  ssize_t n = pread(file_.get(), found.data(), found.size(), place_);
  if (n < 0) return ErrnoError("cannot read /etc/hosts");
  if (static_cast<size_t>(n) != found.size() || found != line_) return OkStatus();
  if (pwrite(file_.get(), line.data(), line.size(), place_) != static_cast<ssize_t>(line.size())) {
    return ErrnoError("cannot write /etc/hosts");
  }
  line_ = std::move(line);
  return OkStatus();
}

}  // namespace cube::agent
