#include "base/program_pages.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <string>

namespace cube {
namespace {

alignas(4096) constexpr uint8_t kTable[1 << 20] = {1};  // on pages of its own
uint8_t written[1 << 16] = {1};

// Reads memory and not what the compiler knows of it.
unsigned Read(const uint8_t* address) { return *static_cast<const volatile uint8_t*>(address); }

// KiB of memory that the mapping around `address` has resident.
int Resident(const void* address) {
  std::ifstream smaps("/proc/self/smaps");
  const uint64_t wanted = reinterpret_cast<uint64_t>(address);
  bool here = false;
  for (std::string line; std::getline(smaps, line);) {
    unsigned long long low, high;
    int kib;
    if (sscanf(line.c_str(), "%llx-%llx ", &low, &high) == 2) {
      here = low <= wanted && wanted < high;
    } else if (here && sscanf(line.c_str(), "Rss: %d", &kib) == 1) {
      return kib;
    }
  }
  return -1;
}

TEST(ProgramPages, ConstantsLeaveMemoryAndComeBack) {
  unsigned sum = 0;
  for (size_t i = 0; i < sizeof kTable; i += 4096) sum += Read(kTable + i);
  EXPECT_EQ(sum, 1u);
  const int before = Resident(kTable);
  ASSERT_GE(before, 1024);
  ReleaseProgramPages();
  EXPECT_LT(Resident(kTable), before - 900);
  EXPECT_EQ(Read(kTable), 1u);
  EXPECT_EQ(Read(kTable + sizeof kTable - 1), 0u);
}

TEST(ProgramPages, WhatWasWrittenStays) {
  for (size_t i = 0; i < sizeof written; i += 4096) written[i] = 42;
  ReleaseProgramPages();
  for (size_t i = 0; i < sizeof written; i += 4096) EXPECT_EQ(written[i], 42);
}

}  // namespace
}  // namespace cube
