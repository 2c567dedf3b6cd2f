#ifndef CUBE_TESTS_GUEST_VECTOR_REGISTERS_H_
#define CUBE_TESTS_GUEST_VECTOR_REGISTERS_H_

#include <cstdint>

namespace cube::testing {

// Which registers there are beyond x87, MMX and SSE.
enum class VectorLevel : uint32_t { kXmm, kYmm, kZmm };

// The FXSAVE image (Intel SDM volume 1, 10.5.1).
struct alignas(16) FxImage {
  uint16_t control, status;
  uint8_t tags, reserved;
  uint16_t opcode;
  uint64_t instruction_pointer, data_pointer;
  uint32_t mxcsr, mxcsr_mask;
  uint8_t st[8][16];  // 10 bytes each are a register
  uint8_t xmm[16][16];
  uint8_t unused[96];
};
static_assert(sizeof(FxImage) == 512);

// All the registers. vector_registers.S knows the offsets.
struct alignas(64) VectorRegisters {
  FxImage fx;
  uint8_t zmm[32][64];  // kYmm: the first 32 bytes of the first 16; kXmm: none, see fx
  uint64_t k[8];
};

// A system call of up to three arguments, then an idle loop.
struct HoldStep {
  uint64_t number, arguments[3];
  uint64_t spins;
};

extern "C" {
// Sets every register of the level from `from`, and nothing else.
void LoadVectors(const VectorRegisters* from, VectorLevel level);

// Sets them, carries out the steps without a single instruction that could change one, and says in
// `to` what they are then.
void HoldVectors(const VectorRegisters* from, VectorRegisters* to, VectorLevel level,
                 const HoldStep* steps, uint64_t count);
}

}  // namespace cube::testing

#endif  // CUBE_TESTS_GUEST_VECTOR_REGISTERS_H_
