#include "guestkernel/agent/envd/metrics.h"

#include <sys/statvfs.h>
#include <time.h>

#include <charconv>
#include <cstddef>
#include <string_view>

#include "base/byte_io.h"
#include "base/json_writer.h"

namespace cube::agent::envd {
namespace {

constexpr uint64_t kMebibyte = 1 << 20;

// The number that follows, after blanks, at `text`; takes both off it.
uint64_t TakeNumber(std::string_view* text) {
  while (text->starts_with(' ')) text->remove_prefix(1);
  uint64_t number = 0;
  auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), number);
  text->remove_prefix(static_cast<size_t>(end - text->data()));
  return number;
}

std::string ReadOrNothing(const char* path) {
  Result<std::string> text = ReadSmallFile(path, kMebibyte);
  return text.ok() ? std::move(text).value() : "";
}

// A value of /proc/meminfo, in bytes.
uint64_t Memory(std::string_view text, std::string_view name) {
  const size_t at = text.find(name);
  if (at == std::string_view::npos) return 0;
  text.remove_prefix(at + name.size());
  return TakeNumber(&text) * 1024;
}

}  // namespace

std::string Metrics::Json() {
  // proc(5): the first line is user, nice, system, idle, iowait, irq, softirq, steal; one each for
  // the processors follows.
  const std::string stat = ReadOrNothing("/proc/stat");
  std::string_view line = std::string_view(stat).substr(0, stat.find('\n'));
  if (line.starts_with("cpu")) line.remove_prefix(3);
  uint64_t total = 0;
  uint64_t idle = 0;
  for (int i = 0; i < 8; ++i) {
    const uint64_t ticks = TakeNumber(&line);
    total += ticks;
    if (i == 3 || i == 4) idle += ticks;
  }
  int processors = 0;
  for (size_t at = stat.find("\ncpu"); at != std::string::npos; at = stat.find("\ncpu", at + 1)) {
    ++processors;
  }
  const uint64_t busy = total - idle;
  const uint64_t passed = total - total_;
  const double used =
      passed == 0 ? 0 : 100.0 * static_cast<double>(busy - busy_) / static_cast<double>(passed);
  busy_ = busy;
  total_ = total;

  const std::string memory = ReadOrNothing("/proc/meminfo");
  const uint64_t memory_total = Memory(memory, "MemTotal:");
  const uint64_t memory_used = memory_total - Memory(memory, "MemAvailable:");
  const uint64_t cached = Memory(memory, "\nCached:");
  uint64_t disk_total = 0;
  uint64_t disk_free = 0;
  struct statvfs disk;
  if (statvfs("/", &disk) == 0) {
    disk_total = disk.f_blocks * disk.f_frsize;
    disk_free = disk.f_bfree * disk.f_frsize;
  }
  JsonWriter writer;
  writer.BeginObject();
  writer.Key("ts").Int(time(nullptr));
  writer.Key("cpu_count").Int(processors);
  writer.Key("cpu_used_pct").Double(used);
  writer.Key("mem_total").Uint(memory_total);
  writer.Key("mem_used").Uint(memory_used);
  writer.Key("mem_cache").Uint(cached);
  writer.Key("mem_total_mib").Uint(memory_total / kMebibyte);
  writer.Key("mem_used_mib").Uint(memory_used / kMebibyte);
  writer.Key("disk_used").Uint(disk_total - disk_free);
  writer.Key("disk_total").Uint(disk_total);
  return writer.EndObject().text();
}

}  // namespace cube::agent::envd
