// Lines of the control protocol: whatever they hold, what is read of them is within its limits.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "pool/request_fields.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using cube::pool::RequestFields;
  auto fields = RequestFields::Parse({reinterpret_cast<const char*>(data), size});
  if (!fields.ok()) return 0;
  if (fields->tag().size() > 256) abort();
  (void)fields->String("op");
  (void)fields->Bool("a", false);
  auto number = fields->Number("n", 1000);
  if (number.ok() && *number && **number > 1000) abort();
  auto real = fields->Real("r", 0, 8);
  if (real.ok() && !(*real >= 0 && *real <= 8)) abort();
  auto strings = fields->Strings("s");
  if (strings.ok() && strings->size() > 1024) abort();
  (void)fields->StringMap("m");
  (void)fields->Finish();
  return 0;
}
