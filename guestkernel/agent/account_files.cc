#include "guestkernel/agent/account_files.h"

#include <cstdio>
#include <memory>
#include <vector>

namespace cube::agent {
namespace {

constexpr size_t kMaxLine = 65536;

// `next`: fgetpwent_r or fgetgrent_r.
template <typename Entry>
void ForEach(const std::string& path, int (*next)(FILE*, Entry*, char*, size_t, Entry**),
             const std::function<bool(const Entry&)>& each) {
  std::unique_ptr<FILE, int (*)(FILE*)> file(fopen(path.c_str(), "re"), fclose);
  if (file == nullptr) return;
  std::vector<char> line(kMaxLine);
  Entry entry;
  Entry* found = nullptr;
  while (next(file.get(), &entry, line.data(), line.size(), &found) == 0) {
    if (!each(entry)) return;
  }
}

}  // namespace

void ForEachUser(const std::string& path, const std::function<bool(const passwd&)>& each) {
  ForEach<passwd>(path, fgetpwent_r, each);
}

void ForEachGroup(const std::string& path, const std::function<bool(const group&)>& each) {
  ForEach<group>(path, fgetgrent_r, each);
}

}  // namespace cube::agent
