#ifndef CUBE_VMM_LOADER_HEX_H_
#define CUBE_VMM_LOADER_HEX_H_

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"

namespace cube::vmm {

// The first eight bytes of a file of unknown kind, for an error: "7f 45 4c 46 02 01 01 00".
inline std::string FirstBytes(std::span<const uint8_t> data) {
  std::string text;
  for (uint8_t byte : data.first(std::min<size_t>(data.size(), 8))) {
    text += Format(text.empty() ? "%02x" : " %02x", byte);
  }
  return text.empty() ? "nothing" : text;
}

}  // namespace cube::vmm

#endif  // CUBE_VMM_LOADER_HEX_H_
