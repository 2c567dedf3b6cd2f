// Configuration files: whatever they hold, values are within their ranges.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "pool/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto config = cube::pool::Config::Parse({reinterpret_cast<const char*>(data), size}, "fuzz");
  if (!config.ok()) {
    if (!config.error().message().starts_with("fuzz:")) abort();
    return 0;
  }
  if (config->home.empty() || config->home[0] != '/') abort();
  if (config->timeout_seconds > config->max_timeout_seconds) abort();
  for (const auto& [name, pool] : config->templates) {
    if (pool.size > 1000 || pool.concurrency < 1 || pool.concurrency > 64) abort();
  }
  return 0;
}
