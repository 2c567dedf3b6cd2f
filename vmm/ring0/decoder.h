#ifndef CUBE_VMM_RING0_DECODER_H_
#define CUBE_VMM_RING0_DECODER_H_

#include <cstdint>
#include <span>

#include "vmm/ring0/op.h"

namespace cube::vmm::ring0 {

inline constexpr size_t kMaxInstruction = 15;

enum class Decoded : uint8_t {
  kGoesOn,     // the next instruction may follow in the same block
  kEnds,       // control leaves, or what follows may have to be read anew
  kTruncated,  // the bytes end within the instruction; `op` means nothing
};

// Decodes the 64-bit instruction at the start of `bytes`, which stand at offset `at` of their page,
// into `op` (Intel SDM volume 2, chapter 2 and appendix A). What the engine does not carry out
// itself becomes an operation that hands it off; nothing is refused. At most kMaxInstruction bytes
// are looked at.
Decoded Decode(std::span<const uint8_t> bytes, uint16_t at, Op* op);

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_DECODER_H_
