// manifest.json: any text, and any text with the checksum that would follow it.
#include <stdio.h>
#include <xxhash.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "snapshot/manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using cube::snapshot::Manifest;
  std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)Manifest::Parse(text);
  std::string whole(text);
  char checksum[17];
  snprintf(checksum, sizeof checksum, "%016llx",
           static_cast<unsigned long long>(XXH3_64bits(text.data(), text.size())));
  whole += std::string(",\"xxh3\":\"") + checksum + "\"}\n";
  auto manifest = Manifest::Parse(whole);
  // What was accepted is written and read as the same.
  if (manifest.ok()) {
    std::string again = manifest->ToJson();
    auto second = Manifest::Parse(again);
    if (!second.ok() || second->ToJson() != again) abort();
  }
  return 0;
}
