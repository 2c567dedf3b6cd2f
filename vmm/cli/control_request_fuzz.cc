// A line on a control socket: any bytes.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "vmm/cli/control_request.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using cube::vmm::ControlRequest;
  constexpr uint64_t kLimit = 100;
  auto request = ControlRequest::Parse({reinterpret_cast<const char*>(data), size});
  if (!request.ok()) return 0;
  for (const char* name : {"op", "token", "path", "id"}) {
    (void)request->String(name);
    (void)request->String(name, "");
    (void)request->Bool(name, false);
    (void)request->Strings(name);
    auto number = request->Number(name, 1, kLimit);
    if (number.ok() && *number > kLimit) abort();
  }
  (void)request->Strings("environment");
  return 0;
}
