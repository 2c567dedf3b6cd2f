#ifndef CUBE_VMM_RING0_GUEST_CODE_H_
#define CUBE_VMM_RING0_GUEST_CODE_H_

#include <cstdint>
#include <span>

namespace cube::vmm::ring0 {

// Code of a micro guest, assembled with the test that runs it.
struct GuestCode {
  const char* name;
  const uint8_t* begin;
  const uint8_t* end;
  std::span<const uint8_t> bytes() const { return {begin, end}; }
};

// Defines the function `name`, which returns assembler `text` (AT&T syntax, independent of its
// place) followed by an OUT to MicroGuest::kDonePort.
#define CUBE_GUEST_CODE(name, text)                                                             \
  extern "C" const uint8_t cube_##name##_begin[], cube_##name##_end[];                          \
  asm(".pushsection .rodata\ncube_" #name "_begin:\n" text "\nout %al, $0xf4\nhlt\ncube_" #name \
      "_end:\n.popsection\n");                                                                  \
  GuestCode name() { return {#name, cube_##name##_begin, cube_##name##_end}; }

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_GUEST_CODE_H_
