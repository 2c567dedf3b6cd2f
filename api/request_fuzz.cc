// What a client sends before it is known who it is: a header, which names somebody, and a body.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "api/fields.h"
#include "api/http_parser.h"
#include "api/network_request.h"
#include "api/sandbox_address.h"
#include "api/url.h"

using cube::api::HeaderScan;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  HeaderScan scan, again;
  auto found = scan.Look(text);
  // However it comes in pieces, the same is found.
  for (size_t i = 0; i <= size; ++i) {
    auto part = again.Look(text.substr(0, i));
    if (part == HeaderScan::Found::kMore) continue;
    if (part != found || (part == HeaderScan::Found::kWhole && again.size() != scan.size())) {
      __builtin_trap();
    }
    break;
  }
  std::string_view body = text;
  if (found == HeaderScan::Found::kWhole) {
    body = text.substr(scan.size());
    cube::api::RequestParser parser;
    if (!cube::api::ParseRequestHeader(text.substr(0, scan.size()), &parser)) {
      cube::api::Headers headers;
      for (const auto& field : parser.get()) {
        headers.Add(std::string(field.name_string()), std::string(field.value()));
      }
      (void)cube::api::AddresseeOf(headers);
      std::string_view target(parser.get().target().data(), parser.get().target().size());
      (void)cube::api::SplitPath(target);
      (void)cube::api::ParseQuery(target);
    }
  }
  auto fields = cube::api::Fields::Parse(body);
  if (!fields.ok()) return 0;
  auto network = fields->Object("network");
  (void)cube::api::ReadNetwork(&*fields, network ? &*network : nullptr);
  return 0;
}
