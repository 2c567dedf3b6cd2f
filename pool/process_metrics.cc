#include "pool/process_metrics.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

#include "base/byte_io.h"

namespace cube::pool {
namespace {

namespace fs = std::filesystem;

uint64_t KibOf(const std::string& text, const char* name) {
  size_t place = text.find(name);
  if (place == std::string::npos) return 0;
  return strtoull(text.c_str() + place + strlen(name), nullptr, 10);
}

// Fields 14 and 15 of /proc/PID/stat.
double CpuSeconds(pid_t pid) {
  constexpr int kFieldsBefore = 12;  // between the name's parenthesis and utime
  auto text = ReadSmallFile(Format("/proc/%d/stat", pid));
  if (!text.ok()) return 0;
  size_t place = text->rfind(')');
  for (int i = 0; i < kFieldsBefore && place != std::string::npos; ++i) {
    place = text->find(' ', place + 1);
  }
  if (place == std::string::npos) return 0;
  char* end = nullptr;
  uint64_t user = strtoull(text->c_str() + place, &end, 10);
  uint64_t system = strtoull(end, nullptr, 10);
  return static_cast<double>(user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

// Files without a name that it has open: the overlays of its disks.
uint64_t UnnamedFiles(pid_t pid) {
  uint64_t bytes = 0;
  std::error_code failed;
  for (fs::directory_iterator one(Format("/proc/%d/fd", pid), failed), end; !failed && one != end;
       one.increment(failed)) {
    struct stat info;
    if (stat(one->path().c_str(), &info) < 0 || !S_ISREG(info.st_mode) || info.st_nlink != 0) {
      continue;
    }
    bytes += static_cast<uint64_t>(info.st_blocks) * 512;
  }
  return bytes;
}

}  // namespace

ProcessMetrics ReadProcessMetrics(pid_t pid) {
  ProcessMetrics metrics;
  if (pid <= 0) return metrics;
  metrics.cpu_seconds = CpuSeconds(pid);
  auto memory = ReadSmallFile(Format("/proc/%d/smaps_rollup", pid));
  if (memory.ok()) {
    uint64_t resident = KibOf(*memory, "Rss:"), own = KibOf(*memory, "Anonymous:");
    metrics.memory_bytes = own * 1024;
    metrics.shared_bytes = resident > own ? (resident - own) * 1024 : 0;
  }
  metrics.disk_bytes = UnnamedFiles(pid);
  return metrics;
}

}  // namespace cube::pool
