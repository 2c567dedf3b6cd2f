#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "vmm/ring0/decoder.h"

// Decode() takes any bytes at any place of a page: it looks at no more than it is given, and what it
// makes of them does not depend on what stands behind the instruction.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cube::vmm::ring0;
  if (size < 2) return 0;
  auto at = static_cast<uint16_t>((data[0] | data[1] << 8) & 4095);
  std::span<const uint8_t> bytes(data + 2, size - 2);
  Op op;
  Decoded decoded = Decode(bytes, at, &op);
  if (decoded == Decoded::kTruncated) return 0;
  if (op.length == 0 || op.length > kMaxInstruction || op.length > bytes.size()) abort();
  if (op.at != at) abort();
  Op again;
  // All but STI, which looks at what follows.
  if (bytes[op.length - 1u] == 0xfb) return 0;
  if (Decode(bytes.first(op.length), at, &again) != decoded) abort();
  if (again.handler != op.handler || again.length != op.length) abort();
  return 0;
}
