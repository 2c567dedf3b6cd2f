// The body of an upload in pieces of any size: forms, and compressed ones. What comes out does not
// depend on the pieces.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "guestkernel/agent/envd/gunzip.h"
#include "guestkernel/agent/envd/multipart.h"

namespace {

using namespace cube;
using namespace cube::agent::envd;

std::string ReadForm(std::string_view rest, size_t piece) {
  std::string out;
  MultipartReader reader("B", {.begin =
                                   [&](const PartHead& head) {
                                     out +=
                                         "[" + head.name + "/" + head.filename.value_or("-") + ":";
                                     return OkStatus();
                                   },
                               .data =
                                   [&](std::string_view bytes) {
                                     out += bytes;
                                     return OkStatus();
                                   },
                               .end =
                                   [&] {
                                     out += "]";
                                     return OkStatus();
                                   }});
  while (!rest.empty()) {
    if (!reader.Add(rest.substr(0, piece)).ok()) return "error";
    rest.remove_prefix(std::min(piece, rest.size()));
  }
  return out + (reader.complete() ? "." : "");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view all(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t piece = size_t{data[0]} % 40 + 1;
  if (ReadForm(all, piece) != ReadForm(all, all.size() + 1)) abort();
  (void)MultipartReader::Boundary(all);

  static std::array<char, 4096> scratch;
  auto gunzip = Gunzip::Create(scratch);
  size_t made = 0;
  std::string_view rest = all;
  while (!rest.empty()) {
    Status added = gunzip->Add(rest.substr(0, piece), [&](std::string_view bytes) -> Status {
      made += bytes.size();
      if (made > 1 << 20) return Error("enough");
      return OkStatus();
    });
    if (!added.ok()) break;
    rest.remove_prefix(std::min(piece, rest.size()));
  }
  return 0;
}
